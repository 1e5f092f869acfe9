//! A finished measurement, which can be saved, printed and compared.

use crate::verdict::{Change, Verdict, compare, compare_in_turns};
use crate::{Cache, Ceilings, Conditions, Numbers, Roof, Row};
use engine::{Error, Result, file};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

const FORMAT: &str = "roofline report";
const VERSION: u64 = 6;

/// The rate of a ceiling: median, quantiles and maximum of its passes, in FLOP/s or bytes/s.
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
    /// The highest rate.
    pub best: f64,
}

/// A level of the caches of all threads, and the rate of the best way to move what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheRate {
    /// `L1`, `L2` or `L3`.
    pub level: String,
    /// Bytes that fit.
    pub bytes: usize,
    /// The rate.
    #[serde(flatten)]
    pub rate: Rate,
}

/// A finished measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The kind of file.
    pub format: String,
    /// Version of the file's layout.
    pub version: u64,
    /// What the times depend on.
    #[serde(flatten)]
    pub conditions: Conditions,
    /// The ceilings: the peak rate first, then ways to move memory.
    pub ceilings: Vec<Rate>,
    /// The caches, the smallest first.
    pub caches: Vec<CacheRate>,
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
    /// The change of its time.
    pub change: Change,
}

/// A time may be shorter than the ceilings allow by this factor: the clock rate may have been higher than in any measurement
/// of the peak, or other programs may have slowed all of these.
const FASTER_CLOCK: f64 = 1.5;

/// The same for bytes, of which the caches may still have held some, or hold some that were written.
const STILL_CACHED: f64 = 2.5;

/// No call does any work in a shorter time.
const NOTHING: f64 = 1e-8;

impl Report {
    /// The report of rows measured under `ceilings`.
    pub fn new(conditions: Conditions, ceilings: &Ceilings, rows: Vec<Row>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            conditions,
            ceilings: ceilings.rates(),
            caches: ceilings.caches(),
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
            return Err(Error::new(format!("this is not a version {VERSION} report of measured times")));
        }
        serde_json::from_value(file).map_err(|e| Error::new(e.to_string()))
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read or is no report.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(&file::read(path)?).map_err(|e| e.at(path.display()))
    }

    /// Writes the file at `path`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.to_json()).map_err(|e| Error::io("write", path, &e))
    }

    /// Refuses times that no work can have taken on this machine.
    ///
    /// A time is too short if the counted FLOPs exceed the highest peak of the run, or the counted bytes the highest rate of
    /// the fastest cache (of memory, if the caches were cold), by more than the ceilings' own uncertainty.
    ///
    /// # Errors
    /// If there is such a row; the error says whether the time or the cost is wrong.
    pub fn refuse_impossible(&self) -> Result<()> {
        let best = |rates: &mut dyn Iterator<Item = &Rate>| rates.fold(0.0, |most, rate| rate.best.max(most));
        let peak = best(&mut self.ceilings.iter().take(1).chain(&self.f32_peak));
        let memory = best(&mut self.ceilings.iter().skip(1));
        let fastest = self.caches.first().map_or(f64::INFINITY, |cache| cache.rate.best);
        // A cold time on a GPU is the difference of two times, and may be all noise.
        let is_time = |row: &&Row| self.conditions.machine.device == "cpu" || row.task.cache == Cache::Hot;
        for row in self.rows.iter().filter(is_time) {
            let (task, seconds) = (&row.task, row.samples.median());
            let bandwidth = if task.cache == Cache::Hot { fastest } else { memory };
            let (flops, bytes) = (task.flops as f64, task.bytes as f64);
            let bounds = [(flops, "FLOP", peak, FASTER_CLOCK), (bytes, "B", bandwidth, STILL_CACHED)];
            let name = format!("{}, {}, {}", task.case, task.pass, task.cache);
            if seconds < NOTHING && flops + bytes > 0.0 {
                return Err(Error::new(format!(
                    "{name}: the time of {} cannot be, nothing was done in it: the compiler may have removed the work, \
                     so give what it computes to std::hint::black_box",
                    time(seconds)
                )));
            }
            if let Some((amount, unit, rate, _)) = bounds.into_iter().find(|(n, _, rate, by)| n / rate > by * seconds) {
                return Err(Error::new(format!(
                    "{name}: the cost of {}{unit} cannot be: in the measured {} that is {} G{unit}/s, and the highest rate of \
                     this machine is {}; the work does less than its cost counts, or returns before it is done",
                    engineering(amount),
                    time(seconds),
                    rounded(amount / seconds / 1e9),
                    rounded(rate / 1e9)
                )));
            }
        }
        Ok(())
    }

    /// The change of the machine's own speed since the earlier run `then`, as a factor of at least 1.
    pub fn drift(&self, then: &Self) -> f64 {
        change(then.roof, self.roof)
    }

    /// Every row that the earlier run `then` also has. The machine's own change is the larger of the change between the
    /// runs and the change between the ceilings around this row, because a machine may be slow for part of a run.
    ///
    /// # Errors
    /// If the runs cannot be compared, see [`Conditions::check`], or have no row in common.
    pub fn compare(&self, then: &Self) -> Result<Vec<Comparison<'_>>> {
        self.compared(then, |old, row| {
            let drift = self.drift(then).max(change(old.roof, row.roof));
            compare(&old.samples, &row.samples, drift)
        })
    }

    /// The same for two runs that were measured [in turns](crate::in_turns).
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn compare_in_turns(&self, then: &Self) -> Result<Vec<Comparison<'_>>> {
        self.compared(then, |old, row| compare_in_turns(&old.samples, &row.samples))
    }

    fn compared(&self, then: &Self, change: impl Fn(&Row, &Row) -> Change) -> Result<Vec<Comparison<'_>>> {
        self.conditions.check(&then.conditions)?;
        let both = self.rows.iter().filter_map(|row| {
            let old = then.rows.iter().find(|old| old.task.key() == row.task.key())?;
            Some(Comparison { row, change: change(old, row) })
        });
        let both: Vec<_> = both.collect();
        if both.is_empty() { Err(Error::new("no row is in both runs, so nothing was compared")) } else { Ok(both) }
    }
}

/// Whether any row became slower.
pub fn any_slower(rows: &[Comparison]) -> bool {
    rows.iter().any(|row| row.change.verdict == Verdict::Slower)
}

/// The larger change of the two ceilings, as a factor of at least 1.
fn change(then: Roof, now: Roof) -> f64 {
    let factor = |then: f64, now: f64| (now / then).max(then / now);
    factor(then.peak, now.peak).max(factor(then.bandwidth, now.bandwidth))
}

/// Seconds with a suitable unit.
pub(crate) fn time(seconds: f64) -> String {
    format!("{:.2?}", Duration::from_secs_f64(seconds))
}

/// A large number with a prefix, to go before a unit.
fn engineering(x: f64) -> String {
    let (scale, prefix) = match x {
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e3.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    format!("{:.1} {prefix}", x / scale)
}

/// A rate with about three digits.
fn rounded(x: f64) -> String {
    if x < 10.0 { format!("{x:.2}") } else { format!("{x:.0}") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Samples;
    use serde_json::json;

    /// A report of three rows; the first takes `factor` times as long as it might.
    pub fn report(factor: f64) -> Report {
        let row = |case: &str, cache: &str, flops: u64, bytes: u64, seconds: f64| {
            let pass: Vec<f64> = (0..20).map(|i| seconds * (1.0 + 1e-3 * f64::from(i))).collect();
            json!({
                "group": "matmul", "case": case, "pass": "forward", "cache": cache, "flops": flops, "bytes": bytes,
                "tokens": null, "times": vec![pass; 6], "peak_flops": 1e11, "bandwidth": 1e10, "level": "memory",
                "checked": true
            })
        };
        let rate =
            |name: &str, rate: f64| json!({"name": name, "median": rate, "q20": rate, "q80": rate, "best": rate});
        let processor = "Abacus <9> & Sons";
        let file = json!({
            "format": FORMAT, "version": VERSION, "title": "preset small", "sizes": "batch 1",
            "settings": {"fast.steps": "16"}, "peak_flops": 1e11, "bandwidth": 1e10,
            "machine": {"processor": processor, "features": "scalar", "threads": 2, "device": "cpu", "dtype": "f32"},
            "ceilings": [rate("fused multiply-adds", 1e11), rate("read", 1e10)],
            "caches": [{"level": "L1", "bytes": 65536, "name": "read", "median": 1e11, "q20": 1e11, "q80": 1e11, "best": 1e11}],
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
        use Verdict::{Ambiguous, Same, Slower};
        let json = report(1.0).to_json();
        let then = Report::parse(json.as_bytes()).unwrap();
        assert_eq!(then, report(1.0));
        let other = json.replace("\"version\": 6", "\"version\": 77");
        assert!(Report::parse(other.as_bytes()).unwrap_err().to_string().contains("version 6"));
        let now = report(1.2);
        let verdicts = |now: &Report| now.compare(&then).unwrap().iter().map(|c| c.change.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&now), [Slower, Same, Same]);
        assert!(any_slower(&now.compare(&then).unwrap()) && !any_slower(&then.compare(&then).unwrap()));
        assert!(then.compare(&then).unwrap().iter().all(|c| c.change.verdict == Same && c.change.ratio == 1.0));
        assert!(now.conditions.differences(&then.conditions).is_empty() && now.drift(&then) == 1.0);

        let slow = Roof { peak: 5e10, bandwidth: 1e10 };
        let mut while_slow = now.clone();
        while_slow.rows[0].roof = slow;
        assert_eq!(verdicts(&while_slow)[0], Ambiguous, "the machine was slow for a while");
        let all_slow = Report { roof: slow, ..now };
        assert_eq!((all_slow.drift(&then), verdicts(&all_slow)), (2.0, vec![Ambiguous; 3]), "the machine changed more");
    }

    #[test]
    fn impossible_results_are_refused() {
        let with = |row: usize, change: &dyn Fn(&mut Row)| {
            let mut report = report(1.0);
            change(&mut report.rows[row]);
            report.refuse_impossible().map_err(|e| e.to_string())
        };
        assert_eq!(with(0, &|_| ()), Ok(()));
        // 1 GFLOP in 12.6 ms; 2 GFLOP would be faster than the peak.
        assert_eq!(with(0, &|row| row.task.flops = 1_800_000_000), Ok(()));
        let flops = with(0, &|row| row.task.flops = 2_000_000_000).unwrap_err();
        assert!(
            flops.starts_with("linear: queries, forward, hot: the cost of 2.0 GFLOP cannot be: in the measured 12.6"),
            "{flops}"
        );
        assert!(flops.contains("158 GFLOP/s") && flops.contains("highest rate of this machine is 100;"), "{flops}");
        // Cold bytes come from memory at 10 GB/s, hot ones at most from L1 at 100.
        assert_eq!(with(1, &|row| row.task.bytes = 300_000_000), Ok(()));
        assert!(
            with(1, &|row| row.task.bytes = 330_000_000).unwrap_err().contains("cold: the cost of 330.0 MB cannot be")
        );
        assert_eq!(with(0, &|row| row.task.bytes = 3_000_000_000), Ok(()));
        assert!(with(0, &|row| row.task.bytes = 3_300_000_000).is_err());
        let removed = with(2, &|row| row.samples = Samples(vec![vec![3e-10; 9]; 6])).unwrap_err();
        assert!(
            removed.contains("forward, hot: the time of 0.00ns cannot be") && removed.contains("black_box"),
            "{removed}"
        );
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
