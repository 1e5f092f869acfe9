//! `ltm verify`.

use super::output::{Align, print, table};
use super::threads;
use engine::{DType, Error, Result};
use ltm::verify::{golden, ops, tolerance};
use std::path::{Path, PathBuf};

/// Check this build on this machine: every op against its f64 reference and central differences
///
/// With --golden also the whole model, its gradients and both learning steps against numbers that another implementation
/// computed. The exit code is 1 if anything is beyond its tolerance.
#[derive(clap::Args)]
pub struct Args {
    /// safetensors file of golden numbers, with the model's sizes in its metadata
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<()> {
    threads::inside(threads.unwrap_or(0), || {
        // An unreadable file is told at once, not after the ops.
        let golden = args.golden.as_deref().map(compare).transpose()?;
        let bad_ops = check_ops()?;
        let bad_numbers = match golden {
            Some(golden) => golden.show()?,
            None => 0,
        };
        match bad_ops + bad_numbers {
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

/// Relative errors of every quantity of a golden file, in f64 and f32.
struct Golden {
    path: PathBuf,
    rows: Vec<(String, f64, f64)>,
}

fn compare(path: &Path) -> Result<Golden> {
    let (double, single) = (golden(path, DType::F64)?, golden(path, DType::F32)?);
    let rows = double.into_iter().zip(single).map(|(d, s)| (d.name, d.error, s.error)).collect();
    Ok(Golden { path: path.into(), rows })
}

impl Golden {
    /// Prints all quantities; the number of those beyond their tolerance.
    fn show(&self) -> Result<usize> {
        use Align::{Left, Right};
        let beyond = |error: f64, dtype| error.is_nan() || error > tolerance(dtype);
        let bad = |row: &(String, f64, f64)| beyond(row.1, DType::F64) || beyond(row.2, DType::F32);
        let rows = self.rows.iter().map(|row| {
            let verdict = if bad(row) { "BEYOND TOLERANCE" } else { "ok" };
            vec![row.0.clone(), format!("{:.1e}", row.1), format!("{:.1e}", row.2), verdict.to_string()]
        });
        let (double, single) = (tolerance(DType::F64), tolerance(DType::F32));
        print(format_args!(
            "{}: relative errors, at most {double:.0e} in f64 and {single:.0e} in f32\n",
            self.path.display()
        ))?;
        print(table(&[("quantity", Left), ("f64", Right), ("f32", Right), ("", Left)], &rows.collect::<Vec<_>>()))?;
        print("")?;
        Ok(self.rows.iter().filter(|row| bad(row)).count())
    }
}
