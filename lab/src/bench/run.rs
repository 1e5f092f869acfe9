//! A whole measurement.

use super::meter::measure;
use super::row::median;
use super::steps::measure_steps;
use super::work::{Bench, Work, works};
use super::{Cache, Ceilings, Effort, Roof, Row, Samples, Task};
use engine::{DType, Device, Error, Result};
use kernels::registry::ROOMS;
use ltm::config::{self, Config, nearest};

/// The group of whole steps, beside the rooms.
pub const STEPS: &str = "steps";

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Sizes, resolved.
    pub config: Config,
    /// Where.
    pub device: Device,
    /// How tensors are stored: the configuration's `train.precision`.
    pub dtype: DType,
    /// Rooms, ops, or [`STEPS`]; everything if there is none.
    pub only: Vec<String>,
    /// How much work a row is given.
    pub effort: Effort,
}

impl Setup {
    /// All of it, thoroughly.
    ///
    /// # Errors
    /// If the device cannot store tensors as the configuration says, or run the model.
    pub fn new(config: Config, device: Device) -> Result<Self> {
        config.check_device(&device, config::Work::Training)?;
        let (dtype, effort) = (config.train.precision.to_learn_on(&device)?, Effort::full(&device));
        Ok(Self { config, device, dtype, only: Vec::new(), effort })
    }

    /// The cases and passes to be measured.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a name is none of a room, an op or [`STEPS`].
    pub fn works(&self) -> Result<Vec<Work>> {
        let mut all = works(&self.config, self.dtype)?;
        let rooms: Vec<&str> = ROOMS.iter().map(|room| room.name).chain([STEPS]).collect();
        let names = || rooms.iter().copied().chain(all.iter().map(Work::op));
        if let Some(name) = self.only.iter().find(|name| !names().any(|known| known == *name)) {
            return Err(Error::usage(format!(
                "no op is called {name:?}, did you mean {:?}? There are {}, the last for whole steps",
                nearest(name, names()),
                rooms.join(", ")
            )));
        }
        all.retain(|work| self.only.is_empty() || self.only.iter().any(|n| n == work.room || n == work.op()));
        Ok(all)
    }
}

/// Measures `works`, and whole steps if they were asked for, in as many passes as the effort has, the ceilings again in between.
/// Tells `seen` what it is at: the pass, counted from 1, and the case.
///
/// # Errors
/// If the device has no room, or has failed.
pub fn measure_all(
    setup: &Setup,
    works: &[Work],
    ceilings: &mut Ceilings,
    seen: &mut dyn FnMut(usize, &str),
) -> Result<Vec<Row>> {
    let mut gather = Gather { setup, ceilings, seen, pass: 0, rows: Vec::new() };
    let mut training_steps = None;
    for pass in 0..setup.effort.passes {
        gather.pass = pass;
        works.iter().try_for_each(|work| gather.op(work))?;
        if setup.only.is_empty() || setup.only.iter().any(|name| name == STEPS) {
            measure_steps(&mut gather, &mut training_steps)?;
        }
    }
    let whole = |(row, roofs): (Row, Vec<Roof>)| {
        let middle = |rate: fn(&Roof) -> f64| median(&roofs.iter().map(rate).collect::<Vec<_>>());
        Row { roof: Roof { peak: middle(|roof| roof.peak), bandwidth: middle(|roof| roof.bandwidth) }, ..row }
    };
    Ok(gather.rows.into_iter().map(whole).collect())
}

/// The passes so far.
pub(super) struct Gather<'a> {
    pub setup: &'a Setup,
    ceilings: &'a mut Ceilings,
    seen: &'a mut dyn FnMut(usize, &str),
    /// The present pass, counted from 0.
    pub pass: usize,
    /// Rows in the order in which they were first measured, with the roof of every pass.
    rows: Vec<(Row, Vec<Roof>)>,
}

impl Gather<'_> {
    /// Measures work with hot caches, and with cold ones where it matters. Its memory is another one in every pass.
    fn op(&mut self, work: &Work) -> Result<()> {
        let Setup { device, dtype, effort, .. } = self.setup;
        let mut bench = Bench::new(work, *dtype, device)?;
        let task = |cache| Task {
            group: work.room.into(),
            case: work.case.clone(),
            pass: work.name.clone(),
            cache,
            flops: work.cost.flops,
            bytes: work.cost.bytes,
            tokens: None,
        };
        let mut measured = |gather: &mut Self, cache| {
            gather.measure(task(cache), |ceilings| measure(device, ceilings, effort, cache, &mut || bench.run()))
        };
        let hot = measured(self, Cache::Hot)?;
        // Whether reading everything from memory would change the time by as much as a fiftieth: the first pass decides for all.
        let from_memory = work.cost.bytes as f64 / self.ceilings.roof().bandwidth;
        let cold = task(Cache::Cold);
        let is_known = self.rows.iter().any(|(row, _)| row.task.key() == cold.key());
        if is_known || self.pass == 0 && from_memory > 0.02 * hot {
            measured(self, Cache::Cold)?;
        }
        Ok(())
    }

    /// Measures a row in this pass, with the ceilings behind it, and returns its median time.
    pub fn measure(&mut self, task: Task, work: impl FnOnce(&Ceilings) -> Result<Vec<f64>>) -> Result<f64> {
        (self.seen)(self.pass + 1, &task.case);
        let mark = self.ceilings.mark();
        let seconds = work(self.ceilings)?;
        self.ceilings.refresh();
        let (middle, roof) = (median(&seconds), self.ceilings.roof_since(mark));
        match self.rows.iter_mut().find(|(row, _)| row.task.key() == task.key()) {
            Some((row, roofs)) => {
                row.samples.0.push(seconds);
                roofs.push(roof);
            }
            None => self.rows.push((Row { task, samples: Samples(vec![seconds]), roof }, vec![roof])),
        }
        Ok(middle)
    }
}
