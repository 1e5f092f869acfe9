//! Measures rows pass by pass, with the ceilings in between.

use crate::call::{Call, check};
use crate::meter::measure;
use crate::row::median;
use crate::{Cache, Ceilings, Effort, Roof, Row, Samples, Task};
use engine::{Buffer, DType, Device, Op, Pass, Result};

/// The rows of a measurement. A pass measures every row once; the caller repeats it [`Effort::passes`] times.
pub struct Recorder {
    /// Where the work runs.
    pub device: Device,
    /// The effort per row.
    pub effort: Effort,
    /// The ceilings.
    pub ceilings: Ceilings,
    /// In the order in which they were first measured.
    rows: Vec<Record>,
}

/// A row in the making.
struct Record {
    row: Row,
    /// The roof of every pass.
    roofs: Vec<Roof>,
    /// Passes that [`Recorder::take_new`] has returned.
    taken: usize,
}

impl Recorder {
    /// Measures the ceilings for the first time.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn new(device: &Device, dtype: DType, effort: Effort) -> Result<Self> {
        let ceilings = Ceilings::new(device, dtype, &effort)?;
        Ok(Self { device: device.clone(), effort, ceilings, rows: Vec::new() })
    }

    /// Records a pass of a row, then measures the ceilings; `take` returns seconds per call. Returns their median.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn record(
        &mut self,
        task: Task,
        checked: bool,
        take: impl FnOnce(&Ceilings) -> Result<Vec<f64>>,
    ) -> Result<f64> {
        let mark = self.ceilings.mark();
        let seconds = take(&self.ceilings)?;
        self.ceilings.refresh();
        let middle = median(&seconds);
        let roof = self.ceilings.roof_since(mark, task.cache, task.bytes);
        match self.known(&task) {
            Some(i) => {
                self.rows[i].row.samples.0.push(seconds);
                self.rows[i].roofs.push(roof);
            }
            None => {
                let level = self.ceilings.level(task.cache, task.bytes);
                let row = Row { task, samples: Samples(vec![seconds]), roof, level, checked };
                self.rows.push(Record { row, roofs: vec![roof], taken: 0 });
            }
        }
        Ok(middle)
    }

    /// Records a pass of work with hot caches, and with cold ones if it matters: if reading everything from memory would
    /// take more than a fiftieth of the time. The first pass decides for all.
    ///
    /// # Errors
    /// If the device has failed.
    pub fn work(&mut self, task: &Task, checked: bool, work: &mut dyn FnMut()) -> Result<()> {
        let mut measured = |recorder: &mut Self, cache| {
            let (device, effort) = (recorder.device.clone(), recorder.effort);
            let task = Task { cache, ..task.clone() };
            recorder.record(task, checked, |ceilings| measure(&device, ceilings, &effort, cache, work))
        };
        let is_first = self.known(&Task { cache: Cache::Hot, ..task.clone() }).is_none();
        let hot = measured(self, Cache::Hot)?;
        let from_memory = task.bytes as f64 / self.ceilings.roof().bandwidth;
        let is_known = self.known(&Task { cache: Cache::Cold, ..task.clone() }).is_some();
        if is_known || is_first && from_memory > 0.02 * hot {
            measured(self, Cache::Cold)?;
        }
        Ok(())
    }

    /// Records a pass over an op's pass, in memory that is allocated anew. The first time it [checks](check) the outputs.
    ///
    /// # Errors
    /// If the outputs are wrong, the op refuses the inputs, the device lacks the memory or has failed.
    pub fn op(&mut self, task: &Task, op: &dyn Op, pass: Pass, ins: &[Buffer]) -> Result<()> {
        let checked = match self.known(&Task { cache: Cache::Hot, ..task.clone() }) {
            Some(i) => self.rows[i].row.checked,
            None => check(op, pass, ins, &self.device)?,
        };
        let mut call = Call::new(op, pass, ins, &self.device)?;
        self.work(task, checked, &mut || call.run())
    }

    fn known(&self, task: &Task) -> Option<usize> {
        self.rows.iter().position(|known| known.row.task.key() == task.key())
    }

    /// All rows, each with the median of its passes' roofs.
    pub fn rows(&self) -> Vec<Row> {
        let whole = |Record { row, roofs, .. }: &Record| {
            let middle = |rate: fn(&Roof) -> f64| median(&roofs.iter().map(rate).collect::<Vec<_>>());
            Row {
                roof: Roof { peak: middle(|roof| roof.peak), bandwidth: middle(|roof| roof.bandwidth) },
                ..row.clone()
            }
        };
        self.rows.iter().map(whole).collect()
    }

    /// What was measured since the call before: each row with its latest pass only.
    pub fn take_new(&mut self) -> Vec<Row> {
        let latest = |Record { row, roofs, taken }: &mut Record| {
            let new = (*taken < roofs.len()).then(|| {
                let samples = Samples(row.samples.0[*taken..].to_vec());
                Row { samples, roof: roofs[roofs.len() - 1], ..row.clone() }
            });
            *taken = roofs.len();
            new
        };
        self.rows.iter_mut().filter_map(latest).collect()
    }
}
