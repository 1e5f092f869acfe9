//! The backend that uses NVIDIA's driver.

use super::arch::Arch;
use super::blas::{Products, version};
use super::capture::{Graph, Recording};
use super::libraries::{Library, Settings, told};
use super::open::{check_driver, driver_text, version_text};
use super::{Arg, Captured, Failure, Gpu, Grid, Kernel, Module, PRODUCT, Product, Software, Variant, kernels};
use crate::{Error, Result, bytes_text};
use cudarc::driver::result as cu;
use cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUfunction, CUfunction_attribute as FunctionAttribute, CUgraphInstantiate_flags,
    CUresult, CUstream, CUstreamCaptureMode, cuFuncGetParamInfo, cuStreamQuery,
};
use cudarc::driver::{CudaContext, CudaStream, DriverError};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The advice for errors whose cause may be an earlier launch.
pub(super) const WATCH: &str =
    "the environment variables CUDA_LAUNCH_BLOCKING=1 and LTM_CUDA_CAPTURE=0 show which launch fails";

/// The largest number of parameters of a kernel.
const MOST: usize = 32;

/// A GPU with its driver: one context, one stream, kernels and cuBLASLt.
pub(super) struct Driver {
    name: String,
    arch: Arch,
    /// The most shared memory of a block, in bytes.
    shared: i32,
    /// Version of CUDA that the driver supports.
    version: i32,
    settings: Settings,
    failure: Arc<Failure>,
    // Dropped before the stream, which owns the context.
    state: Mutex<State>,
    stream: Arc<CudaStream>,
}

struct State {
    functions: HashMap<(&'static str, &'static str, Variant), Function>,
    /// `None` if the library is missing.
    products: Option<Products>,
    /// What compiled the kernels.
    compiler: String,
    recording: bool,
}

/// An entry point on the device.
struct Function {
    handle: CUfunction,
    /// Sizes of its parameters in bytes.
    parameters: Vec<usize>,
    /// The most threads, and the most bytes of dynamic shared memory, of a block.
    threads: i32,
    shared: i32,
}

// SAFETY: a function's handle may be used by any thread where its context is current. It stays until the context ends.
unsafe impl Send for Function {}

impl Driver {
    /// GPU number `number` of those that the driver lists, or the only one, and the reason if cuBLASLt is missing.
    ///
    /// # Errors
    /// If there is no driver or no such GPU, one of them is too old, or two copies of cuBLASLt are loaded.
    pub fn new(settings: &Settings, number: usize) -> Result<(Self, Option<String>)> {
        let (version, count) = check_driver()?;
        let number = if count == 1 { 0 } else { number };
        if number >= count as usize {
            return Err(Error::device(format!("there is no GPU {number}: the NVIDIA driver lists {count}, from 0")));
        }
        let failed = |e: String| Error::new(format!("the GPU cannot be used: {e}"));
        let context = told(CudaContext::new(number)).map_err(failed)?;
        // SAFETY: there is only one stream, so no events are needed to keep an order.
        unsafe { context.disable_event_tracking() };
        let name = told(context.name()).map_err(failed)?;
        let (major, minor) = told(context.compute_capability()).map_err(failed)?;
        let arch = Arch::new(major as u32, minor as u32);
        if arch < Arch::OLDEST {
            let oldest = Arch::OLDEST;
            return Err(Error::device(format!(
                "{name} ({arch}) is too old: bf16 needs {oldest} (A100, RTX 30) or later"
            )));
        }
        let optin = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared = told(context.attribute(optin)).map_err(failed)?;
        // Not the null stream, which cannot be captured.
        let stream = told(context.new_stream()).map_err(failed)?;
        let missing = Library::CublasLt.find(settings).err();
        let products = match missing {
            None => Library::CublasLt.file().and_then(|_| Products::new()).map(Some)?,
            Some(_) => None,
        };
        let state = State { functions: HashMap::new(), products, compiler: String::new(), recording: false };
        let state = Mutex::new(state);
        let (settings, failure) = (settings.clone(), Arc::default());
        Ok((Self { name, arch, shared, version, settings, failure, state, stream }, missing))
    }

    /// Makes the context current on this thread and locks the state.
    fn enter(&self) -> Result<MutexGuard<'_, State>> {
        self.failure.check()?;
        self.keep("enter its context", self.stream.context().bind_to_thread())?;
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`enter`](Self::enter), for calls that must not be captured.
    fn enter_outside(&self, what: &str) -> Result<MutexGuard<'_, State>> {
        let state = self.enter()?;
        assert!(!state.recording, "{}: cannot {what} while a phase is captured", self.name);
        Ok(state)
    }

    /// Stores an error as the device's failure, so that callers need not return it. Its cause may be an earlier launch.
    fn keep<T>(&self, what: &str, result: std::result::Result<T, DriverError>) -> Result<T> {
        self.failure.keep(told(result).map_err(|e| Error::new(format!("{} cannot {what}: {e} ({WATCH})", self.name))))
    }

    /// Launches work on the stream.
    fn submit(&self, what: &str, work: impl FnOnce(CUstream) -> std::result::Result<(), DriverError>) {
        let _ = self.enter().and_then(|_state| self.keep(what, work(self.stream.cu_stream())));
    }

    /// Launches work on the stream and waits for it.
    fn transfer(&self, what: &str, work: impl FnOnce(CUstream) -> std::result::Result<(), DriverError>) -> Result<()> {
        let _state = self.enter_outside(what)?;
        self.keep(what, work(self.stream.cu_stream()).and_then(|()| self.stream.synchronize()))
    }

    /// What a capture recorded.
    fn captured(&self) -> Result<Graph> {
        let mut state = self.enter()?;
        assert!(std::mem::take(&mut state.recording), "{}: no phase is being captured", self.name);
        let graph = self.keep("end a capture", self.stream.end_capture(CUgraphInstantiate_flags(0)))?;
        let nothing = || Error::new(format!("{}: a capture recorded nothing", self.name));
        self.failure.keep(graph.map(Graph).ok_or_else(nothing))
    }

    fn load_one(
        &self,
        module: &'static Module,
        code: &[u8],
    ) -> std::result::Result<Vec<(&'static str, Function)>, String> {
        // SAFETY: the code is a complete object file for this GPU, from the compiler or from a file with a verified
        // hash, and is only read. The context is current.
        let loaded = told(unsafe { cu::module::load_data(code.as_ptr().cast()) })?;
        let function = |entry| {
            let name = CString::new(entry).map_err(|_| "a zero byte in a kernel's name")?;
            // SAFETY: the module was just loaded and stays until the context ends.
            let handle = told(unsafe { cu::module::get_function(loaded, name) })?;
            Ok((entry, Function::new(handle, self.shared)?))
        };
        module.entries().map(function).collect()
    }
}

impl Function {
    fn new(handle: CUfunction, most_shared: i32) -> std::result::Result<Self, String> {
        // SAFETY: the function exists. The driver writes two numbers.
        let parameter = |i| unsafe {
            let (mut offset, mut bytes) = (0, 0);
            let result = cuFuncGetParamInfo(handle, i, &raw mut offset, &raw mut bytes);
            (result == CUresult::CUDA_SUCCESS).then_some(bytes)
        };
        let parameters = (0..).map_while(parameter).collect();
        // SAFETY: the function exists.
        let attribute = |attribute| told(unsafe { cu::function::get_function_attribute(handle, attribute) });
        let threads = attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        let shared = most_shared - attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function exists.
        told(unsafe { cu::function::set_function_attribute(handle, most, shared) })?;
        Ok(Self { handle, parameters, threads, shared })
    }

    /// What is wrong with a launch.
    fn check(&self, grid: Grid, args: &[Arg]) -> std::result::Result<(), String> {
        if args.len() != self.parameters.len() {
            return Err(format!("{} arguments, the kernel has {} parameters", args.len(), self.parameters.len()));
        }
        for (i, (arg, &must)) in args.iter().zip(&self.parameters).enumerate() {
            let (_, bytes) = arg.bits();
            if bytes != must {
                return Err(format!("argument {i} has {bytes} bytes, must have {must}"));
            }
        }
        if grid.threads > self.threads as u32 {
            return Err(format!("{} threads in a block, the kernel can have {}", grid.threads, self.threads));
        }
        if i64::from(grid.shared) > i64::from(self.shared) {
            return Err(format!("{} bytes of shared memory, a block has {}", grid.shared, self.shared));
        }
        Ok(())
    }
}

impl Gpu for Driver {
    fn name(&self) -> &str {
        &self.name
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let state = self.enter_outside("allocate")?;
        // SAFETY: the context is current. The memory is freed by `free`.
        let address = match unsafe { cu::malloc_sync(bytes) } {
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, total) = self.keep("count its memory", cu::mem_get_info())?;
                let [bytes, free, total] = [bytes, free, total].map(bytes_text);
                return Err(Error::device(format!(
                    "{} has no room for {bytes}: {free} of {total} are free",
                    self.name
                )));
            }
            result => self.keep("allocate", result)?,
        };
        drop(state);
        self.clear(address, bytes);
        Ok(address)
    }

    fn free(&self, address: u64) {
        // SAFETY: the address came from `alloc`, and no launched work uses it once the stream is done.
        let free = || self.stream.synchronize().and_then(|()| unsafe { cu::free_sync(address) });
        // The memory of a device that has failed is freed with its context.
        let _ = self.enter().and_then(|_state| self.keep("free memory", free()));
    }

    fn free_bytes(&self) -> usize {
        let free = self.enter().and_then(|_state| self.keep("count its memory", cu::mem_get_info()));
        free.map_or(0, |(free, _)| free)
    }

    fn shared_bytes(&self) -> usize {
        self.shared as usize
    }

    fn write(&self, to: u64, from: &[u8]) {
        // SAFETY: the caller names memory of the device. The host's is borrowed until the copy is done.
        let copy = |stream| unsafe { cu::memcpy_htod_async(to, from, stream) };
        let _ = self.transfer("copy from the host", copy);
    }

    fn read(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: as in `write`.
        self.transfer("copy to the host", |stream| unsafe { cu::memcpy_dtoh_async(to, from, stream) })
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) {
        // SAFETY: the caller names memory of the device, which `free` keeps until the copy is done.
        self.submit("copy", |stream| unsafe { cu::memcpy_dtod_async(to, from, bytes, stream) });
    }

    fn clear(&self, at: u64, bytes: usize) {
        // SAFETY: as in `copy`.
        self.submit("clear memory", |stream| unsafe { cu::memset_d8_async(at, 0, bytes, stream) });
    }

    fn load(&self, modules: &[&'static Module]) -> Result<()> {
        let mut state = self.enter_outside("load kernels")?;
        let own = state.products.is_none().then_some(&PRODUCT);
        let modules = modules.iter().copied().chain(own);
        let wanted: Vec<_> = modules.flat_map(|module| module.variants().map(move |v| (module, v))).collect();
        let (code, compiler) = kernels::code(&self.settings, self.arch, &wanted)?;
        state.compiler = compiler;
        for (&(module, variant), code) in wanted.iter().zip(&code) {
            let functions = self.load_one(module, code).map_err(|e| {
                let (defines, version) = (variant.defines().join(" "), version_text(self.version));
                Error::new(format!(
                    "{} refuses the kernels of {} ({defines}): {e} (its driver supports CUDA {version}, so the \
                     compiler must not be newer)",
                    self.name, module.name
                ))
            })?;
            state.functions.extend(functions.into_iter().map(|(entry, f)| ((module.name, entry, variant), f)));
        }
        Ok(())
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, args: &[Arg]) {
        if grid.is_empty() {
            return;
        }
        let Ok(state) = self.enter() else { return };
        let module = kernel.module.name;
        let Some(function) = state.functions.get(&(module, kernel.entry, kernel.variant)) else {
            panic!("the kernel {} of {module} is not loaded", kernel.entry)
        };
        assert!(args.len() <= MOST, "{module} {}: {} arguments", kernel.entry, args.len());
        function.check(grid, args).unwrap_or_else(|e| panic!("{module} {}: {e}", kernel.entry));
        let mut values = [0u64; MOST];
        values.iter_mut().zip(args).for_each(|(value, arg)| *value = arg.bits().0);
        let mut pointers = values.each_mut().map(|value| std::ptr::from_mut(value).cast::<c_void>());
        let [x, y, z] = grid.blocks;
        // SAFETY: the function is of this context, and takes exactly this number of parameters, of these sizes. The driver
        // copies them during the call, little-endian numbers from their lowest bytes. The host shim tests which memory
        // a kernel touches.
        let launched = unsafe {
            let stream = self.stream.cu_stream();
            let threads = (grid.threads, 1, 1);
            cu::launch_kernel(function.handle, (x, y, z), threads, grid.shared, stream, &mut pointers[..args.len()])
        };
        let _ = self.keep(&format!("launch {module} {}", kernel.entry), launched);
    }

    fn product(&self, product: &Product) {
        product.check();
        let elements = product.count * product.rows * product.cols;
        if elements == 0 {
            return;
        }
        if product.inner == 0 {
            let (out, bytes) = (product.out, elements * product.out.dtype.size());
            return match product.c {
                Some(c) if c.address == out.address => {}
                Some(c) => self.copy(c.address, out.address, bytes),
                None => self.clear(out.address, bytes),
            };
        }
        let Ok(mut state) = self.enter() else { return };
        let Some(products) = &mut state.products else {
            drop(state);
            return product.launch(self);
        };
        let result = products.launch(product, self.stream.cu_stream());
        let refused = |e| Error::new(format!("{}: cuBLASLt refuses {product:?}: {e}", self.name));
        let _ = self.failure.keep(result.map_err(refused));
    }

    fn software(&self) -> Software {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Software {
            driver: driver_text(self.version),
            products: if state.products.is_some() { format!("cuBLASLt {}", version()) } else { "own kernel".into() },
            compiler: state.compiler.clone(),
        }
    }

    fn captures(&self) -> bool {
        !self.settings.direct
    }

    fn begin_capture(&self) {
        let Ok(mut state) = self.enter_outside("begin a capture") else { return };
        // Captures this thread only: other threads make no calls on this stream.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        state.recording = self.keep("begin a capture", self.stream.begin_capture(mode)).is_ok();
    }

    fn end_capture(&self) -> Box<dyn Captured> {
        let graph = self.captured().ok().map(Mutex::new);
        Box::new(Recording { graph, name: self.name.clone(), failure: self.failure.clone() })
    }

    fn finish(&self) -> Result<()> {
        self.transfer("finish its work", |_| Ok(()))
    }

    fn is_done(&self) -> Result<bool> {
        let what = "finish its work";
        let _state = self.enter_outside(what)?;
        // SAFETY: the stream lives as long as the device.
        match unsafe { cuStreamQuery(self.stream.cu_stream()) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => self.keep(what, result.result()).map(|()| true),
        }
    }

    fn with_stream(&self, work: &mut dyn FnMut(*mut c_void) -> Result<()>) -> Result<()> {
        let _state = self.enter_outside("run another library")?;
        work(self.stream.cu_stream().cast())
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.arch)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // cuBLASLt frees its memory in the current context. If the context is lost, so is the memory.
        let _ = self.stream.context().bind_to_thread();
    }
}
