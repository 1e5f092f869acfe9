//! A whole measurement.

use super::meter::measure;
use super::steps::measure_steps;
use super::work::{Bench, Work, works};
use super::{Cache, Ceilings, Effort, Roof, Row, Samples, Task};
use engine::{DType, Device, Error, Result};
use kernels::registry::ROOMS;
use ltm::config::{self, Config, nearest};
use std::collections::HashMap;

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
        let all = works(&self.config, self.dtype)?;
        let ops: Vec<&str> = all.iter().map(Work::op).collect();
        for name in &self.only {
            if name != STEPS && !ops.contains(&&name[..]) && !ROOMS.iter().any(|room| room.name == name) {
                let names: Vec<&str> = ROOMS.iter().map(|r| r.name).chain(ops).chain([STEPS]).collect();
                let near = nearest(name, names.iter().copied());
                let rooms = ROOMS.iter().map(|room| room.name).collect::<Vec<_>>().join(", ");
                return Err(Error::usage(format!(
                    "no op is called {name:?}, did you mean {near:?}? There are {rooms}, and {STEPS} for whole steps"
                )));
            }
        }
        let chosen = |work: &Work| self.only.is_empty() || self.only.iter().any(|n| n == work.room || n == work.op());
        Ok(all.into_iter().filter(chosen).collect())
    }

    /// Whether whole steps are measured.
    pub fn has_steps(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == STEPS)
    }
}

/// Measures `works`, and whole steps if they were asked for, in as many passes as the effort has. Tells `seen` what it is at, and
/// every row as soon as it has all its passes. The ceilings are measured again in between.
///
/// # Errors
/// If the device has no room, and those of `seen`.
pub fn measure_all(
    setup: &Setup,
    works: &[Work],
    ceilings: &mut Ceilings,
    seen: &mut dyn FnMut(Seen) -> Result<()>,
) -> Result<Vec<Row>> {
    let mut gather = Gather::new(setup, seen);
    for pass in 0..setup.effort.passes {
        gather.pass = pass;
        for work in works {
            measure_op(setup, work, ceilings, &mut gather)?;
        }
        if setup.has_steps() {
            measure_steps(setup, ceilings, &mut gather)?;
        }
    }
    Ok(gather.rows)
}

/// Work with hot caches, and with cold ones where it matters. Its memory is another one in every pass.
fn measure_op(setup: &Setup, work: &Work, ceilings: &mut Ceilings, gather: &mut Gather) -> Result<()> {
    let mut bench = Bench::new(work, &setup.config, setup.dtype, &setup.device)?;
    let mut hot = 0.0;
    for cache in [Cache::Hot, Cache::Cold] {
        let task = Task {
            group: work.room.into(),
            case: work.case.clone(),
            pass: work.name.clone(),
            cache,
            cost: work.cost,
            tokens: None,
        };
        // The first pass decides for all.
        let is_wanted = match (cache, gather.pass) {
            (Cache::Hot, _) => true,
            (Cache::Cold, 0) => caches_matter(work, hot, ceilings),
            (Cache::Cold, _) => gather.knows(&task.key()),
        };
        if is_wanted {
            hot = gather.measure(task, ceilings, &mut |ceilings| {
                measure(&setup.device, ceilings, &setup.effort, cache, &mut || bench.run(&work.pass))
            })?;
        }
    }
    Ok(())
}

/// Whether reading everything from memory would change a time of `hot` seconds by as much as a fiftieth.
fn caches_matter(work: &Work, hot: f64, ceilings: &Ceilings) -> bool {
    work.cost.bytes as f64 / ceilings.roof().bandwidth > 0.02 * hot
}

/// What a measurement tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A row is about to be measured in pass number `pass` of `passes`, counted from 1.
    Next {
        /// Which pass.
        pass: usize,
        /// How many there are.
        passes: usize,
        /// The row's op and case, or which step.
        case: &'a str,
    },
    /// A row has all its passes.
    Row(&'a Row),
}

/// The passes so far.
pub(super) struct Gather<'a> {
    /// The present pass, counted from 0.
    pub pass: usize,
    /// How many there will be.
    pub passes: usize,
    /// How many training steps there is time for: where fewer than passes, they are measured in the last ones.
    pub training_steps: usize,
    seen: &'a mut dyn FnMut(Seen) -> Result<()>,
    /// Of every row what each pass measured.
    parts: HashMap<String, Vec<Row>>,
    /// Those that are complete, in order.
    pub rows: Vec<Row>,
}

impl<'a> Gather<'a> {
    pub fn new(setup: &Setup, seen: &'a mut dyn FnMut(Seen) -> Result<()>) -> Self {
        Self { pass: 0, passes: setup.effort.passes, training_steps: 0, seen, parts: HashMap::new(), rows: Vec::new() }
    }

    /// Whether an earlier pass measured this row.
    pub fn knows(&self, key: &str) -> bool {
        self.parts.contains_key(key)
    }

    /// Measures a row in this pass, with the ceilings behind it, and returns its median time. The last pass completes it.
    pub fn measure(
        &mut self,
        task: Task,
        ceilings: &mut Ceilings,
        work: &mut dyn FnMut(&Ceilings) -> Result<Samples>,
    ) -> Result<f64> {
        (self.seen)(Seen::Next { pass: self.pass + 1, passes: self.passes, case: &task.case })?;
        let mark = ceilings.mark();
        let samples = work(ceilings)?;
        ceilings.refresh();
        let median = samples.median();
        let row = Row { task, samples, roof: ceilings.roof_since(mark) };
        let parts = self.parts.entry(row.key()).or_default();
        parts.push(row);
        if self.pass + 1 == self.passes {
            let row = complete(parts)?;
            (self.seen)(Seen::Row(&row))?;
            self.rows.push(row);
        }
        Ok(median)
    }
}

/// One row of what the passes measured: all their times, under the median of their roofs.
fn complete(parts: &[Row]) -> Result<Row> {
    let middle = |rate: fn(&Roof) -> f64| -> Result<f64> {
        Ok(Samples::new(parts.iter().map(|part| rate(&part.roof)).collect())?.median())
    };
    let roof = Roof { peak: middle(|roof| roof.peak)?, bandwidth: middle(|roof| roof.bandwidth)? };
    let samples = Samples::of_passes(parts.iter().flat_map(|part| part.samples.passes().to_vec()).collect())?;
    Ok(Row { samples, roof, ..parts[0].clone() })
}
