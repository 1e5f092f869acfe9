//! What times depend on, other than the program.

use engine::{Device, Error, Result, probe, simd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

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
    /// The precision of the work, e.g. `f32`.
    pub dtype: String,
}

impl Machine {
    /// This machine, for work of this precision on `device`.
    pub fn of(device: &Device, dtype: impl Display) -> Self {
        Self {
            processor: probe::processor_name(),
            features: simd::level().to_string(),
            threads: rayon::current_num_threads(),
            device: match device {
                Device::Cpu(_) => "cpu".into(),
                Device::Cuda(gpu) => gpu.name().into(),
            },
            dtype: dtype.to_string(),
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

/// What times depend on, other than the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// What is measured, for headings.
    pub title: String,
    /// The sizes of the work.
    pub sizes: String,
    /// Other settings, by name.
    pub settings: BTreeMap<String, String>,
    /// The machine.
    pub machine: Machine,
}

impl Conditions {
    /// By name; first those that must agree for a comparison.
    fn list(&self) -> ([(&str, String); 4], impl Iterator<Item = (&str, String)>) {
        let Machine { processor, features, threads, device, dtype } = &self.machine;
        let must = [
            ("sizes", self.sizes.clone()),
            ("threads", threads.to_string()),
            ("device", device.clone()),
            ("precision", dtype.clone()),
        ];
        let rest = [("title", self.title.clone()), ("processor", processor.clone()), ("features", features.clone())];
        let settings = self.settings.iter().map(|(key, value)| (key.as_str(), value.clone()));
        (must, rest.into_iter().chain(settings))
    }

    /// The first condition, if any, whose difference makes a comparison with the run `then` meaningless.
    ///
    /// # Errors
    /// If sizes, threads, device or precision differ.
    pub fn check(&self, then: &Self) -> Result<()> {
        match self.list().0.into_iter().zip(then.list().0).find(|(now, was)| now != was) {
            Some(((name, now), (_, was))) => {
                Err(Error::new(format!("times of other {name} cannot be compared: {name} was {was}, is {now}")))
            }
            None => Ok(()),
        }
    }

    /// The other conditions that differ from those of the run `then`, so that the program may not be the cause of a change.
    pub fn differences(&self, then: &Self) -> Vec<String> {
        let was: BTreeMap<_, _> = then.list().1.collect();
        let difference = |(name, now): (&str, String)| {
            let was = was.get(name).map_or("unknown", String::as_str);
            (was != now).then(|| format!("{name} was {was}, is {now}"))
        };
        self.list().1.filter_map(difference).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Report;
    use crate::report::tests::report;

    #[test]
    fn times_of_other_conditions_are_refused() {
        let then = report(1.0);
        let with = |change: &dyn Fn(&mut Conditions)| {
            let mut now = report(1.0);
            change(&mut now.conditions);
            now
        };
        let refused = |change: &dyn Fn(&mut Conditions)| with(change).compare(&then).unwrap_err().to_string();
        let threads = "times of other threads cannot be compared: threads was 2, is 4";
        assert_eq!(refused(&|c| c.machine.threads = 4), threads);
        assert!(refused(&|c| c.sizes = "batch 2".into()).ends_with("sizes was batch 1, is batch 2"));
        assert!(refused(&|c| c.machine.device = "GPU".into()).ends_with("device was cpu, is GPU"));
        assert!(refused(&|c| c.machine.dtype = "bf16".into()).ends_with("precision was f32, is bf16"));
        let other = with(&|c| {
            c.machine.processor = "Other".into();
            c.title = "preset large".into();
            c.settings = BTreeMap::from([("fast.steps".into(), "4".into())]);
        });
        let told = [
            "title was preset small, is preset large",
            "processor was Abacus <9> & Sons, is Other",
            "fast.steps was 16, is 4",
        ];
        assert_eq!(other.conditions.differences(&then.conditions), told);
        assert!(other.compare(&then).is_ok());
        let none = Report { rows: Vec::new(), ..report(1.0) };
        assert!(none.compare(&then).unwrap_err().to_string().contains("nothing was compared"));
    }
}
