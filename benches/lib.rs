//! Criterion benchmarks over the cases that `ltm bench` measures: `cargo bench -p benches -- rmsnorm`. The preset is `small`
//! with one sample a batch, or the one that the variable `LTM_PRESET` names.

#![forbid(unsafe_code)]

use engine::{DType, Device, Result};
use lab::bench::{Bench, Work, works};
use ltm::config::Config;

/// An op's case and pass with a name to choose it by.
pub struct Named {
    /// `room/op: case/pass`.
    pub name: String,
    work: Work,
}

/// All there is to measure, and the sizes.
pub struct Cases {
    config: Config,
    /// The cases in their passes.
    pub all: Vec<Named>,
}

impl Cases {
    /// Those of the chosen preset.
    ///
    /// # Errors
    /// If there is no such preset.
    pub fn new() -> Result<Self> {
        let mut config = Config::preset(&std::env::var("LTM_PRESET").unwrap_or_else(|_| "small".into()))?;
        config.train.batch = 1;
        let config = config.resolved()?;
        let named = |work: Work| Named { name: format!("{}/{}/{}", work.room, work.case, work.name), work };
        let all = works(&config, DType::F32)?.into_iter().map(named).collect();
        Ok(Self { config, all })
    }

    /// The work with its inputs, ready to run again and again.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn ready(&self, case: &Named) -> Result<impl FnMut() + use<>> {
        let mut bench = Bench::new(&case.work, &self.config, DType::F32, &Device::Cpu)?;
        let pass = case.work.pass.clone();
        Ok(move || bench.run(&pass))
    }
}
