//! CUDA: how ops launch their kernels, and the driver.
//!
//! # How to write an op's kernels
//!
//! Put the kernels into `kernel.cu` in the op's folder (its room). The op's `mod.rs` launches them if `cx.device` is
//! [`Device::Cuda`](crate::Device). Launch code that several passes share goes into `cuda.rs`. Follow the example of
//! `rmsnorm`.
//!
//! ```text
//! kernel.cu   #include "common.cuh"
//!             extern "C" __global__ void scale(const T* x, float by, T* y, int n) {
//!                 int i = blockIdx.x * blockDim.x + threadIdx.x;
//!                 if (i < n) store(y + i, by * load(x + i));
//!             }
//! mod.rs      pub(crate) static KERNELS: Module = Module::new("scale", include_str!("kernel.cu"));
//!             let kernel = KERNELS.kernel("scale", x.dtype());
//!             gpu.launch(&kernel, Grid::covering(n, 256), &[x.into(), Arg::F32(2.0), y.into(), n.into()]);
//! registry    cuda: &[&scale::KERNELS]
//! ```
//!
//! * A file is compiled once per storage type, which it calls `T` (`float` or `bf16`), and once per value of `SIZE` if the
//!   module lists [`sizes`](Module::sizes). Statistics, sums and registers are `float`; `load` and `store` convert. Entry
//!   points are plain functions, declared on one line up to the opening parenthesis as above, without templates or macros,
//!   because their names are read from the text.
//! * Arguments have exactly the types that the kernel declares: a pointer for a buffer (null for an empty one, such as a
//!   gradient that is not wanted), `int` for a size and [`Want`](crate::Want), `float` for [`Arg::F32`].
//! * Values that change from step to step (clock, learning rate, tokens) are read from device memory. A phase that runs
//!   repeatedly is captured: its launches are repeated with the arguments of the capture, and it reads nothing back.
//! * Dynamic shared memory is declared by `SHARED(float, name)` and sized by [`Grid::shared`]. It starts as garbage, like all
//!   memory here. Every thread of a block reaches every barrier, so no thread returns before one.
//! * Kernels use no float atomics and leave no order of summation to the hardware, so every run gives the same bits.
//!   Partial sums go to scratch memory ([`Context::scratch_at`](crate::Context::scratch_at)), and a second kernel adds
//!   them in their order.
//! * `common.cuh` has conversions, packs of 16 bytes, warp and block reductions and `add_or_write`. `noise.cuh` has the
//!   random numbers of [`rng`](crate::rng), bit by bit. `ptx.cuh` wraps instructions that C++ cannot express: ldmatrix,
//!   mma, cp.async. The host shim of the tests has its own `ptx.cuh`, so no other file holds inline PTX.
//! * [`Gpu::product`] computes matrix products, so an op needs no kernel for them.
//! * `cargo test -p tests --test cuda_rooms` runs the kernels of every registered op on the CPU. [`compile_file`]
//!   compiles them for a GPU and reports register spills.
//!
//! # Types
//!
//! Tensors are stored as f32 or bf16, and all arithmetic is f32. Parameters, their moments, and statistics (`rstd`,
//! `lse`, losses) stay in f32. A graph in bf16 has a `cast` after every such leaf, whose backward pass turns a bf16
//! gradient into the f32 of the optimiser. So all inputs of an op have one float type, with statistics in f32, as on
//! the CPU.
//!
//! # What a machine needs
//!
//! [`Device::open`](crate::Device::open) takes the first GPU that the driver lists, or the one with a number. All libraries
//! are loaded at run time, so one program runs on machines with and without a GPU: the driver (CUDA 12.4 or later), NVRTC
//! to compile the kernels, whose code is cached, and cuBLASLt for products. A file of compiled kernels, made by
//! [`compile_file`] on any machine, replaces NVRTC. Without cuBLASLt, products use the slow kernel [`PRODUCT`]. Several
//! processes need NCCL 2.14 or later ([`Gpus`]). [`Settings`] names the places of libraries and files, and
//! [`probe`](crate::probe::probe) reports what a machine has.

mod arch;
mod blas;
mod bundle;
mod capture;
mod compile;
mod driver;
mod gpus;
mod kernels;
mod launch;
pub(crate) mod libraries;
mod nccl;
pub(crate) mod open;
mod product;

pub use arch::Arch;
pub(crate) use blas::version;
pub use gpus::{EXCHANGE, Gpus};
pub(crate) use kernels::describe_file;
pub use kernels::{Compiled, compile_file};
pub use launch::{Arg, Grid, Kernel, Module, Pointer, Variant};
pub use libraries::Settings;
pub use product::{Factor, PRODUCT, Product};

use crate::{Error, Result};
use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::OnceLock;

/// The headers that kernels may include: name and text.
pub const HEADERS: [(&str, &str); 3] = [
    ("common.cuh", include_str!("common.cuh")),
    ("noise.cuh", include_str!("noise.cuh")),
    ("ptx.cuh", include_str!("ptx.cuh")),
];

/// A GPU: memory, launches and products, in one order on one stream. NVIDIA's driver implements it, and in tests a
/// simulated GPU on the CPU.
///
/// Ops call [`launch`](Self::launch) and [`product`](Self::product); [`Buffer`](crate::Buffer) and the runner call the
/// rest. Addresses are the device's, so nothing here can touch Rust's memory. A kernel that writes outside its buffers
/// damages other buffers of the device; the shim's tests look for that.
///
/// A GPU that fails (lost, or stopped by a kernel) keeps its first error. From then on it does nothing, and
/// [`alloc`](Self::alloc), [`read`](Self::read) and [`finish`](Self::finish) return that error. A wrong call is a bug and
/// panics.
pub trait Gpu: Send + Sync + Debug {
    /// The device's name, e.g. `NVIDIA H200`.
    fn name(&self) -> &str;

    /// `bytes` zeros at a new address, which is a multiple of 256.
    ///
    /// # Errors
    /// If the device lacks the memory, or has failed.
    fn alloc(&self, bytes: usize) -> Result<u64>;

    /// Frees memory after everything that was launched before.
    fn free(&self, address: u64);

    /// Bytes that are free now; none if the device has failed.
    fn free_bytes(&self) -> usize;

    /// The most shared memory of a block, in bytes.
    fn shared_bytes(&self) -> usize;

    /// Copies from the host.
    fn write(&self, to: u64, from: &[u8]);

    /// Copies to the host, after all work launched before. An error if the device has failed at any earlier time.
    fn read(&self, from: u64, to: &mut [u8]) -> Result<()>;

    /// Copies on the device.
    fn copy(&self, from: u64, to: u64, bytes: usize);

    /// Sets bytes to zero.
    fn clear(&self, at: u64, bytes: usize);

    /// Makes the kernels of these modules ready to launch, for both storage types.
    ///
    /// # Errors
    /// If they are not compiled and cannot be compiled.
    fn load(&self, modules: &[&'static Module]) -> Result<()>;

    /// Launches a kernel. A grid without blocks does nothing.
    ///
    /// # Panics
    /// If the module is not loaded or has no such kernel, or if the kernel has other parameters.
    fn launch(&self, kernel: &Kernel, grid: Grid, args: &[Arg]);

    /// Launches a matrix product.
    fn product(&self, product: &Product);

    /// The versions of what the bits of its results depend on, besides the kernels' sources.
    fn software(&self) -> Software;

    /// Whether to record work that is repeated; if not, it is launched anew each time.
    fn captures(&self) -> bool;

    /// Starts a recording: launches, products, copies on the device and clears are recorded instead of run. Only one
    /// recording can be open.
    fn begin_capture(&self);

    /// Ends the recording, which can then be run any number of times.
    fn end_capture(&self) -> Box<dyn Captured>;

    /// Waits for all launched work. An error as in [`read`](Self::read).
    fn finish(&self) -> Result<()>;

    /// Whether all launched work is done. An error as in [`read`](Self::read).
    fn is_done(&self) -> Result<bool> {
        self.finish().map(|()| true)
    }

    /// Lets another library launch work: `work` gets the handle of the stream, and the device's context is current.
    ///
    /// # Errors
    /// Those of `work`, and if the device has failed or has no stream of CUDA.
    fn with_stream(&self, _work: &mut dyn FnMut(*mut c_void) -> Result<()>) -> Result<()> {
        Err(Error::device(format!("{} has no stream of CUDA", self.name())))
    }
}

/// The software of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Software {
    /// The driver, with the version of CUDA that it supports.
    pub driver: String,
    /// What computes matrix products.
    pub products: String,
    /// What compiled the kernels; for a file of compiled kernels the hash of those in use.
    pub compiler: String,
}

/// A recorded sequence of work on a device. It holds addresses, so the memory must stay where it is.
pub trait Captured: Send + Sync + Debug {
    /// Runs it.
    fn launch(&self);
}

/// The first failure of a GPU.
#[derive(Debug, Default)]
pub struct Failure(OnceLock<Error>);

impl Failure {
    /// Returns a value, or the first failure of the device. If there was none before, an error becomes the first
    /// failure.
    pub fn keep<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| self.0.get_or_init(|| e).clone())
    }

    /// Whether the GPU works; if not, the first failure.
    pub fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |e| Err(e.clone()))
    }
}
