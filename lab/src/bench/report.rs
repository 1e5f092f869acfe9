//! What a measurement leaves behind: a report with everything derived, and a baseline to compare later ones with.

use super::{Ceiling, Ceilings, Roof, Row, Samples, Setup, Verdict, compare};
use engine::{Device, Error, Result, probe, simd};
use ltm::config::Config;
use ltm::json::{self, Value};
use std::collections::HashMap;

/// What a time depends on beside the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor.
    pub processor: String,
    /// Instruction set in use.
    pub features: String,
    /// Threads in use.
    pub threads: usize,
    /// `cpu`, or the GPU's name.
    pub device: String,
    /// Element type of tensors.
    pub dtype: String,
}

impl Setup {
    /// The sizes that times depend on.
    pub fn sizes(&self) -> String {
        let (m, batch) = (&self.config.model, self.config.train.batch);
        let latents = match m.kind.has_latents() {
            true => format!("{} latents a layer, {} fast steps", m.latents, self.config.fast.steps),
            false => "no latents".into(),
        };
        let [dim, heads, window, ffn] = [m.dim, m.heads, m.window, m.ffn_hidden()];
        format!(
            "batch {batch}, {} tokens, {} layers, width {dim}, {heads} heads, window {window}, {latents}, feed-forward {ffn}, vocabulary {}",
            m.seq, m.layers, m.vocab
        )
    }

    /// The settings of both kinds of learning, on which times depend too.
    pub fn settings(&self) -> Vec<(String, String)> {
        let learning =
            Config::keys().iter().filter(|key| key.name.starts_with("fast.") || key.name.starts_with("slow."));
        let plain = |value: Value| value.as_str().map_or_else(|_| value.to_string(), str::to_string);
        let value = |name| self.config.get(name).map_or_else(|_| "–".into(), plain);
        learning.map(|key| (key.name.to_string(), value(key.name))).collect()
    }
}

impl Machine {
    /// This machine, as the setup uses it.
    pub fn of(setup: &Setup) -> Self {
        Self {
            processor: probe::processor_name(),
            features: simd::level().to_string(),
            threads: rayon::current_num_threads(),
            device: match &setup.device {
                Device::Cpu => "cpu".into(),
                Device::Cuda(gpu) => gpu.name().into(),
            },
            dtype: setup.dtype.to_string(),
        }
    }

    /// Names and values, for files and comparisons.
    fn entries(&self) -> [(&'static str, String); 5] {
        [
            ("processor", self.processor.clone()),
            ("features", self.features.clone()),
            ("threads", self.threads.to_string()),
            ("device", self.device.clone()),
            ("dtype", self.dtype.clone()),
        ]
    }
}

/// A finished measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Where it was made.
    pub machine: Machine,
    /// The preset's name.
    pub preset: String,
    /// [`Setup::sizes`].
    pub sizes: String,
    /// [`Setup::settings`].
    pub settings: Vec<(String, String)>,
    /// The ceilings, the peak rate first, then ways to move memory.
    pub ceilings: Vec<Ceiling>,
    /// The roof of the whole run.
    pub roof: Roof,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl Report {
    /// Of rows measured under `ceilings`.
    pub fn new(setup: &Setup, preset: &str, ceilings: &Ceilings, rows: Vec<Row>) -> Self {
        let all = std::iter::once(&ceilings.flops).chain(&ceilings.memory).cloned().collect();
        let (machine, preset, sizes) = (Machine::of(setup), preset.to_string(), setup.sizes());
        Self { machine, preset, sizes, settings: setup.settings(), ceilings: all, roof: ceilings.roof(), rows }
    }

    /// The report with all derived numbers.
    pub fn to_json(&self) -> Value {
        let mut entries = self.head("ltm bench report");
        entries.push(("rows".into(), Value::Array(self.rows.iter().map(full_row).collect())));
        Value::Object(entries)
    }

    /// What a later run needs to compare itself with this one: the times of every row, and the ceilings around them.
    pub fn baseline(&self) -> Value {
        let row = |row: &Row| {
            Value::object([
                ("row", row.key().into()),
                ("peak_flops", row.roof.peak.into()),
                ("bandwidth", row.roof.bandwidth.into()),
                ("seconds", Value::Array(row.samples.passes().iter().map(|pass| pass.clone().into()).collect())),
            ])
        };
        let mut entries = self.head(BASELINE);
        entries.push(("rows".into(), Value::Array(self.rows.iter().map(row).collect())));
        Value::Object(entries)
    }

    fn head(&self, format: &str) -> Vec<(String, Value)> {
        let ceiling = |c: &Ceiling| {
            let [median, low, high] = c.rate();
            let entries = [("median", median), ("q20", low), ("q80", high)].map(|(k, x)| (k, x.into()));
            Value::object([("name", c.name.into())].into_iter().chain(entries))
        };
        let machine = self.machine.entries().map(|(key, value)| (key, value.into()));
        vec![
            ("format".into(), format.into()),
            ("version".into(), VERSION.into()),
            ("preset".into(), self.preset.clone().into()),
            ("sizes".into(), self.sizes.clone().into()),
            (
                "settings".into(),
                Value::Object(self.settings.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect()),
            ),
            ("machine".into(), Value::object(machine)),
            ("ceilings".into(), Value::Array(self.ceilings.iter().map(ceiling).collect())),
            ("peak_flops".into(), self.roof.peak.into()),
            ("bandwidth".into(), self.roof.bandwidth.into()),
        ]
    }
}

const BASELINE: &str = "ltm bench baseline";
const VERSION: u64 = 4;

fn full_row(row: &Row) -> Value {
    let ([low, high], (floor, limit)) = (row.samples.spread(), row.floor());
    let mut entries: Vec<(&str, Value)> = vec![
        ("group", row.task.group.clone().into()),
        ("case", row.task.case.clone().into()),
        ("pass", row.task.pass.clone().into()),
        ("cache", row.task.cache.name().into()),
        ("flops", row.task.cost.flops.into()),
        ("bytes", row.task.cost.bytes.into()),
        ("intensity", row.intensity().into()),
        ("seconds", row.samples.median().into()),
        ("seconds_q20", low.into()),
        ("seconds_q80", high.into()),
        ("samples", row.samples.seconds().len().into()),
        ("passes", row.samples.passes().len().into()),
        ("flops_per_second", row.flop_rate().into()),
        ("bytes_per_second", row.byte_rate().into()),
        ("peak_flops", row.roof.peak.into()),
        ("bandwidth", row.roof.bandwidth.into()),
        ("of_peak", row.of_peak().into()),
        ("of_bandwidth", row.of_bandwidth().into()),
        ("floor", limit.name().into()),
        ("floor_seconds", floor.into()),
        ("reached", row.reached().into()),
    ];
    if let Some(rate) = row.token_rate() {
        entries.push(("tokens_per_second", rate.into()));
    }
    Value::object(entries)
}

/// An earlier measurement, read from a file.
#[derive(Clone, Debug)]
pub struct Baseline {
    machine: Vec<(String, String)>,
    preset: String,
    sizes: String,
    settings: Vec<(String, String)>,
    roof: Roof,
    rows: HashMap<String, (Samples, Roof)>,
}

/// How one row compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The row.
    pub row: Row,
    /// Median time now over median time then.
    pub ratio: f64,
    /// What may be said.
    pub verdict: Verdict,
}

impl Baseline {
    /// Reads what [`Report::baseline`] wrote.
    ///
    /// # Errors
    /// If the text is not that.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let file = json::parse(text)?;
        let format = file.get("format").and_then(|f| f.as_str().ok());
        if format != Some(BASELINE) {
            return Err(Error::new("this is no baseline: `ltm bench --save FILE` writes one"));
        }
        let version = file.read("version", Value::as_u64)?;
        if version != VERSION {
            return Err(Error::new(format!("a baseline of version {version}, this program reads version {VERSION}")));
        }
        let text = |v: &Value| v.as_str().map(String::from);
        let rate = |at: &Value, key| match at.read(key, Value::as_f64)? {
            rate if rate > 0.0 => Ok(rate),
            rate => Err(Error::new(format!("{key} is {rate}, must be above 0"))),
        };
        let roof = |at: &Value| -> Result<Roof> {
            Ok(Roof { peak: rate(at, "peak_flops")?, bandwidth: rate(at, "bandwidth")? })
        };
        let pairs = |key| -> Result<Vec<(String, String)>> {
            file.read(key, Value::as_object)?.iter().map(|(k, v)| Ok((k.clone(), text(v)?))).collect()
        };
        let rows = file.read("rows", Value::as_array)?.iter().enumerate().map(|(i, row)| {
            let pass = |pass: &Value| -> Result<Vec<f64>> { pass.as_array()?.iter().map(Value::as_f64).collect() };
            let passes = |row: &Value| row.read("seconds", Value::as_array)?.iter().map(pass).collect::<Result<_>>();
            let read = || Ok((row.read("row", text)?, (Samples::of_passes(passes(row)?)?, roof(row)?)));
            read().map_err(|e: Error| e.at(format_args!("row {i}")))
        });
        Ok(Self {
            machine: pairs("machine")?,
            preset: file.read("preset", text)?,
            sizes: file.read("sizes", text)?,
            settings: pairs("settings")?,
            roof: roof(&file)?,
            rows: rows.collect::<Result<_>>()?,
        })
    }

    /// In what the two runs differ so that a difference in time need not be the program's.
    pub fn differences(&self, report: &Report) -> Vec<String> {
        let now = report.machine.entries();
        let now = now.into_iter().chain([("preset", report.preset.clone()), ("sizes", report.sizes.clone())]);
        let now = now.chain(report.settings.iter().map(|(key, value)| (key.as_str(), value.clone())));
        let then = |key: &str| match key {
            "preset" => Some(&self.preset),
            "sizes" => Some(&self.sizes),
            _ => self.machine.iter().chain(&self.settings).find(|(k, _)| k == key).map(|(_, value)| value),
        };
        let differing = now.filter(|(key, value)| then(key) != Some(value));
        differing
            .map(|(key, value)| format!("{key} was {}, is {value}", then(key).map_or("unknown", String::as_str)))
            .collect()
    }

    /// By what factor, at least 1, the machine's own speed changed between the two runs.
    pub fn drift(&self, report: &Report) -> f64 {
        change(self.roof, report.roof)
    }

    /// Every row that both runs have. The machine's own change is that between the runs or between the ceilings measured
    /// around this row, whichever is larger: a machine may be slow for a while within a run.
    pub fn compare(&self, report: &Report) -> Vec<Comparison> {
        let drift = self.drift(report);
        let both = report.rows.iter().filter_map(|row| Some((row, self.rows.get(&row.key())?)));
        both.map(|(row, (then, roof))| Comparison {
            row: row.clone(),
            ratio: row.samples.median() / then.median(),
            verdict: compare(then, &row.samples, drift.max(change(*roof, row.roof))),
        })
        .collect()
    }
}

/// The larger change of the two ceilings, as a factor of at least 1.
fn change(then: Roof, now: Roof) -> f64 {
    let factor = |then: f64, now: f64| (now / then).max(then / now);
    factor(then.peak, now.peak).max(factor(then.bandwidth, now.bandwidth))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Cache, Limit, Task};
    use super::*;
    use engine::Cost;

    /// A report of three rows whose times are `factor` as long as they might be.
    pub fn report(factor: f64) -> Report {
        let pass = |x: f64| (0..20).map(|i| x * (1.0 + 1e-3 * f64::from(i))).collect();
        let samples = |x: f64| Samples::of_passes((0..6).map(|_| pass(x)).collect()).unwrap();
        let roof = Roof { peak: 1e11, bandwidth: 1e10 };
        let row = |case: &str, cache, flops, bytes, seconds| Row {
            task: Task {
                group: "matmul".into(),
                case: case.into(),
                pass: "forward".into(),
                cache,
                cost: Cost { flops, bytes },
                tokens: None,
            },
            samples: samples(seconds),
            roof,
        };
        let ceiling = |name, amount| Ceiling::given(name, amount, vec![1.0, 1.0]);
        Report {
            machine: Machine {
                processor: "Abacus <9> & Sons".into(),
                features: "scalar".into(),
                threads: 2,
                device: "cpu".into(),
                dtype: "f32".into(),
            },
            preset: "small".into(),
            sizes: "batch 1".into(),
            settings: vec![("fast.head_filter".into(), "0".into())],
            ceilings: vec![ceiling("fused multiply-adds", 1e11), ceiling("read", 1e10)],
            roof,
            rows: vec![
                row("linear: queries", Cache::Hot, 1_000_000_000, 1_000_000, 0.0125 * factor),
                row("linear: queries", Cache::Cold, 1_000_000_000, 1_000_000, 0.0125),
                row("add: residual", Cache::Hot, 1_000_000, 12_000_000, 0.002),
            ],
        }
    }

    #[test]
    fn a_baseline_is_read_back_and_compared() {
        let read = |report: &Report| Baseline::parse(report.baseline().pretty().as_bytes()).unwrap();
        let (then, now) = (report(1.0), report(1.2));
        let verdicts: Vec<Verdict> = read(&then).compare(&now).iter().map(|c| c.verdict).collect();
        assert_eq!(verdicts, [Verdict::Slower, Verdict::Unchanged, Verdict::Unchanged]);
        assert!(read(&then).compare(&then).iter().all(|c| c.verdict == Verdict::Unchanged && c.ratio == 1.0));
        assert!(read(&then).differences(&now).is_empty() && read(&then).drift(&now) == 1.0);

        let machine = Machine { threads: 4, processor: "Other".into(), ..now.machine.clone() };
        let slow = Roof { peak: 5e10, bandwidth: 1e10 };
        let mut while_slow = now.clone();
        while_slow.rows[0].roof = slow;
        assert_eq!(read(&then).compare(&while_slow)[0].verdict, Verdict::Unchanged, "the machine was slow for a while");
        let settings = vec![("fast.head_filter".into(), "1e-4".into())];
        let sizes = "batch 2".into();
        let other = Report { machine, preset: "large".into(), sizes, settings, roof: slow, ..now };
        assert_eq!(
            read(&then).differences(&other),
            [
                "processor was Abacus <9> & Sons, is Other",
                "threads was 2, is 4",
                "preset was small, is large",
                "sizes was batch 1, is batch 2",
                "fast.head_filter was 0, is 1e-4"
            ]
        );
        assert_eq!(read(&then).drift(&other), 2.0);
        assert!(
            read(&then).compare(&other).iter().all(|c| c.verdict == Verdict::Unchanged),
            "the machine changed more"
        );
    }

    #[test]
    fn what_is_no_baseline_is_refused() {
        let message = |text: &str| Baseline::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(message("{}").contains("ltm bench --save"));
        assert!(message(&report(1.0).to_json().to_string()).contains("ltm bench --save"), "a report is none");
        let good = report(1.0).baseline().to_string();
        assert!(message(&good.replace(&format!("\"version\":{VERSION}"), "\"version\":77")).contains("version 77"));
        assert!(message(&good.replace("\"seconds\":[[", "\"seconds\":[[-1,")).contains("row 0"));
        assert!(message(&good.replace("\"bandwidth\":10000000000", "\"bandwidth\":0")).contains("bandwidth is 0"));
        assert!(message("nonsense").len() < 200);
    }

    #[test]
    fn derived_numbers() {
        let report = report(1.0);
        let [hot, _, add] = &report.rows[..] else { unreachable!() };
        assert_eq!((hot.floor(), add.floor()), ((0.01, Limit::Flops), (0.0012, Limit::Bytes)));
        assert!((hot.reached() - 0.79).abs() < 0.01 && (add.reached() - 0.594).abs() < 0.01);
        assert_eq!(hot.intensity(), 1000.0);
        assert!((hot.of_peak() - hot.reached()).abs() < 1e-12);
        let json = report.to_json();
        let rows = json.read("rows", Value::as_array).unwrap();
        assert_eq!(rows[2].read("floor", Value::as_str), Ok("bytes"));
        assert_eq!(rows[0].read("samples", Value::as_u64), Ok(120));
    }
}
