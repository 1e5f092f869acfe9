//! Replaying a plan: no shape logic, no allocation.

use crate::graph::Phase;
use crate::instr::{Call, Instr};
use crate::plan::{Capture, Plan};
use crate::store::{Id, Store};
use engine::cuda::Gpu;
use engine::op::MOST;
use engine::{Buffer, Context, Device, Result, Shape, Spec, parallel};
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::PoisonError;

/// The first number that was not finite in a checked run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The instruction that wrote it, e.g. `layers.1 rmsnorm backward`, or the input that held it.
    pub place: String,
    /// Index of the number within its value.
    pub index: usize,
    /// Shape of that value.
    pub shape: Shape,
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
    /// If another plan has used the arena since this plan's earlier phases ran, or if a leaf's buffer was replaced by one of
    /// another type or shape.
    pub fn run(&self, store: &mut Store, phase: Phase) {
        self.enter(store, phase);
        match store.device.clone() {
            Device::Cuda(gpu) if phase == Phase::Step && gpu.captures() => self.repeat(store, &*gpu),
            Device::Cuda(_) => self.execute(store, phase),
            Device::Cpu(_) => parallel::in_pool(|| self.execute(store, phase)),
        }
        // The last contribution may have been to a reshaped leaf.
        self.grads.iter().for_each(|(_, id)| store.get_mut(*id).respec(id.spec));
    }

    /// Runs all phases.
    pub fn run_all(&self, store: &mut Store) {
        Phase::ALL.into_iter().for_each(|phase| self.run(store, phase));
    }

    /// Like [`run`](Self::run), but stops at the first instruction that reads or writes a non-finite number, and
    /// returns it.
    ///
    /// # Errors
    /// If the device has failed.
    pub fn run_checked(&self, store: &mut Store, phase: Phase) -> Result<Option<NonFinite>> {
        self.enter(store, phase);
        match store.device {
            Device::Cuda(_) => self.execute_checked(store, phase),
            Device::Cpu(_) => parallel::in_pool(|| self.execute_checked(store, phase)),
        }
    }

    fn execute_checked(&self, store: &mut Store, phase: Phase) -> Result<Option<NonFinite>> {
        for instr in self.of_phase(phase) {
            for (i, id) in instr.ins.iter().enumerate().filter_map(|(i, id)| Some((i, (*id)?))) {
                if let Some(found) = check(store, id, || format!("input {i} of {}", instr.label()))? {
                    return Ok(Some(found));
                }
            }
            execute(instr, store);
            for &id in instr.written() {
                if let Some(found) = check(store, id, || instr.label())? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn execute(&self, store: &mut Store, phase: Phase) {
        self.of_phase(phase).for_each(|instr| execute(instr, store));
    }

    /// Runs the steps on a device. The first run is direct, so that libraries can choose their algorithms. The second
    /// run is recorded. Later runs replay the recording, as long as the buffers keep their addresses.
    fn repeat(&self, store: &mut Store, gpu: &dyn Gpu) {
        if self.of_phase(Phase::Step).next().is_none() {
            return;
        }
        let layout = self.layout(store);
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        match capture.as_mut().filter(|c| c.layout == layout) {
            None => {
                self.execute(store, Phase::Step);
                *capture = Some(Capture { layout, work: None });
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

    /// A hash of the addresses of the steps' buffers.
    fn layout(&self, store: &Store) -> u64 {
        let mut hasher = DefaultHasher::new();
        for id in self.of_phase(Phase::Step).flat_map(Instr::operands) {
            hasher.write_u64(store.get(*id).address());
        }
        hasher.write_u64(store.scratch.address());
        hasher.finish()
    }

    fn enter(&self, store: &mut Store, phase: Phase) {
        for (name, id) in &self.leaves {
            let buffer = store.get(*id);
            // Kernels trust the planned sizes.
            assert!(buffer.has(id.spec), "leaf {name} is {}, but its buffer is now {buffer:?}: write into it", id.spec);
        }
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

fn check(store: &Store, id: Id, place: impl Fn() -> String) -> Result<Option<NonFinite>> {
    let spec = id.spec;
    if !spec.dtype.is_float() {
        return Ok(None);
    }
    let bad = store.get(id).on_host()?.to_f64().iter().position(|x| !x.is_finite());
    Ok(bad.map(|index| NonFinite { place: place(), index, shape: spec.shape }))
}

static EMPTY: Buffer = Buffer::empty();

/// Room for an op's inputs and as many prepared forms.
const LENT: usize = 2 * MOST;

/// Takes the buffers that an instruction writes out of the store while it runs, so that the store can lend all others.
fn take(store: &mut Store, ids: &[Option<Id>]) -> [Buffer; MOST] {
    std::array::from_fn(|i| ids.get(i).copied().flatten().map_or(Buffer::empty(), |id| store.take(id)))
}

fn put(store: &mut Store, ids: &[Option<Id>], buffers: [Buffer; MOST]) {
    for (id, buffer) in ids.iter().zip(buffers) {
        if let Some(id) = *id {
            *store.get_mut(id) = buffer;
        }
    }
}

fn lend<'a>(store: &'a Store, ids: &[Option<Id>]) -> [&'a Buffer; LENT] {
    std::array::from_fn(|i| ids.get(i).copied().flatten().map_or(&EMPTY, |id| store.get(id)))
}

/// Gives the buffers that an instruction reads the shapes in which it reads them: a buffer may hold a value and reshaped copies of
/// it. Returns the shapes of those that had another one.
fn with_shapes<'a>(store: &mut Store, read: impl Iterator<Item = &'a Id>) -> [Option<Spec>; LENT + MOST + 1] {
    let mut others = [None; LENT + MOST + 1];
    for (id, other) in read.zip(&mut others) {
        let buffer = store.get_mut(*id);
        if !buffer.has(id.spec) {
            *other = Some(buffer.spec());
            buffer.respec(id.spec);
        }
    }
    others
}

fn execute(instr: &Instr<Id>, store: &mut Store) {
    let Instr { wants, ins, outs, d_out, d_ins, .. } = instr;
    let mut scratch = std::mem::take(&mut store.scratch);
    let device = store.device.clone();
    let cx = &mut Context { device: &device, scratch: &mut scratch };
    // A backward pass reads the outputs; all other instructions write them.
    let (read, written) = if let Call::Vjp(_) = instr.call { (&outs[..], &[][..]) } else { (&[][..], &outs[..]) };
    let operands = || ins.iter().chain(read).chain([d_out]).flatten();
    let others = with_shapes(store, operands());
    let mut new_outs = take(store, written);
    let mut new_d_ins = take(store, d_ins);
    let lent_ins = lend(store, ins);
    let in_slice = &lent_ins[..ins.len()];
    let out_slice = &mut new_outs[..written.len()];
    let d_in_slice = &mut new_d_ins[..d_ins.len()];
    match &instr.call {
        Call::Forward(op) => op.forward(cx, in_slice, out_slice),
        Call::Fused(op) => op.forward_vjp(cx, wants, in_slice, out_slice, d_in_slice),
        Call::Vjp(op) => {
            let d_out = store.get(d_out.expect("a VJP has a result's gradient"));
            op.vjp(cx, wants, in_slice, &lend(store, read)[..read.len()], d_out, d_in_slice);
        }
        Call::Update(update) => update.apply(cx, in_slice, out_slice),
        Call::Prepare(op, number) => op.prepare(cx, *number, in_slice[0], &mut out_slice[0]),
    }
    put(store, written, new_outs);
    put(store, d_ins, new_d_ins);
    for (id, other) in operands().zip(others) {
        if let Some(other) = other {
            store.get_mut(*id).respec(other);
        }
    }
    store.scratch = scratch;
}
