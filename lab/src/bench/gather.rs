//! Rows whose times are taken in several passes over all of them.

use super::{Ceilings, Roof, Row, Samples, Setup, Task};
use engine::Result;
use std::collections::HashMap;

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
