//! `ltm bench`.

use super::output::{check_place, note, print};
use super::place::Place;
use super::progress::bar;
use super::settings::Single;
use crate::data::one_of;
use engine::{Device, Error, Result};
use lab::bench::{STEPS, Setup, Steps, Work, measure_all, picture};
use ltm::checkpoint::write_atomic;
use ltm::config::{Config, Precision};
use roofline::{Comparison, ROUNDS, Recorder, Report, any_slower, comparison_text, in_turns, serve};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Measure the speed of every op and of whole training steps on this machine, against its peak and bandwidth
///
/// Runs every op that training uses at the preset's sizes: forward, backward as in training, and fused if the op has a fused
/// pass. Then it runs whole fast, slow and training steps. It measures the peak rate and the bandwidth of memory and caches
/// again and again in between. Each row shows the floor, which is the larger of FLOPs / peak and bytes / bandwidth, and the
/// share of it that the op reaches. What an op computes is compared with the same op in f64 before it is timed.
///
/// --compare and --against call each row faster, slower, same (within 3 %) or ambiguous, if the run cannot tell. The exit code
/// is 3 if any is slower.
#[derive(clap::Args)]
pub struct Args {
    /// Measure only these: names of ops, or `steps` for whole steps [default: steps and the ops that training uses]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    op: Vec<String>,
    /// Measure also the ops that training does not use
    #[arg(long, conflicts_with = "op")]
    all: bool,
    /// Preset that sets the sizes, with one sample per batch
    #[arg(long, value_name = "NAME", default_value = "small")]
    preset: String,
    #[command(flatten)]
    single: Single,
    /// Type of the factors of products, and of tensors on a GPU [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, value_parser = one_of::<Precision>())]
    dtype: Option<Precision>,
    /// Write all measurements as JSON, for --compare in a later run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the roofline as SVG, with one point per op and pass
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compare with a file from --json of the same sizes, threads, device and precision
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Compare with another build of this program: both measure in turns, so that a change of the machine's speed changes both
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["compare", "json", "svg"])]
    against: Option<PathBuf>,
    /// Measure what the program asks that started this one by --against
    #[arg(long, hide = true, conflicts_with_all = ["compare", "json", "svg", "against"])]
    serve: bool,
}

/// The exit code if anything is slower.
const SLOWER: u8 = 3;

/// The seconds of a row in a round of --against, as a share of those of other measurements: there are more rounds than passes.
const SHARE: f64 = 0.5;

pub fn run(args: &Args, place: &Place) -> Result<ExitCode> {
    let mut config = Config::preset(&args.preset)?;
    config.train.batch = 1;
    args.single.apply(&mut config)?;
    let config = config.resolved()?;
    // Report unreadable or unwritable files before minutes of measuring.
    let earlier = args.compare.as_deref().map(Report::open).transpose()?;
    let files = [(&args.json, ""), (&args.svg, ".svg")];
    files
        .iter()
        .filter_map(|(path, ending)| Some((path.as_ref()?, ending)))
        .try_for_each(|(path, ending)| check_place(path, ending))?;
    place.inside(config.train.threads, || {
        let (setup, works) = place.within(|device| {
            let mut config = config.clone();
            let best = if matches!(device, Device::Cpu(_)) { Precision::F32 } else { Precision::Bf16 };
            config.train.precision = args.dtype.unwrap_or(best);
            let mut setup = Setup { only: args.op.clone(), all: args.all, ..Setup::new(config, device.clone())? };
            if args.json.is_some() || args.compare.is_some() || args.serve {
                setup.effort = setup.effort.in_passes();
            }
            let works = setup.works()?;
            Ok((setup, works))
        })?;
        let conditions = setup.conditions(format!("preset {}", args.preset));
        if let Some((earlier, path)) = earlier.as_ref().zip(args.compare.as_ref()) {
            conditions.check(&earlier.conditions).map_err(|e| e.at(path.display()))?;
        }
        if args.serve {
            return answer(setup, &works, args).map(|()| ExitCode::SUCCESS);
        }
        print(&conditions.machine)?;
        print(format_args!("{}: {}, {}\n", conditions.title, conditions.sizes, conditions.machine.dtype))?;
        let bar = bar(0, "{wide_msg}");
        if let Some(other) = &args.against {
            let name = |unit: usize| works.get(unit).map_or(STEPS, |work| &work.case);
            let reports = in_turns(children(other)?, ROUNDS, |round, unit| {
                bar.set_message(format!("round {round} of {ROUNDS}: {}", name(unit)));
                bar.tick();
            });
            bar.finish_and_clear();
            let [now, then] = reports?;
            then.refuse_impossible().map_err(|e| e.at(other.display()))?;
            now.refuse_impossible()?;
            print(format_args!("this program, in turns with {}", other.display()))?;
            return verdict(&now.compare_in_turns(&then)?);
        }
        let mut recorder = Recorder::new(&setup.device, setup.dtype, setup.effort)?;
        measure_all(&setup, &works, &mut recorder, &mut |pass, case| {
            bar.set_message(format!("pass {pass} of {}: {case}", setup.effort.passes));
            bar.tick();
        })?;
        bar.finish_and_clear();
        let report = Report::new(conditions, &recorder.ceilings, recorder.rows());
        print(&report)?;
        report.refuse_impossible()?;
        for (path, text) in [(&args.json, report.to_json()), (&args.svg, picture(&report))] {
            if let Some(path) = path {
                write_atomic(path, text.as_bytes())?;
                note(format_args!("wrote {}", path.display()));
            }
        }
        match earlier.as_ref().zip(args.compare.as_ref()) {
            Some((earlier, path)) => compare(earlier, path, &report),
            None => Ok(ExitCode::SUCCESS),
        }
    })
}

/// Every row that the earlier run also has, and the conditions that differ between the runs.
fn compare(earlier: &Report, path: &Path, report: &Report) -> Result<ExitCode> {
    print(format_args!("\ncompared with {}", path.display()))?;
    let differences = report.conditions.differences(&earlier.conditions);
    if !differences.is_empty() {
        print(format_args!("warning: the conditions differ as well as the program: {}", differences.join("; ")))?;
    }
    let rows = report.compare(earlier).map_err(|e| e.at(path.display()))?;
    let code = verdict(&rows)?;
    print(format_args!("the machine itself changed by {:.1} %", 100.0 * (report.drift(earlier) - 1.0)))?;
    Ok(code)
}

/// Prints a comparison.
fn verdict(rows: &[Comparison]) -> Result<ExitCode> {
    print(comparison_text(rows))?;
    Ok(if any_slower(rows) { ExitCode::from(SLOWER) } else { ExitCode::SUCCESS })
}

/// Measures what the parent asks for; whole steps are the last unit.
fn answer(mut setup: Setup, works: &[Work], args: &Args) -> Result<()> {
    setup.effort.seconds *= SHARE;
    setup.effort.passes = ROUNDS;
    let mut recorder = Recorder::new(&setup.device, setup.dtype, setup.effort)?;
    let conditions = setup.conditions(format!("preset {}", args.preset));
    let report = Report::new(conditions, &recorder.ceilings, Vec::new());
    let units = works.len() + usize::from(setup.has_steps());
    let mut steps = Steps::new(&setup);
    let measure = |unit: usize| {
        match works.get(unit) {
            Some(work) => work.record(&mut recorder)?,
            None => steps.record(&mut recorder)?,
        }
        Ok(recorder.take_new())
    };
    serve(report, units, measure, io::stdin().lock(), io::stdout())
}

/// This program and the other one, each with the same arguments, to measure what this one asks.
fn children(other: &Path) -> Result<[Command; 2]> {
    let own = std::env::current_exe().map_err(|e| Error::new(format!("cannot find this program: {e}")))?;
    let mut given = std::env::args_os().skip(1);
    let mut arguments = Vec::new();
    while let Some(word) = given.next() {
        if word == "--against" {
            given.next();
        } else if !word.to_string_lossy().starts_with("--against=") {
            arguments.push(word);
        }
    }
    arguments.push("--serve".into());
    Ok([own.as_path(), other].map(|program| {
        let mut command = Command::new(program);
        command.args(&arguments);
        command
    }))
}
