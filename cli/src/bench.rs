//! `ltm bench`.

use super::output::{check_place, note, print};
use super::place::Place;
use super::progress::bar;
use super::settings::Single;
use crate::data::one_of;
use engine::{Device, Error, Result, file};
use lab::bench::{Ceilings, Machine, Numbers, Rate, Report, Row, Setup, Task, measure_all, roofline};
use lab::table::{Table, digits};
use ltm::checkpoint::write_atomic;
use ltm::config::{Config, Precision};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measure the speed of every op and of whole training steps on this machine, against its peak and bandwidth
///
/// Runs every op at the preset's sizes: forward, backward as in training, and fused if the op has a fused pass. Then it
/// runs whole fast, slow and training steps. It measures the peak rate and the bandwidth again and again in between.
/// Each row shows the floor, which is the larger of FLOPs / peak and bytes / bandwidth, and the share of it that the op
/// reaches.
#[derive(clap::Args)]
pub struct Args {
    /// Measure only these: names of ops, or `steps` for whole steps [default: everything]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    op: Vec<String>,
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
    /// Compare with a file from --json; a change is reported only if it exceeds the noise of both runs
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let mut config = Config::preset(&args.preset)?;
    config.train.batch = 1;
    args.single.apply(&mut config)?;
    let config = config.resolved()?;
    // Report unreadable or unwritable files before minutes of measuring.
    let earlier = args.compare.as_deref().map(read_report).transpose()?;
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
            let mut setup = Setup { only: args.op.clone(), ..Setup::new(config, device.clone())? };
            if args.json.is_some() || args.compare.is_some() {
                setup.effort = setup.effort.in_passes();
            }
            let works = setup.works()?;
            Ok((setup, works))
        })?;
        print(Machine::of(&setup))?;
        print(format_args!("preset {}: {}, {}\n", args.preset, setup.sizes(), setup.config.train.precision))?;
        let mut ceilings = Ceilings::new(&setup.device, setup.dtype, &setup.effort)?;
        let bar = bar(0, "{wide_msg}");
        let rows = measure_all(&setup, &works, &mut ceilings, &mut |pass, case| {
            bar.set_message(format!("pass {pass} of {}: {case}", setup.effort.passes));
            bar.tick();
        })?;
        bar.finish_and_clear();
        ceilings.measure();
        let report = Report::new(&setup, &args.preset, &ceilings, rows);
        print(format_args!("{}\n\n{}", table(&report.rows), rates(&report)))?;
        if let Some((earlier, path)) = earlier.as_ref().zip(args.compare.as_ref()) {
            compare(earlier, path, &report)?;
        }
        for (path, text) in [(&args.json, report.to_json()), (&args.svg, roofline(&report))] {
            if let Some(path) = path {
                write_atomic(path, text.as_bytes())?;
                note(format_args!("wrote {}", path.display()));
            }
        }
        Ok(())
    })
}

fn read_report(path: &Path) -> Result<Report> {
    Report::parse(&file::read(path)?).map_err(|e| e.at(path.display()))
}

/// Everything that was measured.
fn table(rows: &[Row]) -> String {
    let rows: Vec<(&Task, Numbers)> = rows.iter().map(|row| (&row.task, row.numbers())).collect();
    let percent = |x: f64| format!("{:.0} %", 100.0 * x);
    let pass =
        |task: &Task, n: &Numbers| n.tokens_per_second.map_or(task.pass.clone(), |rate| format!("{rate:.1} tokens/s"));
    Table::of(&rows)
        .left("case", |(task, _)| &task.case)
        .left("pass", |(task, n)| pass(task, n))
        .right("cache", |(task, _)| format!("{:?}", task.cache).to_lowercase())
        .right("median", |(_, n)| seconds(n.seconds))
        .right("20 %", |(_, n)| seconds(n.seconds_q20))
        .right("80 %", |(_, n)| seconds(n.seconds_q80))
        .right("GFLOP/s", |(_, n)| digits(n.flops_per_second / 1e9, 1))
        .right("GB/s", |(_, n)| digits(n.bytes_per_second / 1e9, 2))
        .right("FLOP/B", |(_, n)| digits(n.intensity, 1))
        .right("of peak", |(_, n)| percent(n.of_peak))
        .right("of bandw.", |(_, n)| percent(n.of_bandwidth))
        .right("floor", |(_, n)| format!("{} {}", n.floor, seconds(n.floor_seconds)))
        .right("reached", |(_, n)| percent(n.reached))
        .to_string()
}

/// The ceilings with their spread.
fn rates(report: &Report) -> String {
    let text = |r: &Rate| format!("{} {:.1} ({:.1} to {:.1})", r.name, r.median / 1e9, r.q20 / 1e9, r.q80 / 1e9);
    let rates: Vec<String> = report.ceilings.iter().map(text).collect();
    let f32_peak = report.f32_peak.as_ref().map_or(String::new(), |peak| format!("; in f32: {} GFLOP/s", text(peak)));
    format!("peak, {}: {} GFLOP/s{f32_peak}; bandwidth: {} GB/s", report.machine.dtype, rates[0], rates[1..].join(", "))
}

/// Every row that the earlier run also has, and the conditions that differ between the runs.
fn compare(earlier: &Report, path: &Path, report: &Report) -> Result<()> {
    print(format_args!("\ncompared with {}", path.display()))?;
    let differences = report.differences(earlier);
    if !differences.is_empty() {
        print(format_args!("warning: the conditions differ as well as the program: {}", differences.join("; ")))?;
    }
    let rows = report.compare(earlier);
    if rows.is_empty() {
        return Err(Error::new(format!("{} has none of these rows, so nothing was compared", path.display())));
    }
    let table = Table::of(&rows)
        .left("case", |c| &c.row.task.case)
        .left("pass", |c| &c.row.task.pass)
        .right("cache", |c| format!("{:?}", c.row.task.cache).to_lowercase())
        .right("time now", |c| format!("{:.3} ×", c.ratio))
        .right("", |c| match c.verdict {
            Ordering::Less => "FASTER",
            Ordering::Equal => "unchanged",
            Ordering::Greater => "SLOWER",
        });
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    print(format_args!(
        "{table}\n\n{} of {} rows compared: {} faster, {} slower, {} unchanged; the machine itself changed by {:.1} %",
        rows.len(),
        report.rows.len(),
        count(Ordering::Less),
        count(Ordering::Greater),
        count(Ordering::Equal),
        100.0 * (report.drift(earlier) - 1.0)
    ))
}

/// Seconds with a suitable unit.
fn seconds(x: f64) -> String {
    format!("{:.2?}", Duration::from_secs_f64(x))
}
