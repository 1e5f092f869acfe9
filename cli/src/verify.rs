//! `ltm verify`.

use super::output::{note, print};
use super::place::Place;
use engine::{DType, Device, Error, Products, Result};
use lab::table::{DASH, Table};
use lab::verify::{self, Comparison, FITTED_IN_BF16, MODEL_SIZES, OpReport, device_tolerance, golden, tolerance};
use std::path::{Path, PathBuf};

/// Check this build on this machine: every op against its f64 reference and central differences
///
/// If there is a GPU, also checks every op and update on it, in f32 and bf16, against the CPU in f64. Then it compares
/// the whole model, its gradients and both learning steps, and the network of masked diffusion with golden numbers from an
/// independent implementation: the embedded ones, or those of --golden. The exit code is 1 if anything exceeds its tolerance.
#[derive(clap::Args)]
pub struct Args {
    /// safetensors file of golden numbers, with the model's sizes in its metadata [default: the embedded ones]
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    place.inside(0, || {
        let device = place.open()?;
        // Report an unreadable file at once, not after the ops.
        let path = args.golden.as_deref();
        let column = |name, dtype, device| -> Result<Column> { Ok((name, dtype, golden(path, dtype, device)?)) };
        let mut columns = vec![column("f64", DType::F64, &Device::CPU)?, column("f32", DType::F32, &Device::CPU)?];
        // Everything is stored in f32, but the tolerance is that of bf16.
        columns.push(("bf16", DType::Bf16, golden(path, DType::F32, &Device::CPU.with(Products::Bf16))?));
        print("relative errors: f32, or f32 with products in bf16, against f64; and the f64 gradient against central differences\n")?;
        let mut bad = show(&verify::ops())?;
        if let Device::Cuda(gpu) = &device {
            let name = gpu.name();
            // Print each result at once, so that it is clear which kernel crashed the GPU.
            let reports = verify::device(&device, &[MODEL_SIZES], |r| {
                note(format_args!("{name}: {} {}: {}", r.op, r.dtype, r.failure.as_deref().unwrap_or("ok")));
            })?;
            print(format_args!("{name}: relative errors against the CPU in f64\n"))?;
            bad += show(&reports)?;
            columns.push(column("GPU f32", DType::F32, &device)?);
            columns.push(column("GPU bf16", DType::Bf16, &device)?);
        }
        bad += show_golden(path, &columns)?;
        match bad {
            0 => print("everything is within its tolerance"),
            bad => Err(Error::new(format!(
                "{bad} results are beyond their tolerance: do not trust this build on this machine"
            ))),
        }
    })
}

/// Prints one report per line; returns the number of failures.
fn show(reports: &[OpReport]) -> Result<usize> {
    let small = |x: Option<f64>| x.map_or(DASH.into(), |x| format!("{x:.1e}"));
    let verdict = |r: &OpReport| match (&r.failure, r.left_out) {
        (Some(failure), _) => failure.clone(),
        (None, 0) => "ok".into(),
        (None, n) => format!("ok; {n} skipped, whose heads are too wide for this GPU"),
    };
    let mut table = Table::of(reports)
        .left("op", |r| &r.op)
        .left("type", |r| r.dtype)
        .right("cases", |r| r.cases)
        .right("result", |r| small(Some(r.forward)))
        .right("gradient", |r| small(r.gradient));
    if reports.iter().any(|r| r.numeric.is_some()) {
        table = table.right("f64 gradient", |r| small(r.numeric));
    }
    let table = table.right("at most", |r| format!("{:.0e}", device_tolerance(r.dtype))).left("", verdict);
    print(format_args!("{table}\n"))?;
    Ok(reports.iter().filter(|r| r.failure.is_some()).count())
}

/// The quantities of a golden file as computed in one place and precision.
type Column = (&'static str, DType, Vec<Comparison>);

/// Prints all quantities of a golden file; returns the number beyond their tolerance.
fn show_golden(path: Option<&Path>, columns: &[Column]) -> Result<usize> {
    let quantities: Vec<usize> = (0..columns[0].2.len()).collect();
    let good = |&i: &usize| columns.iter().all(|(_, dtype, column)| column[i].is_good(*dtype));
    let name = path.map_or("the embedded golden numbers".into(), |path| path.display().to_string());
    let limit = |(name, dtype, _): &Column| format!("{:.0e} in {name}", tolerance(*dtype));
    let mut limits: Vec<_> = columns.iter().map(limit).collect();
    if columns.iter().any(|(_, dtype, _)| *dtype == DType::Bf16) {
        limits.push(format!("{FITTED_IN_BF16:.0e} in bf16 after fast steps on the CPU"));
    }
    print(format_args!("{name}: relative errors, at most {}\n", limits.join(", ")))?;
    let mut table = Table::of(&quantities).left("quantity", |&i| &columns[0].2[i].name);
    for (name, _, column) in columns {
        table = table.right(*name, |&i| format!("{:.1e}", column[i].error));
    }
    let table = table.left("", |i| if good(i) { "ok" } else { "BEYOND TOLERANCE" });
    print(format_args!("{table}\n"))?;
    Ok(quantities.iter().filter(|i| !good(i)).count())
}
