//! `ltm verify`.

use super::output::{Align, note, print, table};
use super::{device, threads};
use engine::{DType, Device, Error, Result};
use lab::verify::{self, Comparison, DeviceReport, MODEL_SIZES, device_tolerance, golden, ops, tolerance};
use std::path::{Path, PathBuf};

/// Check this build on this machine: every op against its f64 reference and central differences
///
/// Then, where there is a GPU, every op and update on it against the CPU in f64, in f32 and in bf16. Then the whole model, its
/// gradients and both learning steps against numbers that an independent implementation computed: those that come with the
/// program, or those of --golden. The exit code is 1 if anything is beyond its tolerance.
#[derive(clap::Args)]
pub struct Args {
    /// safetensors file of golden numbers, with the model's sizes in its metadata [default: the program's own]
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
}

pub fn run(args: &Args, threads: Option<usize>, choice: device::Choice) -> Result<()> {
    threads::inside(threads.unwrap_or(0), || {
        let device = device::open(choice)?;
        // An unreadable file is told at once, not after the ops.
        let mut golden = Golden::new(args.golden.as_deref())?;
        let mut bad = check_ops()?;
        if let Device::Cuda(gpu) = &device {
            bad += check_device(&device, gpu.name())?;
            golden.add(args.golden.as_deref(), &device)?;
        }
        bad += golden.show()?;
        match bad {
            0 => print("everything is within its tolerance"),
            bad => Err(Error::new(format!(
                "{bad} results are beyond their tolerance: do not trust this build on this machine"
            ))),
        }
    })
}

fn check_ops() -> Result<usize> {
    use Align::{Left, Right};
    let reports = ops();
    let rows = reports.iter().map(|r| {
        let numeric = r.numeric.map_or("–".into(), |x| format!("{x:.1e}"));
        let verdict = r.failure.clone().unwrap_or_else(|| "ok".into());
        vec![
            r.op.clone(),
            r.cases.to_string(),
            format!("{:.1e}", r.forward),
            format!("{:.1e}", r.gradient),
            numeric,
            verdict,
        ]
    });
    let columns = [
        ("op", Left),
        ("cases", Right),
        ("f32 result", Right),
        ("f32 gradient", Right),
        ("f64 gradient", Right),
        ("", Left),
    ];
    print("relative errors: f32 against f64, and the f64 gradient against central differences\n")?;
    print(table(&columns, &rows.collect::<Vec<_>>()))?;
    print("")?;
    Ok(reports.iter().filter(|r| r.failure.is_some()).count())
}

/// The number of ops that are off on the device.
fn check_device(device: &Device, name: &str) -> Result<usize> {
    use Align::{Left, Right};
    let (single, half) = (device_tolerance(DType::F32), device_tolerance(DType::Bf16));
    // Said as it comes: where a kernel takes the GPU down, one sees which.
    let reports = verify::device(device, &[MODEL_SIZES], |r| {
        note(format_args!("{name}: {} {}: {}", r.op, r.dtype, r.failure.as_deref().unwrap_or("ok")));
    })?;
    let rows = reports.iter().map(|r: &DeviceReport| {
        vec![
            r.op.clone(),
            r.dtype.to_string(),
            r.cases.to_string(),
            format!("{:.1e}", r.forward),
            r.gradient.map_or("–".into(), |x| format!("{x:.1e}")),
            format!("{:.0e}", device_tolerance(r.dtype)),
            r.failure.clone().unwrap_or_else(|| match r.left_out {
                0 => "ok".into(),
                n => format!("ok; {n} left out, whose heads are wider than this GPU has room for"),
            }),
        ]
    });
    let columns = [
        ("op", Left),
        ("type", Left),
        ("cases", Right),
        ("result", Right),
        ("gradient", Right),
        ("at most", Right),
        ("", Left),
    ];
    print(format_args!(
        "{name}: relative errors against the CPU in f64, at most {single:.0e} in f32 and {half:.0e} in bf16\n"
    ))?;
    print(table(&columns, &rows.collect::<Vec<_>>()))?;
    print("")?;
    Ok(reports.iter().filter(|r| r.failure.is_some()).count())
}

/// Relative errors of every quantity of a golden file.
struct Golden {
    name: String,
    /// Where and in which precision, and the quantities in the file's order.
    columns: Vec<(&'static str, DType, Vec<Comparison>)>,
}

impl Golden {
    fn new(path: Option<&Path>) -> Result<Self> {
        let column = |name, dtype| Ok((name, dtype, golden(path, dtype, &Device::Cpu)?));
        let name = path.map_or("the program's own golden numbers".into(), |path| path.display().to_string());
        Ok(Self { name, columns: vec![column("f64", DType::F64)?, column("f32", DType::F32)?] })
    }

    /// The same on a GPU.
    fn add(&mut self, path: Option<&Path>, device: &Device) -> Result<()> {
        for (name, dtype) in [("GPU f32", DType::F32), ("GPU bf16", DType::Bf16)] {
            self.columns.push((name, dtype, golden(path, dtype, device)?));
        }
        Ok(())
    }

    /// Prints all quantities; the number of those beyond their tolerance.
    fn show(&self) -> Result<usize> {
        // Written so that NaN is beyond.
        let good = |i: usize| self.columns.iter().all(|(_, dtype, column)| column[i].error <= tolerance(*dtype));
        let rows: Vec<Vec<String>> = (0..self.columns[0].2.len())
            .map(|i| {
                let errors = self.columns.iter().map(|(_, _, column)| format!("{:.1e}", column[i].error));
                let verdict = if good(i) { "ok" } else { "BEYOND TOLERANCE" };
                let name = self.columns[0].2[i].name.clone();
                std::iter::once(name).chain(errors).chain([verdict.to_string()]).collect()
            })
            .collect();
        let limits: Vec<String> =
            self.columns.iter().map(|(name, dtype, _)| format!("{:.0e} in {name}", tolerance(*dtype))).collect();
        print(format_args!("{}: relative errors, at most {}\n", self.name, limits.join(", ")))?;
        let names = self.columns.iter().map(|(name, ..)| (*name, Align::Right));
        let columns: Vec<(&str, Align)> =
            [("quantity", Align::Left)].into_iter().chain(names).chain([("", Align::Left)]).collect();
        print(table(&columns, &rows))?;
        print("")?;
        Ok((0..rows.len()).filter(|&i| !good(i)).count())
    }
}
