//! Products of two tensors, many at a time.

use super::Stored::{Plain, Transposed};
use super::gemm::gemm;
use super::mat::MatMut;
use super::{Stored, bf16, on_gpu, rounds, view};
use crate::case::{Case, Input, Sizes};
use crate::{check, cost};
use engine::cuda::{Pointer, Product};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, parallel, with_real};
use std::ops::Range;

/// `a [.., m, k], b [.., k, n] → y [.., m, n]`: a product for every index of the leading axes, which `a` and `b` share; or `b`
/// has two dimensions only, and every product takes the same `b`. A factor that is stored transposed has its last two sizes
/// exchanged: `a [.., k, m]`, `b [.., n, k]`.
///
/// - Formula: `y = a·b`
/// - VJP: `d_a = d_y·bᵀ`, `d_b = aᵀ·d_y`, transposed as they are stored; a `b` of all products gets the sum
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct MatMul {
    /// How `a` is stored.
    pub a: Stored,
    /// How `b` is stored.
    pub b: Stored,
}

impl Op for MatMul {
    check::names!("matmul": a, b);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let (a, b) = (ins[0], ins[1]);
        let dtype = check::real("a", a)?;
        check::that(a.shape.rank() >= 2, || format!("a is {a}, must have at least 2 dimensions"))?;
        let rank = a.shape.rank();
        check::that(b.shape.rank() == 2 || b.shape.rank() == rank, || {
            format!("b is {b}, must have {} dimensions", if rank > 2 { format!("2 or {rank}") } else { "2".into() })
        })?;
        let ([m, k], [_, n]) = (self.a.sizes(a), self.b.sizes(b));
        let leading = &a.shape.dims()[..b.shape.rank() - 2];
        check::is("b", b, dtype, &[leading, &self.b.order([k, n])].concat())?;
        let dims = [&a.shape.dims()[..rank - 2], &[m, n]].concat();
        Ok(vec![Output { name: "y", spec: Spec::new(dtype, &dims) }])
    }

    /// The gradient of each factor needs the other factor.
    fn reads(&self, wants: &[Want]) -> Reads {
        Reads { ins: u16::from(wants[1].is_wanted()) | u16::from(wants[0].is_wanted()) << 1, outs: 0 }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let all = self.all(ins[0].spec(), ins[1].spec());
        multiply(cx, all.forward(), 0..all.count, [ins[0], ins[1], ins[1]], Want::Write, &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let spec = |i: usize, of: &Buffer| if wants[1 - i].is_wanted() { ins[i].spec() } else { of.spec() };
        // A factor that is not read has the sizes of its gradient.
        let all = self.all(spec(0, &d[0]), spec(1, &d[1]));
        let tensors = [ins[0], ins[1], d_y];
        if wants[0].is_wanted() {
            multiply(cx, all.d_a(), 0..all.count, tensors, wants[0], &mut d[0]);
        }
        match wants[1] {
            Want::Skip => {}
            // The sum over all products, in their order.
            want if all.is_b_shared => {
                for i in 0..all.count {
                    let want = if i == 0 { want } else { Want::Add };
                    multiply(cx, all.d_b(), i..i + 1, tensors, want, &mut d[1]);
                }
            }
            want => multiply(cx, all.d_b(), 0..all.count, tensors, want, &mut d[1]),
        }
    }

    /// For products that round: their right factors.
    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        if !rounds(device, ins[0].dtype) {
            return 0;
        }
        let all = self.all(ins[0], ins[1]);
        let packed = |wanted, products: Products| if wanted { products.packed(all.count) } else { 0 };
        let elements = match pass {
            Pass::Forward => packed(true, all.forward()),
            _ => packed(pass.gives(0), all.d_a()).max(packed(pass.gives(1), all.d_b())),
        };
        elements * DType::Bf16.size()
    }

    /// As many multiply-adds for every gradient as for the result.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let All { count, sizes: [m, n, k], .. } = self.all(ins[0], ins[1]);
        let flops = 2 * count * m * n * k;
        cost::of(self, ins, pass, flops, &[flops, flops])
    }
}

impl MatMul {
    fn all(self, a: Spec, b: Spec) -> All {
        let ([m, k], [_, n]) = (self.a.sizes(a), self.b.sizes(b));
        let count = a.shape.dims()[..a.shape.rank() - 2].iter().product();
        let is_b_shared = b.shape.rank() < a.shape.rank();
        let all = All { op: self, count, sizes: [m, n, k], is_b_shared };
        // All rows of a plain a, or none at all, make one product.
        let is_one = is_b_shared && (self.a == Plain || count == 0);
        if is_one { All { count: 1, sizes: [count * m, n, k], is_b_shared: false, ..all } } else { all }
    }
}

/// All products of an op.
#[derive(Clone, Copy)]
struct All {
    op: MatMul,
    count: usize,
    /// m, n and k.
    sizes: [usize; 3],
    is_b_shared: bool,
}

/// The tensors that are factors of a pass.
#[derive(Clone, Copy, PartialEq)]
enum Tensor {
    A,
    B,
    DY,
}

/// The products of a pass: [rows, inner] · [inner, cols].
#[derive(Clone, Copy)]
struct Products {
    /// Rows, cols and inner.
    sizes: [usize; 3],
    factors: [(Stored, Tensor); 2],
    /// Which of the factors all products share.
    shared: [bool; 2],
}

impl All {
    fn products(self, sizes: [usize; 3], factors: [(Stored, Tensor); 2]) -> Products {
        Products { sizes, factors, shared: factors.map(|(_, tensor)| self.is_b_shared && tensor == Tensor::B) }
    }

    /// y = a·b
    fn forward(self) -> Products {
        self.products(self.sizes, [(self.op.a, Tensor::A), (self.op.b, Tensor::B)])
    }

    /// d_a = d_y·bᵀ, or its transpose b·d_yᵀ.
    fn d_a(self) -> Products {
        let [m, n, k] = self.sizes;
        match self.op.a {
            Plain => self.products([m, k, n], [(Plain, Tensor::DY), (self.op.b.turned(), Tensor::B)]),
            Transposed => self.products([k, m, n], [(self.op.b, Tensor::B), (Transposed, Tensor::DY)]),
        }
    }

    /// d_b = aᵀ·d_y, or its transpose d_yᵀ·a.
    fn d_b(self) -> Products {
        let [m, n, k] = self.sizes;
        match self.op.b {
            Plain => self.products([k, n, m], [(self.op.a.turned(), Tensor::A), (Plain, Tensor::DY)]),
            Transposed => self.products([n, k, m], [(Transposed, Tensor::DY), (self.op.a, Tensor::A)]),
        }
    }
}

impl Products {
    /// Elements of a matrix of each factor.
    fn lengths(self) -> [usize; 2] {
        let [rows, cols, inner] = self.sizes;
        [rows * inner, inner * cols]
    }

    /// Elements of the packed right factors of this many products.
    fn packed(self, count: usize) -> usize {
        let [_, cols, inner] = self.sizes;
        bf16::packed_len(inner, cols) * if self.shared[1] { 1 } else { count }
    }
}

/// The products number `which`, one after the other in `out`, or added to it. `tensors` are a, b and d_y.
fn multiply(cx: &mut Context, p: Products, which: Range<usize>, tensors: [&Buffer; 3], want: Want, out: &mut Buffer) {
    let ([rows, cols, inner], lengths) = (p.sizes, p.lengths());
    let [a, b] = p.factors.map(|(stored, tensor)| (stored, tensors[tensor as usize]));
    // The first element of a factor of product i.
    let start = |side: usize, i: usize| if p.shared[side] { 0 } else { i * lengths[side] };
    if let Device::Cuda(gpu) = cx.device {
        let factor = |side, (stored, x)| on_gpu(stored, Pointer::from(x).offset(start(side, which.start)));
        let (count, out) = (which.len(), Pointer::from(out));
        let c = (want == Want::Add).then_some(out);
        let (a, b) = (factor(0, a), factor(1, b));
        return gpu.product(&Product { count, shared: p.shared, rows, cols, inner, a, b, c, out });
    }
    if out.is_empty() {
        return;
    }
    let rounded = inner > 0 && rounds(cx.device, out.dtype());
    with_real!(out.dtype(), T => {
        let [x, y] = [a.1, b.1].map(Buffer::as_slice::<T>);
        let left = |i| view(a.0, &x[start(0, i)..][..lengths[0]], rows, inner);
        let right = |i| view(b.0, &y[start(1, i)..][..lengths[1]], inner, cols);
        let out = out.as_mut_slice::<T>();
        if rounded {
            let length = bf16::packed_len(inner, cols);
            let packed = cx.scratch(p.packed(which.len()));
            parallel::chunks(packed, length, |i, packed| bf16::pack(right(which.start + i), packed));
            for_each(out, rows * cols, |i, out| {
                let packed = &packed[if p.shared[1] { 0 } else { i * length }..][..length];
                bf16::product(MatMut::new(out, rows, cols), left(which.start + i), packed, want);
            });
        } else {
            for_each(out, rows * cols, |i, out| {
                let i = which.start + i;
                gemm(MatMut::new(out, rows, cols), left(i), right(i), want);
            });
        }
    });
}

/// Calls `f(i, matrix)` for the matrices of `size` elements in `out`. Threads share the matrices out, and also single products
/// if that would leave some of them idle.
fn for_each<T: Send>(out: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    let (count, threads) = (out.len() / size, parallel::threads());
    let even = count >= 4 * threads || count.is_multiple_of(threads);
    parallel::chunks(out, size, |i, out| if even { parallel::alone(|| f(i, out)) } else { f(i, out) });
}

/// Every combination of transpositions, with a `b` for each product and with one for all.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let (d, rows, heads) = (s.dim(), s.tokens, [s.batch, s.heads]);
    let case = |label, [a, b]: [Stored; 2], dims: [&[usize]; 2]| {
        Case::new(label, MatMul { a, b }, dims.map(Input::normal).to_vec())
    };
    let of_heads = |rows: usize, cols: usize| [&heads[..], &[rows, cols]].concat();
    let (queries, scores) = (of_heads(rows, s.head_dim), of_heads(rows, s.window));
    let (keys, values) = (of_heads(s.window, s.head_dim), of_heads(s.window, s.head_dim));
    let (turned, hidden) = ([s.batch, d, rows], [s.batch, rows, s.ffn]);
    vec![
        case("a·bᵀ", [Plain, Transposed], [&queries, &keys]),
        case("a·b", [Plain, Plain], [&scores, &values]),
        case("aᵀ·b", [Transposed, Plain], [&[s.batch, rows, d], &hidden]),
        case("aᵀ·bᵀ", [Transposed, Transposed], [&turned, &[s.batch, s.ffn, d]]),
        case("a·b, one b", [Plain, Plain], [&hidden, &[s.ffn, d]]),
        case("aᵀ·bᵀ, one b", [Transposed, Transposed], [&turned, &[s.ffn, d]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_all, refuses};

    /// The definition, one number at a time.
    fn formula([a, b]: [Stored; 2], dims: [&[usize]; 2], ins: &[Vec<f64>]) -> Vec<f64> {
        let ([m, k], [_, n]) = (a.sizes(Spec::new(DType::F64, dims[0])), b.sizes(Spec::new(DType::F64, dims[1])));
        let (count, shared) = (ins[0].len() / (m * k), dims[1].len() < dims[0].len());
        let at = |stored, x: &[f64], [rows, cols]: [usize; 2], i, j| match stored {
            Plain => x[i * cols + j],
            Transposed => x[j * rows + i],
        };
        let element = |at_y: usize| {
            let (number, i, j) = (at_y / (m * n), at_y / n % m, at_y % n);
            let (x, y) = (&ins[0][number * m * k..], &ins[1][if shared { 0 } else { number * k * n }..]);
            (0..k).map(|p| at(a, x, [m, k], i, p) * at(b, y, [k, n], p, j)).sum()
        };
        (0..count * m * n).map(element).collect()
    }

    #[test]
    fn matches_the_formula() {
        use Stored::{Plain as P, Transposed as T};
        let of = [[P, T], [P, P], [T, P], [T, T], [P, P], [T, T]];
        check_all(cases, &[], |s, number, ins| {
            let case = &cases(s)[number];
            formula(of[number], [&case.ins[0].dims, &case.ins[1].dims], ins)
        });
        // Without leading axes, and with one b and a transposed a of several.
        for (a, b) in [(P, P), (P, T), (T, P), (T, T)] {
            for leading in [&[][..], &[5], &[2, 3]] {
                let dims = [[leading, &a.order([17, 9])].concat(), b.order([9, 33]).to_vec()];
                let case = Case::new("", MatMul { a, b }, dims.each_ref().map(|dims| Input::normal(dims)).to_vec());
                check(&case, |ins| formula([a, b], [&dims[0], &dims[1]], ins));
            }
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let op = |a, b| MatMul { a, b };
        refuses(&op(Plain, Plain), "f32[3] f32[3, 2]", "a is f32[3], must have at least 2 dimensions");
        refuses(&op(Plain, Plain), "f32[2, 3] f32[4, 5]", "b is f32[4, 5], must be f32[3, 5]");
        refuses(&op(Plain, Transposed), "f32[2, 3] f32[4, 5]", "b is f32[4, 5], must be f32[4, 3]");
        refuses(&op(Transposed, Plain), "f32[7, 2, 3] f32[6, 2, 5]", "b is f32[6, 2, 5], must be f32[7, 2, 5]");
        refuses(&op(Plain, Plain), "f32[7, 2, 3] f32[3]", "b is f32[3], must have 2 or 3 dimensions");
        refuses(&op(Plain, Plain), "f32[2, 3] f32[1, 3, 4]", "b is f32[1, 3, 4], must have 2 dimensions");
    }

    /// One product of many rows, or one for each sample.
    #[test]
    fn cost_counts_every_product() {
        let of = |dims: &[usize]| Spec::new(DType::F32, dims);
        let pass = [Want::Write, Want::Skip];
        for (a, left, right) in [(Plain, [2, 5, 3], [3, 7]), (Transposed, [2, 3, 5], [3, 7])] {
            let op = MatMul { a, b: Plain };
            let ins = [of(&left), of(&right)];
            assert_eq!(op.cost(&ins, Pass::Forward), Cost { flops: 420, bytes: 4 * (30 + 21 + 70) });
            assert_eq!(op.cost(&ins, Pass::Vjp(&pass)), Cost { flops: 420, bytes: 4 * (30 + 21 + 70) });
        }
    }
}
