//! Launches of `kernel.cu`.

use crate::attention;
use crate::launch::{args, elements};
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, DType};

pub static KERNELS: Module = Module::new("ring_attention", include_str!("kernel.cu"));

/// Threads of a block: in bf16 with heads of 64, a warp takes four entries at a time and a block 128.
const THREADS: usize = 1024;

/// Bytes of shared memory: of each entry its score, and of each warp its sums and a float.
fn shared(window: usize, head_dim: usize) -> usize {
    (window + THREADS / 32 * (head_dim + 1)) * DType::F32.size()
}

/// The longest window that [`forward`] can serve on this GPU.
pub fn longest_window(gpu: &dyn Gpu, head_dim: usize) -> usize {
    gpu.shared_bytes().saturating_sub(shared(0, head_dim)) / DType::F32.size()
}

pub fn forward(gpu: &dyn Gpu, heads: usize, window: usize, [qkv, ring, position]: [&Buffer; 3], y: &Buffer) {
    let (samples, slots) = (ring.shape().dims()[0], ring.shape().dims()[1]);
    let head_dim = y.shape().last() / heads;
    let scale = Arg::F32(attention::scale(head_dim) as f32);
    gpu.launch(
        &KERNELS.kernel("attend", qkv.dtype()),
        Grid::with_blocks([heads, samples, 1], THREADS as u32).shared(shared(window, head_dim)),
        args![qkv, ring, position, y, heads, head_dim, window, slots, scale],
    );
}

pub fn write(gpu: &dyn Gpu, qkv: &Buffer, position: &Buffer, ring: &Buffer) {
    let d = ring.shape().last() / 2;
    let n = ring.shape().dims()[0] * 2 * d;
    let args = args![qkv, position, ring, n, d, ring.shape().dims()[1]];
    gpu.launch(&KERNELS.kernel("keep", qkv.dtype()), elements(n, qkv.dtype()), args);
}
