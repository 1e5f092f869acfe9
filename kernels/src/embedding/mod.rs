//! Rows of a table: the embedding of token ids.

mod cpu;

use crate::case::{Case, Fill, Input, Sizes};
use crate::check;
use crate::launch::{args, over};
use engine::cuda::{Grid, Module};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("embedding", include_str!("kernel.cu"));

/// Rows of the table that one task or block owns. On the CPU a task reads all tokens and adds to its own rows only, in
/// the order of the tokens; with 256 rows reading costs little compared with adding, and frequent tokens are spread
/// over the tasks.
const RANGE: usize = 256;

/// GPU warps that share the places of one id.
const WARPS: usize = 4;

/// `table [V, d], tokens i32 [B, N] → h [B, N, d]`, or without B in both.
///
/// - Formula: `h[b, n] = table[tokens[b, n]]`
/// - VJP: `d_table[v] = Σ d_h[b, n]` over the places of v, in order
/// - Source: elementary
///
/// Tokens must be in `0..V`: for others the forward pass panics on the CPU and gives NaN on a GPU. Memory-bound.
#[derive(Clone, Copy, Debug)]
pub struct Embedding;

impl Op for Embedding {
    check::names!("embedding": table, tokens);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("table", ins[0])?;
        check::rank("table", ins[0], 2)?;
        check::is("tokens", ins[1], DType::I32, ins[1].shape.dims())?;
        let tokens = ins[1].shape.dims();
        let message = || format!("tokens is {}, must have 1 or 2 dimensions", ins[1]);
        check::that(matches!(tokens.len(), 1 | 2), message)?;
        let dims = [tokens, &[ins[0].shape.last()]].concat();
        Ok(vec![Output { name: "h", spec: Spec::new(dtype, &dims) }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[1], &[])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (vocab, d) = (ins[0].shape().rows(), ins[0].shape().last());
        if let Device::Cuda(gpu) = cx.device {
            let args = args![ins[0], ins[1], &outs[0], outs[0].len(), d, vocab];
            return over(&**gpu, &outs[0], &KERNELS, "gather", args);
        }
        with_real!(ins[0].dtype(), T => {
            cpu::forward::<T>(d, ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let [d_table, ..] = d else { unreachable!("two inputs") };
        let (n, vocab, width, dtype) = (ins[1].len(), d_table.shape().rows(), d_y.shape().last(), d_y.dtype());
        if let Device::Cuda(gpu) = cx.device {
            let places = cx.scratch_at(DType::I32, n + vocab.div_ceil(RANGE) + 1);
            let starts = places.offset(n);
            let args = args![ins[1], n, RANGE, places, starts];
            gpu.launch(&KERNELS.kernel("list_places", dtype), Grid::new(vocab.div_ceil(RANGE), 1024), args);
            let wide = 16 / dtype.size();
            let pack = if width.is_multiple_of(wide) { wide } else { 1 };
            let grid = Grid::with_blocks([vocab, width.div_ceil(32 * pack), 1], 32 * WARPS as u32);
            let args = args![ins[1], places, starts, RANGE, d_y, wants[0], d_table, width];
            return gpu.launch(&KERNELS.kernel("scatter", dtype), grid.shared(4 * WARPS * pack * 32), args);
        }
        with_real!(dtype, T => {
            cpu::vjp::<T>(width, wants[0], ins[1].as_slice(), d_y.as_slice(), d_table.as_mut_slice());
        });
    }

    /// The places of all tokens, by ranges, and where each range begins.
    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        match (device, pass) {
            (Device::Cuda(_), Pass::Vjp(_)) => {
                (ins[1].shape.numel() + ins[0].shape.rows().div_ceil(RANGE) + 1) * DType::I32.size()
            }
            _ => 0,
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (d, places) = (ins[0].shape.last(), ins[1].shape.numel());
        let row = d * ins[0].dtype.size();
        let read = ins[1].bytes() + places * row;
        let (flops, table) = match pass {
            Pass::Forward => (0, places * row),
            Pass::Vjp([Want::Write, _]) => (places * d, ins[0].bytes()),
            // At least, adding touches once each row of the table that has tokens.
            Pass::Vjp([Want::Add, _]) => (places * d, 2 * places.min(ins[0].shape.rows()) * row),
            Pass::Vjp(_) | Pass::Fused(_) => return Cost::default(),
        };
        Cost { flops: flops as u64, bytes: (read + table) as u64 }
    }
}

/// One case: the decoder's input.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let table = Input::normal(&[s.vocab, s.dim()]);
    let tokens = Input::new(&[s.batch, s.tokens], Fill::Tokens { below: s.vocab });
    vec![Case::new("tokens", Embedding, vec![table, tokens])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, refuses, sizes};

    #[test]
    fn matches_the_formula() {
        // More rows than one range of the vocabulary, so that tokens cross the borders of ranges.
        let large = Sizes { vocab: 3 * RANGE + 5, tokens: 700, ..sizes()[0] };
        check_all(cases, &[large], |s, _, x| {
            let row = |&token: &f64| x[0][token as usize * s.dim()..][..s.dim()].to_vec();
            x[1].iter().flat_map(row).collect()
        });
    }

    #[test]
    fn tokens_have_one_or_two_dimensions() {
        refuses(&Embedding, "f32[7, 4] i32[6, 1, 1]", "tokens is i32[6, 1, 1], must have 1 or 2 dimensions");
        let h = Embedding.infer(&[Spec::new(DType::F32, &[7, 4]), Spec::new(DType::I32, &[6])]).unwrap();
        assert_eq!(h[0].spec, Spec::new(DType::F32, &[6, 4]));
    }
}
