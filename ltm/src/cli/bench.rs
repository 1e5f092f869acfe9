//! `ltm bench`.

use super::device::{self, Choice};
use super::output::print;
use super::settings::Single;
use super::threads;
use engine::{DType, Device, Error, Result, probe, simd};
use ltm::bench::{Ceiling, Ceilings, Row, Setup, Work, measure_ops, measure_steps};
use ltm::config::{Config, Precision};

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
        for (key, value) in self.single.pairs()? {
            config.set(key, value).map_err(|e| e.at("--set"))?;
        }
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

pub fn run(args: &Args, threads: Option<usize>, choice: Choice) -> Result<()> {
    let config = args.configuration()?;
    let count = threads.unwrap_or(config.train.threads);
    threads::inside(count, || {
        let device = device::open(choice)?;
        let setup = Setup { only: args.op.clone(), ..Setup::new(args.stored(config, &device)?, device)? };
        let works = setup.works()?;
        let mut ceilings = Ceilings::new(&setup.device, setup.dtype, &setup.effort)?;
        header(args, &setup, &ceilings)?;
        let table = Table::new(&works);
        table.heading()?;
        measure_ops(&setup, &works, &mut ceilings, &mut |row| table.show(row))?;
        if setup.has_steps() {
            measure_steps(&setup, &mut ceilings, &mut |row| table.show(row))?;
        }
        ceilings.measure();
        print(format_args!("\n{}", ceilings_line(&ceilings, setup.dtype)))
    })
}

fn header(args: &Args, setup: &Setup, ceilings: &Ceilings) -> Result<()> {
    match &setup.device {
        Device::Cpu => {
            let levels = simd::supported().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let (name, level) = (probe::processor_name(), simd::level());
            print(format_args!("{name}: {levels}, of these {level}; {} threads", rayon::current_num_threads()))?;
        }
        Device::Cuda(gpu) => print(gpu.name())?,
    }
    let m = &setup.config.model;
    print(format_args!(
        "preset {}: batch {}, {} tokens, {} layers, width {}, {} heads, window {}, {} latents a layer, feed-forward {}, vocabulary {}, {}",
        args.preset,
        setup.config.train.batch,
        m.seq,
        m.layers,
        m.dim,
        m.heads,
        m.window,
        m.latents,
        m.ffn_hidden(),
        m.vocab,
        setup.dtype
    ))?;
    print(format_args!("{}\n", ceilings_line(ceilings, setup.dtype)))
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
        self.line("", "", line.map(String::from))
    }

    fn show(&self, row: &Row) -> Result<()> {
        let [low, high] = row.samples.spread();
        let (floor, limit) = row.floor();
        let percent = |x: f64| format!("{:.0} %", 100.0 * x);
        let cells = [
            row.cache.name().to_string(),
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
        let pass = row.token_rate().map_or(row.pass.clone(), |rate| format!("{rate:.1} tokens/s"));
        self.line(&row.case, &pass, cells)
    }

    fn line(&self, case: &str, pass: &str, cells: [String; 11]) -> Result<()> {
        const WIDTHS: [usize; 11] = [5, 8, 8, 8, 8, 7, 7, 7, 9, 15, 7];
        let cells = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("  {cell:>width$}")).collect::<String>();
        print(format_args!("{case:<a$}  {pass:<b$}{cells}", a = self.case, b = self.pass))
    }
}

/// Three digits and a unit.
fn seconds(x: f64) -> String {
    let (scale, unit) = match x {
        1.0.. => (1.0, "s"),
        1e-3.. => (1e3, "ms"),
        1e-6.. => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    let x = x * scale;
    let digits = if x < 9.995 { 2 } else { usize::from(x < 99.95) };
    format!("{x:.digits$} {unit}")
}
