//! Replaying a plan: no shape logic, no allocation.

use crate::graph::Phase;
use crate::plan::{Call, Instr, Plan, Ref};
use crate::store::Store;
use engine::cuda::{Captured, Gpu};
use engine::{Buffer, Context, DType, Device, Result, Shape};
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::PoisonError;

/// No op has more inputs or outputs than this.
const MOST: usize = 12;

/// The first number that was not finite in a checked run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The instruction that wrote it, e.g. `layers.1 rmsnorm backward`, or the leaf that held it.
    pub place: String,
    /// Index of the number within its value.
    pub index: usize,
    /// Shape of that value.
    pub shape: Shape,
}

impl NonFinite {
    /// Which of `batch` samples of `sequence` tokens the number belongs to, if its value has a row per sample or per token.
    pub fn sample(&self, batch: usize, sequence: usize) -> Option<usize> {
        let dims = self.shape.dims();
        let per_sample = match dims {
            [first, _, _, ..] if *first == batch => self.shape.numel() / batch,
            [first, second] if *first == batch && *second == sequence => sequence,
            [rows] if *rows == batch * sequence => sequence,
            _ => return None,
        };
        Some(self.index / per_sample)
    }
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (number {} of {})", self.place, self.index, self.shape)
    }
}

impl Plan {
    /// Runs one phase. After the weights changed: `Update`, `Batch`, `Step`; for a new batch: `Batch`, `Step`; and `Step`
    /// again for every further step.
    ///
    /// # Panics
    /// If another plan has used the arena since this plan's earlier phases ran.
    pub fn run(&self, store: &mut Store, phase: Phase) {
        self.enter(store, phase);
        match store.device().clone() {
            Device::Cuda(gpu) if phase == Phase::Step => self.repeat(store, &*gpu),
            _ => self.execute(store, phase),
        }
    }

    fn execute(&self, store: &mut Store, phase: Phase) {
        for instr in self.instrs.iter().filter(|i| i.phase == phase) {
            execute(instr, store);
        }
    }

    /// Runs the steps, which a device repeats many times: the first time as they are (libraries choose their algorithms),
    /// the second time recorded, and from then on as the recording, for as long as the buffers stay where they are.
    fn repeat(&self, store: &mut Store, gpu: &dyn Gpu) {
        let layout = self.layout(store);
        let mut captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        match captured.as_mut().filter(|c| c.layout == layout) {
            None => {
                self.execute(store, Phase::Step);
                *captured = Some(Capture { layout, work: None });
            }
            Some(capture) => {
                let work = capture.work.get_or_insert_with(|| {
                    gpu.begin_capture();
                    self.execute(store, Phase::Step);
                    gpu.end_capture()
                });
                work.launch();
            }
        }
    }

    /// A digest of where the steps' buffers lie.
    fn layout(&self, store: &Store) -> u64 {
        let mut hasher = DefaultHasher::new();
        for instr in self.instrs.iter().filter(|i| i.phase == Phase::Step) {
            for r in instr.refs() {
                hasher.write_u64(store.get(r.id).address());
            }
        }
        hasher.write_u64(store.scratch.address());
        hasher.finish()
    }

    /// Runs all phases: everything anew.
    pub fn run_all(&self, store: &mut Store) {
        [Phase::Update, Phase::Batch, Phase::Step].into_iter().for_each(|phase| self.run(store, phase));
    }

    /// Like [`run`](Self::run), but stops at the first instruction that reads or writes a number that is not finite, and
    /// returns it.
    ///
    /// # Errors
    /// If the device has failed.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_checked(&self, store: &mut Store, phase: Phase) -> Result<Option<NonFinite>> {
        self.enter(store, phase);
        for instr in self.instrs.iter().filter(|i| i.phase == phase) {
            for (i, input) in instr.ins.iter().enumerate() {
                if let Some(found) = check(store, input.as_ref(), || format!("input {i} of {}", instr.label()))? {
                    return Ok(Some(found));
                }
            }
            execute(instr, store);
            let backward = matches!(instr.call, Call::Vjp(_));
            let outs = if backward { &[][..] } else { &instr.outs };
            for out in outs.iter().chain(&instr.d_ins) {
                if let Some(found) = check(store, out.as_ref(), || instr.label())? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn enter(&self, store: &mut Store, phase: Phase) {
        if self.arena_bytes == 0 {
            return;
        }
        let first = self.instrs.first().map_or(Phase::Update, |i| i.phase);
        assert!(
            store.tenant == self.key || phase <= first,
            "the arena belongs to another plan: run the earlier phases first"
        );
        store.tenant = self.key;
    }
}

/// The steps of a plan on a device.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Where the buffers lay.
    layout: u64,
    /// The recording; none before the second run.
    work: Option<Box<dyn Captured>>,
}

impl Instr<Ref> {
    fn refs(&self) -> impl Iterator<Item = &Ref> {
        self.ins.iter().chain(&self.outs).chain(&self.d_ins).chain(std::iter::once(&self.d_out)).flatten()
    }

    pub(crate) fn label(&self) -> String {
        let pass = match self.call {
            Call::Forward(_) => "",
            Call::Vjp(_) => " backward",
            Call::Fused(_) => " forward+backward",
            Call::Update(_) => " in place",
            Call::Prepare(..) => " prepared",
        };
        format!("{} {}{pass}", self.scope, self.call.name()).trim_start().to_string()
    }
}

fn check(store: &Store, at: Option<&Ref>, place: impl Fn() -> String) -> Result<Option<NonFinite>> {
    let Some(at) = at else { return Ok(None) };
    let buffer = store.get(at.id).on_host()?;
    let bad = match buffer.dtype() {
        DType::F32 => buffer.as_slice::<f32>().iter().position(|x| !x.is_finite()),
        DType::F64 => buffer.as_slice::<f64>().iter().position(|x| !x.is_finite()),
        DType::Bf16 => buffer.to_f64().iter().position(|x| !x.is_finite()),
        DType::I32 => None,
    };
    Ok(bad.map(|index| NonFinite { place: place(), index, shape: at.spec.shape }))
}

static EMPTY: Buffer = Buffer::empty();

/// Buffers that an instruction writes are taken out of the store while it runs, so that all others can be lent.
fn take(store: &mut Store, refs: &[Option<Ref>]) -> [Buffer; MOST] {
    std::array::from_fn(|i| match refs.get(i) {
        Some(Some(r)) => {
            let mut buffer = store.take(r.id);
            buffer.respec(r.spec);
            buffer
        }
        _ => Buffer::empty(),
    })
}

fn put(store: &mut Store, refs: &[Option<Ref>], buffers: [Buffer; MOST]) {
    for (r, buffer) in refs.iter().zip(buffers) {
        if let Some(r) = r {
            store.put(r.id, buffer);
        }
    }
}

fn lend<'a>(store: &'a Store, refs: &[Option<Ref>]) -> [&'a Buffer; MOST] {
    std::array::from_fn(|i| match refs.get(i) {
        Some(Some(r)) => store.get(r.id),
        _ => &EMPTY,
    })
}

fn execute(instr: &Instr<Ref>, store: &mut Store) {
    let (ni, no) = (instr.ins.len(), instr.outs.len());
    let mut scratch = std::mem::take(&mut store.scratch);
    let device = store.device().clone();
    let mut cx = Context { device: &device, scratch: &mut scratch };
    match &instr.call {
        Call::Forward(op) => {
            let mut outs = take(store, &instr.outs);
            op.forward(&mut cx, &lend(store, &instr.ins)[..ni], &mut outs[..no]);
            put(store, &instr.outs, outs);
        }
        Call::Fused(op) => {
            let mut outs = take(store, &instr.outs);
            let mut d_ins = take(store, &instr.d_ins);
            let ins = lend(store, &instr.ins);
            let d_ins_mut = &mut d_ins[..instr.d_ins.len()];
            op.forward_vjp(&mut cx, &instr.wants, &ins[..ni], &mut outs[..no], d_ins_mut);
            put(store, &instr.outs, outs);
            put(store, &instr.d_ins, d_ins);
        }
        Call::Vjp(op) => {
            let mut d_ins = take(store, &instr.d_ins);
            let (ins, outs) = (lend(store, &instr.ins), lend(store, &instr.outs));
            let d_out = store.get(instr.d_out.expect("a VJP has a result's gradient").id);
            op.vjp(&mut cx, &instr.wants, &ins[..ni], &outs[..no], d_out, &mut d_ins[..instr.d_ins.len()]);
            put(store, &instr.d_ins, d_ins);
        }
        Call::Update(update) => {
            let mut state = take(store, &instr.outs);
            update.apply(&mut cx, &lend(store, &instr.ins)[..ni], &mut state[..no]);
            put(store, &instr.outs, state);
        }
        Call::Prepare(op, number) => {
            let mut form = take(store, &instr.outs);
            op.prepare(&mut cx, *number, lend(store, &instr.ins)[0], &mut form[0]);
            put(store, &instr.outs, form);
        }
    }
    store.scratch = scratch;
}
