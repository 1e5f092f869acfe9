//! A finished measurement, which `--json` writes and `--compare` reads.

use super::{Ceilings, Numbers, Roof, Row, Setup, compare};
use engine::{Device, Error, Result, probe, simd};
use ltm::config::{ModelKind, SETTINGS, Setting};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

const FORMAT: &str = "ltm bench report";
const VERSION: u64 = 5;

/// The machine conditions that times depend on.
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
    /// Type of the factors of products: `train.precision`.
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
                Device::Cpu(_) => "cpu".into(),
                Device::Cuda(gpu) => gpu.name().into(),
            },
            dtype: setup.config.train.precision.to_string(),
        }
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.device[..] {
            "cpu" => write!(f, "{}, {}, {} threads", self.processor, self.features, self.threads),
            gpu => f.write_str(gpu),
        }
    }
}

impl Setup {
    /// The sizes that times depend on.
    pub fn sizes(&self) -> String {
        let (m, batch) = (&self.config.model, self.config.train.batch);
        let latents = match m.kind {
            ModelKind::Ltm => format!("{} latents per layer, {} fast steps", m.latents, self.config.fast.steps),
            ModelKind::ArLatent => format!("{} learned latents per layer", m.latents),
            ModelKind::Oracle => format!("{} latents of known facts per layer", m.latents),
            ModelKind::Ar | ModelKind::Gpt2 => "no latents".into(),
        };
        let [dim, heads, window, ffn] = [m.dim, m.heads, m.window, m.ffn_hidden()];
        format!(
            "batch {batch}, {} tokens, {} layers, width {dim}, {heads} heads, window {window}, {latents}, feed-forward {ffn}, vocabulary {}",
            m.seq, m.layers, m.vocab
        )
    }

    /// The settings of fast and slow learning, on which times also depend.
    fn settings(&self) -> BTreeMap<String, String> {
        let is_learning = |key: &&Setting| key.name.starts_with("fast.") || key.name.starts_with("slow.");
        let learning = SETTINGS.iter().filter(is_learning);
        // A value as on the command line.
        let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        learning.map(|key| (key.name.to_string(), text(key.value(&self.config)))).collect()
    }
}

/// The rate of a ceiling: median and quantiles of its passes, in FLOP/s or bytes/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The kind of work.
    pub name: String,
    /// The median rate.
    pub median: f64,
    /// The 20 % quantile.
    pub q20: f64,
    /// The 80 % quantile.
    pub q80: f64,
}

/// A finished measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The kind of file.
    pub format: String,
    /// Version of the file's layout.
    pub version: u64,
    /// The preset's name.
    pub preset: String,
    /// [`Setup::sizes`].
    pub sizes: String,
    /// The settings of both kinds of learning.
    pub settings: BTreeMap<String, String>,
    /// The machine.
    pub machine: Machine,
    /// The ceilings: the peak rate first, then ways to move memory.
    pub ceilings: Vec<Rate>,
    /// The peak rate in f32 if the first ceiling is that of another type.
    pub f32_peak: Option<Rate>,
    /// The roof of the whole run.
    #[serde(flatten)]
    pub roof: Roof,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// The comparison of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison<'a> {
    /// The row.
    pub row: &'a Row,
    /// Median time now over median time then.
    pub ratio: f64,
    /// The verdict on the time now: `Less` is faster.
    pub verdict: Ordering,
}

impl Report {
    /// The report of rows measured under `ceilings`.
    pub fn new(setup: &Setup, preset: &str, ceilings: &Ceilings, rows: Vec<Row>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            preset: preset.into(),
            sizes: setup.sizes(),
            settings: setup.settings(),
            machine: Machine::of(setup),
            ceilings: ceilings.rates(),
            f32_peak: ceilings.f32_peak(),
            roof: ceilings.roof(),
            rows,
        }
    }

    /// The file's text: the report with everything derived from the times.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct FullRow<'a> {
            #[serde(flatten)]
            row: &'a Row,
            #[serde(flatten)]
            numbers: Numbers,
        }
        let rows: Vec<_> = self.rows.iter().map(|row| FullRow { row, numbers: row.numbers() }).collect();
        let mut file = serde_json::to_value(self).expect("a report has string keys");
        file["rows"] = serde_json::to_value(rows).expect("as above");
        format!("{file:#}\n")
    }

    /// Reads the output of [`to_json`](Self::to_json).
    ///
    /// # Errors
    /// If the text is not a report, or has another version.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let file: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
        if file["format"] != FORMAT || file["version"] != VERSION {
            return Err(Error::new(format!("this is not a version {VERSION} report of `ltm bench`")));
        }
        serde_json::from_value(file).map_err(|e| Error::new(e.to_string()))
    }

    /// The conditions that times depend on, other than the program.
    fn conditions(&self) -> BTreeMap<&str, String> {
        let Machine { processor, features, threads, device, dtype } = &self.machine;
        let known = [
            ("processor", processor.clone()),
            ("features", features.clone()),
            ("threads", threads.to_string()),
            ("device", device.clone()),
            ("dtype", dtype.clone()),
            ("preset", self.preset.clone()),
            ("sizes", self.sizes.clone()),
        ];
        let settings = self.settings.iter().map(|(key, value)| (key.as_str(), value.clone()));
        known.into_iter().chain(settings).collect()
    }

    /// The conditions in which the earlier run `then` differs from this one, so that the program may not be the cause
    /// of a change.
    pub fn differences(&self, then: &Self) -> Vec<String> {
        let then = then.conditions();
        let difference = |(key, now): (&str, String)| {
            let was = then.get(key).map_or("unknown", String::as_str);
            (was != now).then(|| format!("{key} was {was}, is {now}"))
        };
        self.conditions().into_iter().filter_map(difference).collect()
    }

    /// The change of the machine's own speed since the earlier run `then`, as a factor of at least 1.
    pub fn drift(&self, then: &Self) -> f64 {
        change(then.roof, self.roof)
    }

    /// Every row that the earlier run `then` also has. The machine's own change is the larger of the change between the
    /// runs and the change between the ceilings around this row, because a machine may be slow for part of a run.
    pub fn compare(&self, then: &Self) -> Vec<Comparison<'_>> {
        let both = self.rows.iter().filter_map(|row| {
            let old = then.rows.iter().find(|old| old.task.key() == row.task.key())?;
            let drift = self.drift(then).max(change(old.roof, row.roof));
            let ratio = row.samples.median() / old.samples.median();
            Some(Comparison { row, ratio, verdict: compare(&old.samples, &row.samples, drift) })
        });
        both.collect()
    }
}

/// The larger change of the two ceilings, as a factor of at least 1.
fn change(then: Roof, now: Roof) -> f64 {
    let factor = |then: f64, now: f64| (now / then).max(then / now);
    factor(then.peak, now.peak).max(factor(then.bandwidth, now.bandwidth))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A report of three rows; the first takes `factor` times as long as it might.
    pub fn report(factor: f64) -> Report {
        let row = |case: &str, cache: &str, flops: u64, bytes: u64, seconds: f64| {
            let pass: Vec<f64> = (0..20).map(|i| seconds * (1.0 + 1e-3 * f64::from(i))).collect();
            json!({
                "group": "matmul", "case": case, "pass": "forward", "cache": cache, "flops": flops, "bytes": bytes,
                "tokens": null, "times": vec![pass; 6], "peak_flops": 1e11, "bandwidth": 1e10
            })
        };
        let rate = |name: &str, rate: f64| json!({"name": name, "median": rate, "q20": rate, "q80": rate});
        let processor = "Abacus <9> & Sons";
        let file = json!({
            "format": FORMAT, "version": VERSION, "preset": "small", "sizes": "batch 1",
            "settings": {"fast.steps": "16"}, "peak_flops": 1e11, "bandwidth": 1e10,
            "machine": {"processor": processor, "features": "scalar", "threads": 2, "device": "cpu", "dtype": "f32"},
            "ceilings": [rate("fused multiply-adds", 1e11), rate("read", 1e10)],
            "rows": [
                row("linear: queries", "hot", 1_000_000_000, 1_000_000, 0.0125 * factor),
                row("linear: queries", "cold", 1_000_000_000, 1_000_000, 0.0125),
                row("add: residual", "hot", 1_000_000, 12_000_000, 0.002),
            ]
        });
        serde_json::from_value(file).unwrap()
    }

    #[test]
    fn a_report_is_read_back_and_compared() {
        let json = report(1.0).to_json();
        let then = Report::parse(json.as_bytes()).unwrap();
        assert_eq!(then, report(1.0));
        let other = json.replace("\"version\": 5", "\"version\": 77");
        assert!(Report::parse(other.as_bytes()).unwrap_err().to_string().contains("version 5"));
        let now = report(1.2);
        let verdicts: Vec<Ordering> = now.compare(&then).iter().map(|c| c.verdict).collect();
        assert_eq!(verdicts, [Ordering::Greater, Ordering::Equal, Ordering::Equal]);
        assert!(then.compare(&then).iter().all(|c| c.verdict == Ordering::Equal && c.ratio == 1.0));
        assert!(now.differences(&then).is_empty() && now.drift(&then) == 1.0);

        let machine = Machine { threads: 4, processor: "Other".into(), ..now.machine.clone() };
        let slow = Roof { peak: 5e10, bandwidth: 1e10 };
        let mut while_slow = now.clone();
        while_slow.rows[0].roof = slow;
        assert_eq!(while_slow.compare(&then)[0].verdict, Ordering::Equal, "the machine was slow for a while");
        let settings = BTreeMap::from([("fast.steps".into(), "4".into())]);
        let sizes = "batch 2".into();
        let other = Report { machine, preset: "large".into(), sizes, settings, roof: slow, ..now };
        assert_eq!(
            other.differences(&then),
            [
                "fast.steps was 16, is 4",
                "preset was small, is large",
                "processor was Abacus <9> & Sons, is Other",
                "sizes was batch 1, is batch 2",
                "threads was 2, is 4"
            ]
        );
        assert_eq!(other.drift(&then), 2.0);
        assert!(other.compare(&then).iter().all(|c| c.verdict == Ordering::Equal), "the machine changed more");
    }

    #[test]
    fn derived_numbers() {
        let report = report(1.0);
        let [hot, add] = [0, 2].map(|i| report.rows[i].numbers());
        assert_eq!((hot.floor, hot.floor_seconds, add.floor, add.floor_seconds), ("FLOPs", 0.01, "bytes", 0.0012));
        assert!((hot.reached - 0.79).abs() < 0.01 && (add.reached - 0.594).abs() < 0.01);
        assert_eq!((hot.intensity, hot.of_peak, hot.samples), (1000.0, hot.reached, 120));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["rows"][2]["floor"], "bytes");
    }
}
