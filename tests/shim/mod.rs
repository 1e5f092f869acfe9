//! A simulated GPU: `g++` compiles the ops' `kernel.cu` files for the CPU, `cuda.h` runs them, and the same code
//! launches them through the same trait as on a GPU.
//!
//! Memory starts as NaN unless the driver clears it, and has fences on both sides that are checked after every launch.
//! Products are plain loops. A fault in a launch (divergent barriers, wrong arguments, out-of-bounds writes) becomes
//! the device's failure, in one line.

mod compile;
mod memory;

use compile::Compiled;
use engine::cuda::{Arg, Captured, Factor, Failure, Gpu, Grid, Kernel, Module, Pointer, Product, Software};
use engine::{DType, Device, Error, Result};
use memory::Heap;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The order in which threads of a block and blocks of a grid run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By number.
    #[default]
    Forward,
    /// The last first, and each warp as far as it can run before the next.
    Backward,
    /// A different order between any two barriers, the same in every run.
    Shuffled,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Shuffled];
}

/// A mistake planted into a kernel; the tests must find it.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// A module, or a header that it includes.
    pub file: &'static str,
    /// Text of the file.
    pub find: &'static str,
    /// The replacement, wherever the text occurs.
    pub replace: &'static str,
}

impl Fault {
    /// The text of `file`, with the mistake if it is in this file.
    fn apply(this: Option<&Self>, file: &str, text: &str) -> String {
        match this {
            Some(fault) if fault.file == file => {
                assert!(text.contains(fault.find), "no {:?} in {file}", fault.find);
                text.replace(fault.find, fault.replace)
            }
            _ => text.to_string(),
        }
    }
}

/// Counts of the requests to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Allocations, and memory given back.
    pub memory: usize,
    /// Copies between host and device.
    pub transfers: usize,
    /// Launches, products, copies on the device and clears, also recorded ones.
    pub work: usize,
    /// Runs of recordings.
    pub replays: usize,
}

/// Shared memory of a block on an H100, in bytes.
const SHARED: usize = 227 << 10;

/// The simulated GPU.
pub struct Shim {
    /// Bytes of a block's shared memory.
    shared: usize,
    /// Whether nothing is recorded.
    direct: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    order: Order,
    failure: Failure,
    heap: Heap,
    /// Names of the modules that were asked for.
    loaded: HashSet<&'static str>,
    /// Those of their variants that were used.
    modules: HashMap<(&'static str, DType, usize), Compiled>,
    fault: Option<Fault>,
    recording: Option<Vec<Work>>,
    counts: Counts,
}

/// Work on the device's stream.
type Work = Box<dyn Fn(&mut State) -> Result<()> + Send + Sync>;

impl Shim {
    /// A device that runs threads in this order.
    pub fn device(order: Order) -> Device {
        Self::make(order, None, SHARED).0
    }

    /// A device whose kernels have a mistake.
    pub fn faulty(order: Order, fault: Fault) -> Device {
        Self::make(order, Some(fault), SHARED).0
    }

    /// A device whose blocks have this many bytes of shared memory.
    pub fn with_shared(shared: usize, fault: Option<Fault>) -> Device {
        Self::make(Order::Forward, fault, shared).0
    }

    /// A device, and a function that returns the counts of requests so far.
    pub fn counted() -> (Device, impl Fn() -> Counts) {
        let (device, state) = Self::make(Order::Forward, None, SHARED);
        (device, move || lock(&state).counts)
    }

    /// A device that records nothing.
    pub fn direct() -> Device {
        Device::Cuda(Arc::new(Self { shared: SHARED, direct: true, state: Arc::default() }))
    }

    fn make(order: Order, fault: Option<Fault>, shared: usize) -> (Device, Arc<Mutex<State>>) {
        let state = Arc::new(Mutex::new(State { order, fault, ..State::default() }));
        (Device::Cuda(Arc::new(Self { shared, direct: false, state: state.clone() })), state)
    }

    fn submit(&self, work: impl Fn(&mut State) -> Result<()> + Send + Sync + 'static) {
        let mut state = lock(&self.state);
        state.counts.work += 1;
        match &mut state.recording {
            Some(recording) => recording.push(Box::new(work)),
            None => state.run(&work),
        }
    }

    /// The state, for work that cannot be recorded.
    fn outside(&self) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        assert!(state.recording.is_none(), "only work on the device can be captured");
        state
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The GPU behind a device.
pub fn gpu(device: &Device) -> &Arc<dyn Gpu> {
    let Device::Cuda(gpu) = device else { panic!("{device:?} is not a GPU") };
    gpu
}

/// The device with these kernels ready to launch.
pub fn loaded(device: Device, modules: &[&'static Module]) -> Device {
    gpu(&device).load(modules).expect("the shim loads any module");
    device
}

impl State {
    /// Does the work, unless the device has failed.
    fn run(&mut self, work: &dyn Fn(&mut Self) -> Result<()>) {
        if self.failure.check().is_ok() {
            let result = work(self);
            let _ = self.failure.keep(result);
        }
    }

    fn launch(&mut self, kernel: Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        let (name, variant) = (kernel.module.name, kernel.variant);
        assert!(self.loaded.contains(name), "the kernels of {name} are not loaded");
        let module = match self.modules.entry((name, variant.dtype, variant.size)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Compiled::new(kernel.module, variant, self.fault.as_ref())),
        };
        let launched = module.launch(kernel.entry, grid, self.order, args).and_then(|()| self.heap.check());
        launched.map_err(|e| Error::new(format!("{name} {}: {e}", kernel.entry)))
    }

    fn product(&mut self, p: &Product) {
        let [a_step, b_step, step] = p.steps();
        for i in 0..p.count {
            let factor = |factor, step| match factor {
                Factor::Plain(at) => Factor::Plain(at.offset(i * step)),
                Factor::Transposed(at) => Factor::Transposed(at.offset(i * step)),
            };
            let (a, b) = (factor(p.a, a_step), factor(p.b, b_step));
            let (c, out) = (p.c.map(|c| c.offset(i * step)), p.out.offset(i * step));
            self.one_product(&Product { a, b, c, out, ..*p });
        }
    }

    fn one_product(&mut self, p: &Product) {
        let (a, b) = (self.factor(p.a, p.rows, p.inner), self.factor(p.b, p.inner, p.cols));
        let mut out = p.c.map_or_else(|| vec![0.0; p.rows * p.cols], |c| self.numbers(c, p.rows * p.cols));
        for (row, out) in out.chunks_exact_mut(p.cols).enumerate() {
            for (k, b) in b.chunks_exact(p.cols).enumerate() {
                let a = a[row * p.inner + k];
                out.iter_mut().zip(b).for_each(|(out, b)| *out = a.mul_add(*b, *out));
            }
        }
        match p.out.dtype {
            DType::Bf16 => self.store(p.out, &out.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>()),
            _ => self.store(p.out, &out),
        }
    }

    /// A factor as a row-major matrix.
    fn factor(&self, factor: Factor, rows: usize, cols: usize) -> Vec<f32> {
        let (at, is_transposed) = factor.parts();
        let x = self.numbers(at, rows * cols);
        if is_transposed { (0..rows * cols).map(|i| x[i % cols * rows + i / cols]).collect() } else { x }
    }

    fn numbers(&self, at: Pointer, n: usize) -> Vec<f32> {
        let bytes = self.heap.bytes(at.address, n * at.dtype.size());
        match at.dtype {
            DType::Bf16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            other => panic!("a product of {other}"),
        }
    }

    fn store<T: engine::Element>(&mut self, at: Pointer, values: &[T]) {
        self.heap.bytes_mut(at.address, size_of_val(values)).copy_from_slice(bytemuck::cast_slice(values));
    }
}

impl Gpu for Shim {
    fn name(&self) -> &str {
        "host shim"
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let mut state = self.outside();
        state.failure.check()?;
        state.counts.memory += 1;
        Ok(state.heap.alloc(bytes))
    }

    fn free(&self, address: u64) {
        let mut state = lock(&self.state);
        state.counts.memory += 1;
        state.heap.free(address);
    }

    fn free_bytes(&self) -> usize {
        if lock(&self.state).failure.check().is_ok() { usize::MAX } else { 0 }
    }

    fn shared_bytes(&self) -> usize {
        self.shared
    }

    fn write(&self, to: u64, from: &[u8]) {
        let mut state = self.outside();
        state.counts.transfers += 1;
        state.heap.bytes_mut(to, from.len()).copy_from_slice(from);
    }

    fn read(&self, from: u64, to: &mut [u8]) -> Result<()> {
        let mut state = self.outside();
        state.counts.transfers += 1;
        to.copy_from_slice(state.heap.bytes(from, to.len()));
        state.failure.check()
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) {
        self.submit(move |state| {
            let copy = state.heap.bytes(from, bytes).to_vec();
            state.heap.bytes_mut(to, bytes).copy_from_slice(&copy);
            Ok(())
        });
    }

    fn clear(&self, at: u64, bytes: usize) {
        self.submit(move |state| {
            state.heap.bytes_mut(at, bytes).fill(0);
            Ok(())
        });
    }

    fn load(&self, modules: &[&'static Module]) -> Result<()> {
        let mut state = lock(&self.state);
        // A mistake that was not planted must not count as found.
        if let Some(fault) = &state.fault {
            modules.iter().for_each(|module| drop(Fault::apply(Some(fault), module.name, module.source)));
        }
        // They are compiled at their first launch, because a test uses few of a module's variants.
        state.loaded.extend(modules.iter().map(|module| module.name));
        Ok(())
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, args: &[Arg]) {
        if !grid.is_empty() {
            let most = self.shared;
            assert!(grid.shared as usize <= most, "{}: {} of {most} bytes of shared memory", kernel.entry, grid.shared);
            let (kernel, args) = (*kernel, args.to_vec());
            self.submit(move |state| state.launch(kernel, grid, &args));
        }
    }

    fn product(&self, product: &Product) {
        let product = *product;
        self.submit(move |state| {
            state.product(&product);
            Ok(())
        });
    }

    fn software(&self) -> Software {
        Software { driver: "none".into(), products: "plain loops".into(), compiler: "g++".into() }
    }

    fn captures(&self) -> bool {
        !self.direct
    }

    fn begin_capture(&self) {
        assert!(!self.direct, "a recording on a device that records nothing");
        self.outside().recording = Some(Vec::new());
    }

    fn end_capture(&self) -> Box<dyn Captured> {
        let work = lock(&self.state).recording.take().expect("a phase that is being captured");
        Box::new(Recording { work, state: self.state.clone() })
    }

    fn finish(&self) -> Result<()> {
        lock(&self.state).failure.check()
    }
}

impl fmt::Debug for Shim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        write!(f, "Shim({:?}, {:?})", state.order, state.counts)
    }
}

struct Recording {
    work: Vec<Work>,
    state: Arc<Mutex<State>>,
}

impl Captured for Recording {
    fn launch(&self) {
        let mut state = lock(&self.state);
        assert!(state.recording.is_none(), "a captured phase is not launched while another is captured");
        state.counts.replays += 1;
        self.work.iter().for_each(|work| state.run(work));
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({} pieces of work)", self.work.len())
    }
}
