//! A finished measurement: what `--json` writes and `--compare` reads.

use super::{Ceiling, Ceilings, Roof, Row, Setup, Verdict, compare};
use engine::{Device, Error, Result, probe, simd};
use ltm::config::{Config, Setting};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FORMAT: &str = "ltm bench report";
/// Version 4 and earlier kept a report and a baseline in two kinds of files.
const VERSION: u64 = 5;

/// What a time depends on beside the work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Setup {
    /// The sizes that times depend on.
    pub fn sizes(&self) -> String {
        let (m, batch) = (&self.config.model, self.config.train.batch);
        let latents = if m.kind.has_latents() {
            format!("{} latents a layer, {} fast steps", m.latents, self.config.fast.steps)
        } else {
            "no latents".into()
        };
        let [dim, heads, window, ffn] = [m.dim, m.heads, m.window, m.ffn_hidden()];
        format!(
            "batch {batch}, {} tokens, {} layers, width {dim}, {heads} heads, window {window}, {latents}, feed-forward {ffn}, vocabulary {}",
            m.seq, m.layers, m.vocab
        )
    }

    /// The settings of both kinds of learning, on which times depend too.
    fn settings(&self) -> BTreeMap<String, String> {
        let is_learning = |key: &&Setting| key.name.starts_with("fast.") || key.name.starts_with("slow.");
        let learning = Config::settings().iter().filter(is_learning);
        let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        learning.map(|key| (key.name.to_string(), text(key.value(&self.config)))).collect()
    }
}

/// How fast a ceiling was: median and quantiles of its passes, in FLOP/s or bytes/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// What was done.
    pub name: String,
    /// The median rate.
    pub median: f64,
    /// What 20 % of the passes did not exceed.
    pub q20: f64,
    /// What 80 % of the passes did not exceed.
    pub q80: f64,
}

impl Rate {
    fn of(ceiling: &Ceiling) -> Self {
        let [median, q20, q80] = ceiling.rate();
        Self { name: ceiling.name.into(), median, q20, q80 }
    }

    /// The median, and the rates that 20 % and 80 % of the passes did not exceed.
    pub fn rate(&self) -> [f64; 3] {
        [self.median, self.q20, self.q80]
    }
}

/// A finished measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What kind of file this is.
    pub format: String,
    /// Version of the file's layout.
    pub version: u64,
    /// The preset's name.
    pub preset: String,
    /// [`Setup::sizes`].
    pub sizes: String,
    /// The settings of both kinds of learning.
    pub settings: BTreeMap<String, String>,
    /// Where it was made.
    pub machine: Machine,
    /// The ceilings: the peak rate first, then ways to move memory.
    pub ceilings: Vec<Rate>,
    /// The roof of the whole run.
    #[serde(flatten)]
    pub roof: Roof,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// A row as the file has it: with everything that follows from its times.
#[derive(Serialize)]
struct FullRow<'a> {
    #[serde(flatten)]
    row: &'a Row,
    seconds: f64,
    seconds_q20: f64,
    seconds_q80: f64,
    samples: usize,
    intensity: f64,
    flops_per_second: f64,
    bytes_per_second: f64,
    of_peak: f64,
    of_bandwidth: f64,
    floor: &'static str,
    floor_seconds: f64,
    reached: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_second: Option<f64>,
}

impl<'a> FullRow<'a> {
    fn of(row: &'a Row) -> Self {
        let [seconds_q20, seconds_q80] = row.samples.spread();
        let (floor_seconds, limit) = row.floor();
        Self {
            row,
            seconds: row.samples.median(),
            seconds_q20,
            seconds_q80,
            samples: row.samples.seconds().len(),
            intensity: row.intensity(),
            flops_per_second: row.flop_rate(),
            bytes_per_second: row.byte_rate(),
            of_peak: row.of_peak(),
            of_bandwidth: row.of_bandwidth(),
            floor: limit.name(),
            floor_seconds,
            reached: row.reached(),
            tokens_per_second: row.token_rate(),
        }
    }
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

impl Report {
    /// Of rows measured under `ceilings`.
    pub fn new(setup: &Setup, preset: &str, ceilings: &Ceilings, rows: Vec<Row>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            preset: preset.into(),
            sizes: setup.sizes(),
            settings: setup.settings(),
            machine: Machine::of(setup),
            ceilings: std::iter::once(&ceilings.flops).chain(&ceilings.memory).map(Rate::of).collect(),
            roof: ceilings.roof(),
            rows,
        }
    }

    /// The file's text: the report with everything that follows from the times.
    pub fn to_json(&self) -> String {
        let mut file = serde_json::to_value(self).expect("a report has string keys");
        file["rows"] = serde_json::to_value(self.rows.iter().map(FullRow::of).collect::<Vec<_>>()).expect("as above");
        format!("{file:#}\n")
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// If the text is not that, or of another version.
    pub fn parse(text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u64,
        }
        let head: Head = serde_json::from_slice(text).map_err(|_| Error::new("this is no report of `ltm bench`"))?;
        if !head.format.starts_with("ltm bench") {
            return Err(Error::new("this is no report of `ltm bench`"));
        }
        if head.version != VERSION {
            return Err(Error::new(format!(
                "a report of version {}; this program reads version {VERSION}",
                head.version
            )));
        }
        let report: Self = serde_json::from_slice(text).map_err(|e| Error::new(e.to_string()))?;
        let roofs = report.rows.iter().map(|row| row.roof).chain([report.roof]);
        let good = |roof: Roof| roof.peak > 0.0 && roof.bandwidth > 0.0;
        if roofs.into_iter().all(good) {
            Ok(report)
        } else {
            Err(Error::new("a peak rate or bandwidth is not above 0"))
        }
    }

    /// In what the earlier run `then` differs from this one, so that a difference in time need not be the program's.
    pub fn differences(&self, then: &Self) -> Vec<String> {
        let (a, b) = (&then.machine, &self.machine);
        let mut pairs = vec![
            ("processor", a.processor.clone(), b.processor.clone()),
            ("features", a.features.clone(), b.features.clone()),
            ("threads", a.threads.to_string(), b.threads.to_string()),
            ("device", a.device.clone(), b.device.clone()),
            ("dtype", a.dtype.clone(), b.dtype.clone()),
            ("preset", then.preset.clone(), self.preset.clone()),
            ("sizes", then.sizes.clone(), self.sizes.clone()),
        ];
        let was = |key| then.settings.get(key).cloned().unwrap_or_else(|| "unknown".into());
        pairs.extend(self.settings.iter().map(|(key, now)| (key.as_str(), was(key), now.clone())));
        let differing = pairs.into_iter().filter(|(_, then, now)| then != now);
        differing.map(|(key, then, now)| format!("{key} was {then}, is {now}")).collect()
    }

    /// By what factor, at least 1, the machine's own speed changed since the earlier run `then`.
    pub fn drift(&self, then: &Self) -> f64 {
        change(then.roof, self.roof)
    }

    /// Every row that the earlier run `then` has too. The machine's own change is that between the runs or that between the ceilings
    /// measured around this row, whichever is larger: a machine may be slow for a while within a run.
    pub fn compare(&self, then: &Self) -> Vec<Comparison> {
        let drift = self.drift(then);
        let both = self.rows.iter().filter_map(|row| Some((row, then.rows.iter().find(|old| old.key() == row.key())?)));
        both.map(|(row, old)| Comparison {
            row: row.clone(),
            ratio: row.samples.median() / old.samples.median(),
            verdict: compare(&old.samples, &row.samples, drift.max(change(old.roof, row.roof))),
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
    use super::super::{Cache, Limit, Samples, Task};
    use super::*;
    use engine::Cost;

    /// A report of three rows; the first takes `factor` times as long as it might.
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
        let rate = |name: &str, median| Rate { name: name.into(), median, q20: median, q80: median };
        Report {
            format: FORMAT.into(),
            version: VERSION,
            machine: Machine {
                processor: "Abacus <9> & Sons".into(),
                features: "scalar".into(),
                threads: 2,
                device: "cpu".into(),
                dtype: "f32".into(),
            },
            preset: "small".into(),
            sizes: "batch 1".into(),
            settings: BTreeMap::from([("fast.steps".into(), "16".into())]),
            ceilings: vec![rate("fused multiply-adds", 1e11), rate("read", 1e10)],
            roof,
            rows: vec![
                row("linear: queries", Cache::Hot, 1_000_000_000, 1_000_000, 0.0125 * factor),
                row("linear: queries", Cache::Cold, 1_000_000_000, 1_000_000, 0.0125),
                row("add: residual", Cache::Hot, 1_000_000, 12_000_000, 0.002),
            ],
        }
    }

    #[test]
    fn a_report_is_read_back_and_compared() {
        let then = Report::parse(report(1.0).to_json().as_bytes()).unwrap();
        assert_eq!(then, report(1.0));
        let now = report(1.2);
        let verdicts: Vec<Verdict> = now.compare(&then).iter().map(|c| c.verdict).collect();
        assert_eq!(verdicts, [Verdict::Slower, Verdict::Unchanged, Verdict::Unchanged]);
        assert!(then.compare(&then).iter().all(|c| c.verdict == Verdict::Unchanged && c.ratio == 1.0));
        assert!(now.differences(&then).is_empty() && now.drift(&then) == 1.0);

        let machine = Machine { threads: 4, processor: "Other".into(), ..now.machine.clone() };
        let slow = Roof { peak: 5e10, bandwidth: 1e10 };
        let mut while_slow = now.clone();
        while_slow.rows[0].roof = slow;
        assert_eq!(while_slow.compare(&then)[0].verdict, Verdict::Unchanged, "the machine was slow for a while");
        let settings = BTreeMap::from([("fast.steps".into(), "4".into())]);
        let sizes = "batch 2".into();
        let other = Report { machine, preset: "large".into(), sizes, settings, roof: slow, ..now };
        assert_eq!(
            other.differences(&then),
            [
                "processor was Abacus <9> & Sons, is Other",
                "threads was 2, is 4",
                "preset was small, is large",
                "sizes was batch 1, is batch 2",
                "fast.steps was 16, is 4"
            ]
        );
        assert_eq!(other.drift(&then), 2.0);
        assert!(other.compare(&then).iter().all(|c| c.verdict == Verdict::Unchanged), "the machine changed more");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let message = |text: &str| Report::parse(text.as_bytes()).unwrap_err().to_string();
        let good = report(1.0).to_json();
        for (text, words) in [
            ("{}".to_string(), "no report of `ltm bench`"),
            (r#"{"format": "other", "version": 5}"#.into(), "no report of `ltm bench`"),
            (r#"{"format": "ltm bench baseline", "version": 4}"#.into(), "version 4"),
            (good.replace(&format!("\"version\": {VERSION}"), "\"version\": 77"), "version 77"),
            (good.replace("\"bandwidth\": 10000000000.0", "\"bandwidth\": 0.0"), "not above 0"),
            (good.replacen("[\n          0.0125,", "[\n          -1.0,", 1), "above 0"),
        ] {
            assert!(message(&text).contains(words), "{words}: {}", message(&text));
        }
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
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["rows"][2]["floor"], "bytes");
        assert_eq!(json["rows"][0]["samples"], 120);
    }
}
