//! `ltm bench`.

use super::output::{note, print};
use super::place::Place;
use super::progress::bar;
use super::settings::Single;
use engine::{DType, Device, Error, Result, probe, simd};
use lab::bench::{
    Ceiling, Ceilings, Growth, Report, Row, Seen, Setup, Verdict, Work, line as line_through, measure_all,
    measure_growth, roofline,
};
use ltm::checkpoint::write_atomic;
use ltm::config::{Config, Precision};
use std::fs;
use std::path::{Path, PathBuf};

/// Measure how fast every op and whole learning steps are on this machine, and how near that is to what it can do
///
/// Every op runs at the preset's sizes: forward, backward as training asks for it, and both in one where that exists. Then
/// whole fast, slow and training steps. The peak rate and the bandwidth are measured in between, all the time. Each row has
/// its floor, the larger of FLOPs over the peak and bytes over the bandwidth, and the part of it that is reached.
#[derive(clap::Args)]
pub struct Args {
    /// Measure these only: names of ops, or `steps` for whole steps [default: everything]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    op: Vec<String>,
    /// Sizes: a preset, with one sample a batch
    #[arg(long, value_name = "NAME", default_value = "small")]
    preset: String,
    #[command(flatten)]
    single: Single,
    /// How tensors are stored [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, value_enum)]
    dtype: Option<Storage>,
    /// Show instead how the time of a training step grows with the fast steps T and with the tokens N
    #[arg(long, conflicts_with_all = ["op", "json", "svg", "compare"])]
    growth: bool,
    /// Write everything that was measured as JSON; a later run can be compared with it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the roofline, with a point per op and pass
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compare with a file of --json: a change is called only beyond the noise of both runs
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Storage {
    F32,
    Bf16,
}

impl Args {
    /// The preset with one sample a batch and the single settings.
    fn configuration(&self) -> Result<Config> {
        let mut config = Config::preset(&self.preset)?;
        config.train.batch = 1;
        self.single.apply(&mut config)?;
        config.resolved()
    }

    /// The configuration with the storage that was asked for, or that the device is best at.
    fn stored(&self, mut config: Config, device: &Device) -> Result<Config> {
        config.train.precision = match (self.dtype, device) {
            (Some(Storage::Bf16), Device::Cpu) => {
                return Err(Error::usage("--dtype bf16 needs a GPU (--device cuda): the CPU computes in f32"));
            }
            (Some(Storage::Bf16), _) | (None, Device::Cuda(_)) => Precision::Bf16,
            (Some(Storage::F32), _) | (None, Device::Cpu) => Precision::F32,
        };
        Ok(config)
    }
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let config = args.configuration()?;
    // What cannot be read or written is said before minutes of measuring.
    let earlier = args.compare.as_deref().map(read_report).transpose()?;
    for path in [&args.json, &args.svg].into_iter().flatten().filter(|path| !path.exists()) {
        write_atomic(path, b"").and_then(|()| fs::remove_file(path).map_err(|e| Error::io("write", path, &e)))?;
    }
    place.inside(config.train.threads, || {
        let (setup, works) = place.within(|device| {
            let config = args.stored(config.clone(), device)?;
            let mut setup = Setup { only: args.op.clone(), ..Setup::new(config, device.clone())? };
            if args.json.is_some() || args.compare.is_some() {
                setup.effort = setup.effort.in_passes();
            }
            let works = setup.works()?;
            Ok((setup, works))
        })?;
        if args.growth {
            return growth(args, &setup);
        }
        let mut ceilings = Ceilings::new(&setup.device, setup.dtype, &setup.effort)?;
        conditions(args, &setup)?;
        print(format_args!("{}\n", ceilings_line(&ceilings, setup.dtype)))?;
        let table = Table::new(&works);
        table.heading()?;
        let bar = bar(0, "pass {msg}");
        let rows = measure_all(&setup, &works, &mut ceilings, &mut |seen| match seen {
            Seen::Next { pass, passes, case } => {
                bar.set_message(format!("{pass} of {passes}: {case}"));
                bar.tick();
                Ok(())
            }
            Seen::Row(row) => bar.suspend(|| table.show(row)),
        })?;
        bar.finish_and_clear();
        ceilings.measure();
        print(format_args!("\n{}", ceilings_line(&ceilings, setup.dtype)))?;
        let report = Report::new(&setup, &args.preset, &ceilings, rows);
        if let Some((earlier, path)) = earlier.as_ref().zip(args.compare.as_ref()) {
            compare(earlier, path, &report, &table)?;
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
    let text = fs::read(path).map_err(|e| Error::io("read", path, &e))?;
    Report::parse(&text).map_err(|e| e.at(path.display()))
}

/// Every row that the earlier run has too, and in what the runs differ beside the program.
fn compare(earlier: &Report, path: &Path, report: &Report, table: &Table) -> Result<()> {
    print(format_args!("\ncompared with {}", path.display()))?;
    let differences = report.differences(earlier);
    if !differences.is_empty() {
        print(format_args!("warning: the conditions differ, not only the program: {}", differences.join("; ")))?;
    }
    let rows = report.compare(earlier);
    if rows.is_empty() {
        return Err(Error::new(format!("{} has none of these rows: nothing was compared", path.display())));
    }
    for row in &rows {
        let cells = [row.row.task.cache.name().into(), format!("{:.3} ×", row.ratio), row.verdict.name().into()];
        table.line(&row.row.task.case, &row.row.task.pass, &cells, &[5, 9, 15])?;
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    print(format_args!(
        "\n{} of {} rows compared: {} faster, {} slower, {} unchanged, {} with too few passes; the machine itself changed by {:.1} %",
        rows.len(),
        report.rows.len(),
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::Unchanged),
        count(Verdict::TooFew),
        100.0 * (report.drift(earlier) - 1.0)
    ))
}

/// Training steps at several T and N, and how far from straight lines their times are.
fn growth(args: &Args, setup: &Setup) -> Result<()> {
    conditions(args, setup)?;
    let heading = ["T", "N", "median", "20 %", "80 %", "GFLOP", "GFLOP/s", "tokens/s"];
    let line = |cells: [String; 8]| {
        let cells = cells.iter().zip([5, 7, 9, 9, 9, 9, 9, 9]).map(|(cell, width)| format!("{cell:>width$}"));
        print(cells.collect::<Vec<_>>().join("  "))
    };
    print("")?;
    line(heading.map(String::from))?;
    let batch = setup.config.train.batch;
    let [by_steps, by_tokens] = measure_growth(setup, &mut |g| {
        let (median, [low, high]) = (g.samples.median(), g.samples.spread());
        line([
            g.steps.to_string(),
            g.tokens.to_string(),
            seconds(median),
            seconds(low),
            seconds(high),
            format!("{:.1}", g.flops as f64 / 1e9),
            format!("{:.1}", g.flops as f64 / median / 1e9),
            format!("{:.1}", (batch * g.tokens) as f64 / median),
        ])
    })?;
    print("")?;
    for (name, points, at) in [("T", by_steps, (|g| g.steps) as fn(&Growth) -> usize), ("N", by_tokens, |g| g.tokens)] {
        let points: Vec<(f64, f64)> = points.iter().map(|g| (at(g) as f64, g.samples.median())).collect();
        let Some([start, slope, far]) = line_through(&points) else {
            print(format_args!("{name}: a line takes three sizes or more, here are {}", points.len()))?;
            continue;
        };
        print(format_args!(
            "time = {} + {} · {name}, every median within {:.1} % of it",
            seconds(start),
            seconds(slope),
            100.0 * far
        ))?;
    }
    Ok(())
}

/// The machine and the sizes.
fn conditions(args: &Args, setup: &Setup) -> Result<()> {
    match &setup.device {
        Device::Cpu => {
            let levels = simd::supported().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let (name, level) = (probe::processor_name(), simd::level());
            print(format_args!("{name}: {levels}, of these {level}; {} threads", rayon::current_num_threads()))?;
        }
        Device::Cuda(gpu) => print(gpu.name())?,
    }
    print(format_args!("preset {}: {}, {}", args.preset, setup.sizes(), setup.dtype))
}

/// The ceilings with their spread.
fn ceilings_line(ceilings: &Ceilings, dtype: DType) -> String {
    let text = |c: &Ceiling| {
        let [median, low, high] = c.rate().map(|x| x / 1e9);
        format!("{} {median:.1} ({low:.1} to {high:.1})", c.name)
    };
    let memory = ceilings.memory.iter().map(text).collect::<Vec<_>>().join(", ");
    format!("peak, {dtype}: {} GFLOP/s; bandwidth: {memory} GB/s", text(&ceilings.flops))
}

/// Of the numbers' columns.
const WIDTHS: [usize; 11] = [5, 8, 8, 8, 8, 7, 7, 7, 9, 15, 7];

/// The rows as they come, in columns of a width that is known beforehand.
struct Table {
    case: usize,
    pass: usize,
}

impl Table {
    fn new(works: &[Work]) -> Self {
        let longest = |text: fn(&Work) -> &str| works.iter().map(|w| text(w).chars().count()).max().unwrap_or(0);
        Self { case: longest(|w| &w.case).max(26), pass: longest(|w| &w.name).max(16) }
    }

    fn heading(&self) -> Result<()> {
        let line = [
            "cache",
            "median",
            "20 %",
            "80 %",
            "GFLOP/s",
            "GB/s",
            "FLOP/B",
            "of peak",
            "of bandw.",
            "floor",
            "reached",
        ];
        self.line("", "", &line.map(String::from), &WIDTHS)
    }

    fn show(&self, row: &Row) -> Result<()> {
        let [low, high] = row.samples.spread();
        let (floor, limit) = row.floor();
        let percent = |x: f64| format!("{:.0} %", 100.0 * x);
        let cells = [
            row.task.cache.name().to_string(),
            seconds(row.samples.median()),
            seconds(low),
            seconds(high),
            format!("{:.1}", row.flop_rate() / 1e9),
            format!("{:.2}", row.byte_rate() / 1e9),
            format!("{:.1}", row.intensity()),
            percent(row.of_peak()),
            percent(row.of_bandwidth()),
            format!("{} {}", limit.name(), seconds(floor)),
            percent(row.reached()),
        ];
        let pass = row.token_rate().map_or(row.task.pass.clone(), |rate| format!("{rate:.1} tokens/s"));
        self.line(&row.task.case, &pass, &cells, &WIDTHS)
    }

    fn line(&self, case: &str, pass: &str, cells: &[String], widths: &[usize]) -> Result<()> {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("  {cell:>width$}")).collect::<String>();
        print(format_args!("{case:<a$}  {pass:<b$}{cells}", a = self.case, b = self.pass))
    }
}

/// Three digits and a unit.
fn seconds(x: f64) -> String {
    let (scale, unit) = match x.abs() {
        1.0.. => (1.0, "s"),
        1e-3.. => (1e3, "ms"),
        1e-6.. => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    let x = x * scale;
    let digits = if x.abs() < 9.995 { 2 } else { usize::from(x.abs() < 99.95) };
    format!("{x:.digits$} {unit}")
}
