//! Self-attention of one new token, for generation. A ring holds keys and values of the last tokens, so that memory
//! does not grow with the text. Step by step this equals [`SelfAttention`](crate::self_attention::SelfAttention)
//! on the whole text.
//!
//! For a window of k tokens the ring has W = max(k − 1, 1) slots, and position p uses slot p mod W. A step at position
//! p first runs [`RingAttention`], which reads the min(p, k − 1) latest slots, then [`RingWrite`].

mod cpu;

use crate::attention::scale;
use crate::case::{Case, Fill, Input, Sizes};
use crate::check;
use crate::launch::{args, elements};
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Result, Spec, Update, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("ring_attention", include_str!("kernel.cu"));

/// Threads of a block: in bf16 with heads of 64, a warp takes four entries at a time and a block 128.
const THREADS: usize = 1024;

/// Bytes of shared memory: a score per entry, and sums and a float per warp.
fn shared(window: usize, head_dim: usize) -> usize {
    (window + THREADS / 32 * (head_dim + 1)) * DType::F32.size()
}

/// The longest window that this GPU supports.
pub fn longest_window(gpu: &dyn Gpu, head_dim: usize) -> usize {
    gpu.shared_bytes().saturating_sub(shared(0, head_dim)) / DType::F32.size()
}

/// Slots of the ring for a window of this many tokens.
pub fn slots(window: usize) -> usize {
    window.saturating_sub(1).max(1)
}

/// `qkv [B, 1, 3d], ring [B, W, 2d], position i32[1] → y [B, 1, d]`: queries and keys are already rotated.
///
/// - Formula: for each head `p_j = softmax_j(q·k_j / √D)`, `y = Σ_j p_j v_j` over the token and the slots that it sees
/// - VJP: none, for generation only
/// - Source: Vaswani et al., arXiv 1706.03762
/// - Check: against window attention over the whole text
#[derive(Clone, Copy, Debug)]
pub struct RingAttention {
    /// Heads H; D = d/H.
    pub heads: usize,
    /// Number k of tokens that a token sees, including itself.
    pub window: usize,
}

impl Op for RingAttention {
    check::names!("ring_attention": qkv, ring, position);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("qkv", ins[0])?;
        check::rank("qkv", ins[0], 3)?;
        let d = check::heads("qkv", ins[0], 3 * self.heads)? * self.heads;
        check::that(self.window > 0, || "a window of 0 tokens sees nothing, must be at least 1".into())?;
        let batch = ins[0].shape.dims()[0];
        check::is("qkv", ins[0], dtype, &[batch, 1, 3 * d])?;
        check::is("ring", ins[1], dtype, &[batch, slots(self.window), 2 * d])?;
        check::is("position", ins[2], DType::I32, &[1])?;
        Ok(vec![Output { name: "y", spec: Spec::new(dtype, &[batch, 1, d]) }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        false
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let Self { heads, window } = *self;
        let (head_dim, slots) = (outs[0].shape().last() / heads, slots(window));
        if let Device::Cuda(gpu) = cx.device {
            let (samples, scale) = (ins[1].shape().dims()[0], Arg::F32(scale(head_dim)));
            let grid = Grid::with_blocks([heads, samples, 1], THREADS as u32).shared(shared(window, head_dim));
            let args = args![ins[0], ins[1], ins[2], &outs[0], heads, head_dim, window, slots, scale];
            return gpu.launch(&KERNELS.kernel("attend", ins[0].dtype()), grid, args);
        }
        let position = position(ins[2]);
        let shape = cpu::Shape { heads, head_dim, slots, position, seen: position.min(window - 1) };
        with_real!(ins[0].dtype(), T => {
            cpu::forward::<T>(shape, ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(&self, _: &mut Context, _: &[Want], _: &[&Buffer], _: &[&Buffer], _: &Buffer, _: &mut [Buffer]) {}

    /// For a full ring: per head and key 4·D, an exponential and 4 more. Memory-bound: the ring is read once.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let [qkv, ring, position] = ins else { unreachable!("three inputs") };
        let (batch, numbers) = (qkv.shape.dims()[0], qkv.shape.last() / 3);
        let seen = (self.window - 1) * batch * 2 * numbers * ring.dtype.size();
        match pass {
            Pass::Forward => Cost {
                flops: (batch * self.window * (4 * numbers + 5 * self.heads)) as u64,
                bytes: (seen + qkv.bytes() * 4 / 3 + position.bytes()) as u64,
            },
            Pass::Vjp(_) | Pass::Fused(_) => Cost::default(),
        }
    }
}

/// `qkv [B, 1, 3d], position i32[1]`; state `ring [B, W, 2d]`: keys and values of the token go into the slot of its
/// position.
///
/// - Formula: `ring[b, position mod W] = (k_b, v_b)`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct RingWrite;

impl Update for RingWrite {
    fn name(&self) -> &'static str {
        "ring_write"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        let &[batch, slots, width] = state[0].shape().dims() else { unreachable!("three dimensions") };
        let d = width / 2;
        if let Device::Cuda(gpu) = cx.device {
            let (n, dtype) = (batch * width, ins[0].dtype());
            let args = args![ins[0], ins[1], &state[0], n, d, slots];
            return gpu.launch(&KERNELS.kernel("keep", dtype), elements(n, dtype), args);
        }
        let slot = position(ins[1]) % slots;
        with_real!(ins[0].dtype(), T => {
            cpu::write::<T>(slot, d, slots, ins[0].as_slice(), state[0].as_mut_slice());
        })
    }

    fn cost(&self, ins: &[Spec], _state: &[Spec]) -> Cost {
        Cost { flops: 0, bytes: (ins[0].bytes() * 4 / 3 + ins[1].bytes()) as u64 }
    }
}

/// Positions count from zero.
fn position(buffer: &Buffer) -> usize {
    let position = buffer.as_slice::<i32>()[0];
    usize::try_from(position).unwrap_or_else(|_| panic!("position {position} is negative"))
}

/// A step in the ring's first round, before it is full, and one in a later round.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let case = |label: &str, below| {
        let ins = vec![
            Input::normal(&[s.batch, 1, 3 * s.dim()]),
            Input::normal(&[s.batch, slots(s.window), 2 * s.dim()]),
            Input::new(&[1], Fill::Integers { below }),
        ];
        Case::new(label, RingAttention { heads: s.heads, window: s.window }, ins)
    };
    vec![case("first round", s.window), case("later round", 100 * s.window)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::self_attention::{Sees, SelfAttention};
    use crate::testing::{apply, distance, forward, normal, refuses};
    use engine::eager::garbage;

    /// Compares step-by-step attention, with NaN in unwritten slots, with attention on the whole text.
    #[test]
    fn steps_are_window_attention() {
        let (batch, heads, head_dim, tokens) = (2, 3, 10, 23);
        let d = heads * head_dim;
        for window in [1, 2, 3, 7, 20, 22, 23, 24, 40] {
            let qkv = normal(DType::F64, &[batch, tokens, 3 * d], 0);
            let expected = forward(&SelfAttention { heads, sees: Sees::Window(window) }, &[&qkv]).remove(0).to_f64();
            let op = RingAttention { heads, window };
            let mut ring = [garbage(&Device::CPU, Spec::new(DType::F64, &[batch, slots(window), 2 * d]))];
            for token in 0..tokens {
                let rows: Vec<f64> =
                    qkv.to_f64().chunks(tokens * 3 * d).flat_map(|x| x[token * 3 * d..][..3 * d].to_vec()).collect();
                let qkv = Buffer::from_slice(&[batch, 1, 3 * d], &rows);
                let position = Buffer::from_slice(&[1], &[token as i32]);
                let y = forward(&op, &[&qkv, &ring[0], &position]).remove(0).to_f64();
                for (y, expected) in y.chunks(d).zip(expected.chunks(tokens * d)) {
                    let error = distance(y, &expected[token * d..][..d]);
                    assert!(error < 1e-13, "window {window}, token {token}: {error:e}");
                }
                apply(&RingWrite, &[&qkv, &position], &mut ring);
            }
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let op = |window| RingAttention { heads: 2, window };
        refuses(&op(4), "f32[1, 1, 12] f32[1, 4, 8] i32[1]", "ring is f32[1, 4, 8], must be f32[1, 3, 8]");
        refuses(&op(1), "f32[1, 1, 12] f32[1, 4, 8] i32[1]", "ring is f32[1, 4, 8], must be f32[1, 1, 8]");
        refuses(&op(4), "f32[1, 2, 12] f32[1, 3, 8] i32[1]", "qkv is f32[1, 2, 12], must be f32[1, 1, 12]");
        let nothing = "a window of 0 tokens sees nothing, must be at least 1";
        refuses(&op(0), "f32[1, 1, 12] f32[1, 3, 8] i32[1]", nothing);
    }
}
