//! `ltm sweep`: many runs that differ along a few axes, one table, three figures.

mod results;
mod work;

use super::output::print;
use super::settings::absolute;
use super::{device, threads, toml_file};
use engine::{Device, Error, Result};
use lab::plan::Plans;
use lab::sweep::{Cost, Point, Sweep};
use ltm::run::Run;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use work::Sweeping;

/// Train and judge a model for every point of a grid: fast steps, latents, sizes, training tokens, seeds
///
/// FILE is TOML; sweep.toml in the repository is an example and explains every key. Every point is an ordinary run in
/// DIR/POINT, judged by elbo, an upper bound, or exactly where a model has no latents. DIR/sweep.jsonl has a line for every
/// point, DIR/sweep.csv the table, DIR/perplexity-{steps,tokens,flops}.svg the figures.
///
/// The same command goes on where it was stopped: finished points are not done again, one that was under way goes on from
/// its checkpoint, one that failed is tried again. A folder whose run has other settings than its point is refused. Ctrl-C
/// saves a checkpoint and stops with exit code 130. A point that fails is recorded with its reason and the others go on; the
/// exit code is then 1.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What varies, and what does not
    file: PathBuf,
    /// Folder for runs and results [default: runs/FILE without its ending]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// List the points and what they cost, and train nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args, threads: Option<usize>, device: device::Choice) -> Result<ExitCode> {
    let sweep = read(&args.file)?;
    let mut points = sweep.points(absolute).map_err(|e| e.at(args.file.display()))?;
    for config in points.iter_mut().filter_map(|point| point.config.as_mut().ok()) {
        config.train.threads = threads.unwrap_or(config.train.threads);
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("runs").join(args.file.file_stem().unwrap_or(OsStr::new("sweep"))));
    let count = points.iter().find_map(|point| point.config.as_ref().ok()).map_or(0, |config| config.train.threads);
    check_no_run(&out)?;
    threads::inside(count, || {
        let device = device::open(device)?;
        if args.dry_run {
            return print(results::plan(&priced(&points, &device))).map(|()| ExitCode::SUCCESS);
        }
        check_folders(&out, &points)?;
        fs::create_dir_all(&out).map_err(|e| Error::io("create", &out, &e))?;
        Sweeping::new(&sweep, &out, &device)?.all(&points)
    })
}

/// Reads a sweep's file.
fn read(path: &Path) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    // Sizes may be empty, and come in the file's order.
    for (name, place) in toml_file::tables_in(path, "size")? {
        sweep.size(&name).map_err(|e| e.at(place))?;
    }
    for setting in toml_file::read(path)? {
        sweep
            .set(&setting.key, &ltm::json::from_serde(&setting.value)?)
            .map_err(|e| e.at(&setting.key).at(&setting.place))?;
    }
    Ok(sweep)
}

fn priced<'a>(points: &'a [Point], device: &Device) -> Vec<(&'a Point, Result<Cost>)> {
    points.iter().map(|point| (point, price(point, device))).collect()
}

fn price(point: &Point, device: &Device) -> Result<Cost> {
    let config = point.config.as_ref().map_err(Clone::clone)?;
    let plans = Plans::new(config, device)?;
    Ok(Cost { flops_per_token: plans.flops_per_token(), bytes: plans.store.bytes() as f64 })
}

/// That results do not come to lie among the files of one run.
fn check_no_run(out: &Path) -> Result<()> {
    match Run::exists(out) {
        true => Err(Error::usage(format!(
            "{} is the folder of a training run: name another one for the sweep's runs with --out",
            out.display()
        ))),
        false => Ok(()),
    }
}

/// That every folder there is holds its point's run: results of other settings must not pass for these.
fn check_folders(out: &Path, points: &[Point]) -> Result<()> {
    for point in points {
        let path = out.join(&point.name);
        // A folder that cannot be read is its point's failure.
        let Ok(run) = Run::open(&path) else { continue };
        if let Some((key, found, wanted)) = point.difference(run.config())? {
            return Err(Error::usage(format!(
                "{} holds a run with {key} = {found}, the sweep wants {wanted}: name another folder with --out, or remove that one",
                path.display()
            )));
        }
    }
    Ok(())
}
