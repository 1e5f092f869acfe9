//! Rows of a table: the embedding of token ids, and sums of rows by number.

mod cpu;

use crate::case::{Case, Fill, Input, Sizes};
use crate::check;
use crate::lanes::split;
use crate::launch::{args, over};
use engine::cuda::{Grid, Module};
use engine::{Buffer, Context, Cost, DType, Device, Error, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("embedding", include_str!("kernel.cu"));

/// Rows of a table whose sums a GPU's blocks compute from one list of places.
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
        check::that(ins[0].shape.last() > 0, || format!("table is {}, must have rows of at least one number", ins[0]))?;
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
        gather(cx, Want::Write, ins[0], ins[1], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        scatter(cx, wants[0], ins[1], d_y, &mut d[0]);
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        if let Pass::Vjp(_) = pass {
            lists(device, ins[1].shape.numel(), ins[0].shape.rows()) * DType::I32.size()
        } else {
            0
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (places, d) = (ins[1].shape.numel(), ins[0].shape.last());
        let rows = Spec::new(ins[0].dtype, &[places, d]);
        match pass {
            Pass::Forward => gathering(Want::Write, rows),
            Pass::Vjp(wants) => scattering(wants[0], rows, ins[0]),
            Pass::Fused(_) => Cost::default(),
        }
    }
}

/// `x [.., d], rows_of i32 [..] → y [rows, d]`. Memory-bound.
///
/// - Formula: `y[r] = Σ x[i]` over the places i with `rows_of[i] = r`, in order
/// - VJP: `d_x[i] = d_y[rows_of[i]]`
/// - Source: elementary
///
/// The numbers must be in `0..rows`: for others the forward pass panics on the CPU, and a GPU leaves them out.
#[derive(Clone, Copy, Debug)]
pub struct ScatterAdd {
    /// Rows of the result.
    pub rows: usize,
}

impl Op for ScatterAdd {
    check::names!("scatter_add": x, rows_of);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("x", ins[0])?;
        let Some((&d, places)) = ins[0].shape.dims().split_last() else {
            return Err(Error::usage(format!("x is {}, must have rows", ins[0])));
        };
        check::that(d > 0, || format!("x is {}, must have rows of at least one number", ins[0]))?;
        check::is("rows_of", ins[1], DType::I32, places)?;
        Ok(vec![Output { name: "y", spec: Spec::new(dtype, &[self.rows, d]) }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[1], &[])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        scatter(cx, Want::Write, ins[1], ins[0], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        gather(cx, wants[0], d_y, ins[1], &mut d[0]);
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        if let Pass::Forward = pass { lists(device, ins[1].shape.numel(), self.rows) * DType::I32.size() } else { 0 }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        match pass {
            Pass::Forward => {
                scattering(Want::Write, ins[0], Spec::new(ins[0].dtype, &[self.rows, ins[0].shape.last()]))
            }
            Pass::Vjp(wants) => gathering(wants[0], ins[0]),
            Pass::Fused(_) => Cost::default(),
        }
    }
}

/// Row `numbers[i]` of the table becomes row i, or is added to it.
fn gather(cx: &Context, want: Want, table: &Buffer, numbers: &Buffer, rows: &mut Buffer) {
    let (vocab, d) = (table.shape().rows(), table.shape().last());
    if let Device::Cuda(gpu) = cx.device {
        let args = args![table, numbers, want, &*rows, rows.len(), d, vocab];
        return over(&**gpu, rows, &KERNELS, "gather", args);
    }
    with_real!(table.dtype(), T => {
        cpu::gather::<T>(d, want, table.as_slice(), numbers.as_slice(), rows.as_mut_slice());
    })
}

/// Row r of the table becomes the sum of the rows with number r, in order, or the sum is added to it.
fn scatter(cx: &mut Context, want: Want, numbers: &Buffer, rows: &Buffer, table: &mut Buffer) {
    let (n, vocab, d, dtype) = (numbers.len(), table.shape().rows(), table.shape().last(), table.dtype());
    if let Device::Cuda(gpu) = cx.device {
        let places = cx.scratch_at(DType::I32, lists(cx.device, n, vocab));
        let starts = places.offset(n);
        let args = args![numbers, n, RANGE, places, starts];
        gpu.launch(&KERNELS.kernel("list_places", dtype), Grid::new(vocab.div_ceil(RANGE), 1024), args);
        let wide = 16 / dtype.size();
        let pack = if d.is_multiple_of(wide) { wide } else { 1 };
        let grid = Grid::with_blocks([vocab, d.div_ceil(32 * pack), 1], 32 * WARPS as u32);
        let args = args![numbers, places, starts, RANGE, rows, want, table, d];
        return gpu.launch(&KERNELS.kernel("scatter", dtype), grid.shared(4 * WARPS * pack * 32), args);
    }
    let [places, ends] = split(cx.scratch(lists(cx.device, n, vocab)), [n, vocab]);
    cpu::list_places(numbers.as_slice(), places, ends);
    with_real!(dtype, T => cpu::scatter::<T>(d, want, places, ends, rows.as_slice(), table.as_mut_slice()));
}

/// Integers of scratch memory of [`scatter`]: the places of all numbers, sorted, and the borders between numbers on the CPU,
/// between ranges on a GPU.
fn lists(device: &Device, places: usize, vocab: usize) -> usize {
    match device {
        Device::Cpu(_) => places + vocab,
        Device::Cuda(_) => places + vocab.div_ceil(RANGE) + 1,
    }
}

/// The cost of [`gather`].
fn gathering(want: Want, rows: Spec) -> Cost {
    let [numbers, bytes] = sizes(rows);
    match want {
        Want::Skip => Cost::default(),
        Want::Write => Cost { flops: 0, bytes: numbers + 2 * bytes },
        Want::Add => Cost { flops: rows.shape.numel() as u64, bytes: numbers + 3 * bytes },
    }
}

/// The cost of [`scatter`].
fn scattering(want: Want, rows: Spec, table: Spec) -> Cost {
    let [numbers, bytes] = sizes(rows);
    let written = match want {
        Want::Skip => return Cost::default(),
        Want::Write => table.bytes() as u64,
        // At least, adding touches once each row of the table that has places.
        Want::Add => 2 * bytes.min(table.bytes() as u64),
    };
    Cost { flops: rows.shape.numel() as u64, bytes: numbers + bytes + written }
}

/// Bytes of the rows' numbers and of the rows.
fn sizes(rows: Spec) -> [u64; 2] {
    [rows.shape.rows() * DType::I32.size(), rows.bytes()].map(|bytes| bytes as u64)
}

/// The decoder's input, and sums of hidden states by token.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let table = Input::normal(&[s.vocab, s.dim()]);
    let hidden = Input::normal(&[s.batch, s.tokens, s.dim()]);
    let tokens = || Input::new(&[s.batch, s.tokens], Fill::Integers { below: s.vocab });
    vec![
        Case::new("tokens", Embedding, vec![table, tokens()]),
        Case::new("sums by token", ScatterAdd { rows: s.vocab }, vec![hidden, tokens()]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, forward, refuses, sizes};

    #[test]
    fn matches_the_formula() {
        // More rows than a GPU's range or a task has.
        let large = Sizes { vocab: 3 * RANGE + 5, tokens: 700, ..sizes()[0] };
        check_all(cases, &[large], |s, number, x| {
            let d = s.dim();
            if number == 0 {
                return x[1].iter().flat_map(|&token| x[0][token as usize * d..][..d].to_vec()).collect();
            }
            let sum = |r: usize, j: usize| {
                let rows = x[1].iter().zip(x[0].chunks(d)).filter(|(token, _)| **token == r as f64);
                rows.map(|(_, row)| row[j]).sum::<f64>()
            };
            (0..s.vocab * d).map(|i| sum(i / d, i % d)).collect()
        });
    }

    /// Rows are added in order, which rounding shows.
    #[test]
    fn sums_are_in_order() {
        let x = Buffer::from_slice(&[5, 1], &[1e8f32, 1.0, -1e8, 7.0, 1.0]);
        let rows_of = Buffer::from_slice(&[5], &[300, 300, 300, 0, 300]);
        let y = forward(&ScatterAdd { rows: 301 }, &[x, rows_of]);
        assert_eq!((y[0].as_slice::<f32>()[0], y[0].as_slice::<f32>()[300]), (7.0, 1.0));
        assert_eq!(y[0].as_slice::<f32>().iter().filter(|&&y| y != 0.0).count(), 2);
    }

    #[test]
    #[should_panic(expected = "row -1 is not among 0..4")]
    fn numbers_must_be_rows() {
        forward(&ScatterAdd { rows: 4 }, &[Buffer::from_slice(&[1, 1], &[1.0f32]), Buffer::from_slice(&[1], &[-1])]);
    }

    #[test]
    fn tokens_have_one_or_two_dimensions() {
        refuses(&Embedding, "f32[7, 4] i32[6, 1, 1]", "tokens is i32[6, 1, 1], must have 1 or 2 dimensions");
        refuses(&ScatterAdd { rows: 3 }, "f32[]  i32[]", "x is f32[], must have rows");
        refuses(&ScatterAdd { rows: 3 }, "f32[7, 4] i32[6]", "rows_of is i32[6], must be i32[7]");
        let h = Embedding.infer(&[Spec::new(DType::F32, &[7, 4]), Spec::new(DType::I32, &[6])]).unwrap();
        assert_eq!(h[0].spec, Spec::new(DType::F32, &[6, 4]));
    }
}
