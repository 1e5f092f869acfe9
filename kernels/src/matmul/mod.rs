//! Linear maps: `y = x·wᵀ`, alone and added to a residual stream, on one matrix product.
//!
//! Weights are stored `[out, in]`, the rows of `x` are all but its last dimension. Every element of a product is one chain of fused multiply-adds in the order of the
//! summed index, on one thread: a row of `y` or `d_x` has the same bits whatever the other rows are, and `d_w`, which
//! sums over the rows, has the same bits on any number of threads.
//!
//! A product of more than a few dozen rows is bound by arithmetic, one of fewer by reading `w`.

mod cpu;
pub(crate) mod cuda;
pub(crate) mod forms;
pub mod gemm;
mod microkernel;
mod pack;
#[allow(unsafe_code)]
pub(crate) mod tiles;

use self::forms::Use;
use self::gemm::Accumulate;
use crate::case::{Case, Fill, Input, Sizes};
use crate::{add, check, lanes};
use engine::{Buffer, Context, Cost, Device, Error, Form, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `x [.., in], w [out, in] → y [.., out]`.
///
/// - Formula: `y = x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Linear;

/// `x [.., in], w [out, in], residual [.., out] → y [.., out]`: a projection that writes into the residual stream. The products
/// are added to the residual one by one, without a pass over memory of its own.
///
/// - Formula: `y = residual + x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`, `d_residual = d_y`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct LinearResidual;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "w"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        Ok(vec![Output { name: "y", spec: infer(ins[0], ins[1])? }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        reads(wants)
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (x, w) = (ins[0], ins[1]);
        let sizes = sizes(x.spec(), w.spec());
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, sizes, x, w, None, &mut outs[0]);
        }
        with_real!(x.dtype(), T => {
            let w = cpu::Weight { w: w.as_slice(), packed: forms::given(ins, 2, Use::Forward) };
            cpu::forward::<T>(sizes, x.as_slice(), w, outs[0].as_mut_slice(), Accumulate::Write);
        });
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        vjp_product(cx.device, wants, ins, 2, d_out, d_ins);
    }

    fn forms(&self, device: &Device, ins: &[Spec], pass: Pass) -> Vec<Option<Form>> {
        forms::of_weight(device, 1, ins[1], pass)
    }

    fn prepare(&self, _cx: &mut Context, number: usize, input: &Buffer, form: &mut Buffer) {
        forms::prepare(number, input, form);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost(ins, pass)
    }
}

impl Op for LinearResidual {
    fn name(&self) -> &'static str {
        "linear_residual"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "w", "residual"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let y = infer(ins[0], ins[1])?;
        check::is("residual", ins[2], y.dtype, y.shape.dims())?;
        Ok(vec![Output { name: "y", spec: y }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        reads(wants)
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (x, w, residual) = (ins[0], ins[1], ins[2]);
        let sizes = sizes(x.spec(), w.spec());
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, sizes, x, w, Some(residual), &mut outs[0]);
        }
        with_real!(x.dtype(), T => {
            let y = outs[0].as_mut_slice::<T>();
            lanes::pass_on(Want::Write, residual.as_slice(), y);
            let w = cpu::Weight { w: w.as_slice(), packed: forms::given(ins, 3, Use::Forward) };
            cpu::forward(sizes, x.as_slice(), w, y, Accumulate::Add);
        });
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        vjp_product(cx.device, wants, ins, 3, d_out, d_ins);
        if let Device::Cuda(gpu) = cx.device {
            return add::cuda::pass_on(&**gpu, wants[2], d_out, &mut d_ins[2]);
        }
        if wants[2].is_wanted() {
            with_real!(d_out.dtype(), T => lanes::pass_on::<T>(wants[2], d_out.as_slice(), d_ins[2].as_mut_slice()));
        }
    }

    fn passes_through(&self, i: usize) -> bool {
        i == 2
    }

    fn forms(&self, device: &Device, ins: &[Spec], pass: Pass) -> Vec<Option<Form>> {
        forms::of_weight(device, 1, ins[1], pass)
    }

    fn prepare(&self, _cx: &mut Context, number: usize, input: &Buffer, form: &mut Buffer) {
        forms::prepare(number, input, form);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (elements, bytes) = (ins[2].shape.numel() as u64, ins[2].bytes() as u64);
        let residual = match pass {
            Pass::Forward => Cost { flops: elements, bytes },
            // The gradient is the result's own: there is work only where it must be in two places.
            Pass::Vjp(wants) | Pass::Fused(wants) => match wants[2] {
                Want::Skip => Cost::default(),
                Want::Write => Cost { flops: 0, bytes },
                Want::Add => Cost { flops: elements, bytes: 2 * bytes },
            },
        };
        cost(ins, pass) + residual
    }
}

fn infer(x: Spec, w: Spec) -> Result<Spec> {
    let dtype = check::real("x", x)?;
    if x.shape.rank() == 0 {
        return Err(Error::usage(format!("x is {x}, must have at least one dimension")));
    }
    check::rank("w", w, 2)?;
    check::is("w", w, dtype, &[w.shape.dims()[0], x.shape.last()])?;
    Ok(Spec { dtype, shape: x.shape.with_last(w.shape.dims()[0]) })
}

fn sizes(x: Spec, w: Spec) -> cpu::Sizes {
    cpu::Sizes { rows: x.shape.rows(), inputs: w.shape.last(), outputs: w.shape.rows() }
}

/// The gradient of either factor needs the other.
fn reads(wants: &[Want]) -> Reads {
    Reads { ins: u16::from(wants[1].is_wanted()) | u16::from(wants[0].is_wanted()) << 1, outs: 0 }
}

/// `own` inputs stand before the prepared forms.
fn vjp_product(device: &Device, wants: &[Want], ins: &[&Buffer], own: usize, d_y: &Buffer, d_ins: &mut [Buffer]) {
    let (rows, outputs) = (d_y.shape().rows(), d_y.shape().last());
    let sizes = |inputs: usize| cpu::Sizes { rows, inputs, outputs };
    if wants[0].is_wanted() {
        let (w, want, d_x) = (ins[1], wants[0], &mut d_ins[0]);
        let sizes = sizes(w.shape().last());
        match device {
            Device::Cuda(gpu) => cuda::vjp_x(&**gpu, sizes, d_y, w, want, d_x),
            Device::Cpu => with_real!(d_y.dtype(), T => {
                let w = cpu::Weight { w: w.as_slice(), packed: forms::given(ins, own, Use::Backward) };
                cpu::vjp_x::<T>(sizes, d_y.as_slice(), w, want, d_x.as_mut_slice());
            }),
        }
    }
    if wants[1].is_wanted() {
        let (x, want, d_w) = (ins[0], wants[1], &mut d_ins[1]);
        let sizes = sizes(x.shape().last());
        match device {
            Device::Cuda(gpu) => cuda::vjp_w(&**gpu, sizes, d_y, x, want, d_w),
            Device::Cpu => with_real!(d_y.dtype(), T => {
                cpu::vjp_w::<T>(sizes, d_y.as_slice(), x.as_slice(), want, d_w.as_mut_slice());
            }),
        }
    }
}

/// One product for the result, one for each wanted factor's gradient.
fn cost(ins: &[Spec], pass: Pass) -> Cost {
    let (x, w) = (ins[0], ins[1]);
    let s = sizes(x, w);
    let product = 2 * (s.rows * s.inputs * s.outputs) as u64;
    let y = (s.rows * s.outputs * x.dtype.size()) as u64;
    let (x, w) = (x.bytes() as u64, w.bytes() as u64);
    match pass {
        Pass::Forward => Cost { flops: product, bytes: x + w + y },
        Pass::Vjp(wants) | Pass::Fused(wants) => {
            let gradient = |want, size, other| match want {
                Want::Skip => Cost::default(),
                Want::Write => Cost { flops: product, bytes: other + size },
                Want::Add => Cost { flops: product, bytes: other + 2 * size },
            };
            let d_y = if wants[0].is_wanted() || wants[1].is_wanted() { y } else { 0 };
            gradient(wants[0], x, w) + gradient(wants[1], w, x) + Cost { flops: 0, bytes: d_y }
        }
    }
}

/// The linear maps of a model.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let (d, f) = (s.dim(), s.ffn);
    let tokens = |width| Input::new(&[s.batch, s.tokens, width], Fill::NORMAL);
    let latents = || Input::new(&[s.batch, s.latents, d], Fill::NORMAL);
    let weight =
        |out, width: usize| Input::new(&[out, width], Fill::Normal { mean: 0.0, std: 1.0 / (width as f64).sqrt() });
    vec![
        Case::new("queries, keys, values", Linear, vec![tokens(d), weight(3 * d, d)]),
        Case::new("queries of the latents", Linear, vec![tokens(d), weight(d, d)]),
        Case::new("keys, values of the latents", Linear, vec![latents(), weight(2 * d, d)]),
        Case::new("gate and up", Linear, vec![tokens(d), weight(2 * f, d)]),
        Case::new("attention output", LinearResidual, vec![tokens(d), weight(d, d), tokens(d)]),
        Case::new("down", LinearResidual, vec![tokens(f), weight(d, f), tokens(d)]),
        Case::new("logits of one token", Linear, vec![Input::new(&[s.batch, d], Fill::NORMAL), weight(s.vocab, d)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, vjp, with_threads};
    use engine::DType;
    use engine::rng::Stream;

    const DTYPES: [DType; 2] = [DType::F32, DType::F64];

    fn random(dtype: DType, dims: &[usize], site: u32) -> Buffer {
        Input::new(dims, Fill::NORMAL).buffer(dtype, Stream::new(7, site))
    }

    fn forward(op: &dyn Op, ins: &[&Buffer]) -> Buffer {
        testing::forward(op, ins).swap_remove(0)
    }

    /// The sum of `term(k)` in f64.
    fn sum(n: usize, term: impl Fn(usize) -> f64) -> f64 {
        (0..n).map(term).sum()
    }

    #[track_caller]
    fn assert_close(got: &Buffer, want: &[f64]) {
        let tolerance = if got.dtype() == DType::F32 { 2e-5 } else { 1e-13 };
        for (i, (got, want)) in got.to_f64().iter().zip(want).enumerate() {
            assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "element {i}: {got}, must be {want}");
        }
    }

    /// Sizes around and beyond the edges of register tiles and cache blocks.
    const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [3, 2, 5], [7, 16, 17], [16, 33, 48], [65, 300, 31], [130, 20, 257]];

    #[test]
    fn matches_sums_in_f64() {
        for dtype in DTYPES {
            for [rows, inputs, outputs] in SIZES {
                let [x, w] = [random(dtype, &[1, rows, inputs], 0), random(dtype, &[outputs, inputs], 1)];
                let [residual, d_y] = [2, 3].map(|site| random(dtype, &[1, rows, outputs], site));
                let [xs, ws, rs, ds] = [&x, &w, &residual, &d_y].map(Buffer::to_f64);
                let y = |r: usize, o: usize| sum(inputs, |i| xs[r * inputs + i] * ws[o * inputs + i]);
                let product: Vec<_> = (0..rows * outputs).map(|i| y(i / outputs, i % outputs)).collect();
                assert_close(&forward(&Linear, &[&x, &w]), &product);
                let total: Vec<_> = product.iter().zip(&rs).map(|(p, r)| p + r).collect();
                assert_close(&forward(&LinearResidual, &[&x, &w, &residual]), &total);

                let d_x = |r: usize, i: usize| sum(outputs, |o| ds[r * outputs + o] * ws[o * inputs + i]);
                let d_w = |o: usize, i: usize| sum(rows, |r| ds[r * outputs + o] * xs[r * inputs + i]);
                let d_x: Vec<_> = (0..rows * inputs).map(|e| d_x(e / inputs, e % inputs)).collect();
                let d_w: Vec<_> = (0..outputs * inputs).map(|e| d_w(e / inputs, e % inputs)).collect();
                for (want, before) in [(Want::Write, 0.0), (Want::Add, 1.0)] {
                    let d_ins = vjp(&LinearResidual, &[want; 3], &[&x, &w, &residual], &[], &d_y);
                    for (got, d) in d_ins.iter().zip([&d_x, &d_w, &ds]) {
                        assert_close(got, &d.iter().map(|d| before + d).collect::<Vec<_>>());
                    }
                }
            }
        }
    }

    #[test]
    fn prepared_weights_give_the_same_bits() {
        for dtype in DTYPES {
            for [rows, inputs, outputs] in SIZES {
                let [x, w] = [random(dtype, &[rows, inputs], 0), random(dtype, &[outputs, inputs], 1)];
                let [residual, d_y] = [2, 3].map(|site| random(dtype, &[rows, outputs], site));
                let (ins, specs) = ([&x, &w, &residual], [x.spec(), w.spec(), residual.spec()]);
                let op = LinearResidual;
                let wants = [Want::Write, Want::Skip, Want::Skip];
                let (mut none, empty) = (Buffer::empty(), Buffer::empty());
                let mut cx = Context { device: &Device::Cpu, scratch: &mut none };
                let mut made = Vec::new();
                for (number, pass) in [Pass::Forward, Pass::Vjp(&wants)].into_iter().enumerate() {
                    let form = op.forms(cx.device, &specs, pass).swap_remove(number).expect("a form for this pass");
                    let mut buffer = testing::garbage(form.spec.bytes());
                    buffer.respec(form.spec);
                    op.prepare(&mut cx, number, ins[form.input], &mut buffer);
                    made.push(buffer);
                }
                // From what lies where the weight should be, nothing can come.
                let nothing = Buffer::from_f64(dtype, &[outputs, inputs], &vec![f64::NAN; outputs * inputs]);
                let mut y = [Buffer::new(residual.spec())];
                op.forward(&mut cx, &[&x, &nothing, &residual, &made[0]], &mut y);
                assert_eq!(y[0].as_bytes(), forward(&op, &ins).as_bytes());
                let mut d = [Buffer::new(x.spec()), Buffer::empty(), Buffer::empty()];
                op.vjp(&mut cx, &wants, &[&empty, &nothing, &empty, &empty, &made[1]], &[], &d_y, &mut d);
                assert_eq!(d[0].as_bytes(), vjp(&op, &wants, &ins, &[], &d_y)[0].as_bytes());
            }
        }
        assert!(Linear.forms(&Device::Cpu, &[x_spec(), w_spec()], Pass::Vjp(&[Want::Skip, Want::Write])).is_empty());
    }

    fn x_spec() -> Spec {
        Spec::new(DType::F32, &[4, 3])
    }

    fn w_spec() -> Spec {
        Spec::new(DType::F32, &[5, 3])
    }

    #[test]
    fn unwanted_gradients_cost_nothing() {
        let [x, w, d_y] =
            [random(DType::F32, &[4, 3], 0), random(DType::F32, &[5, 3], 1), random(DType::F32, &[4, 5], 2)];
        let wants = [Want::Skip, Want::Write];
        assert_eq!(Linear.reads(&wants), Reads::of(&[0], &[]));
        assert_eq!(Linear.reads(&[Want::Add, Want::Skip]), Reads::of(&[1], &[]));
        assert!(vjp(&Linear, &wants, &[&x, &w], &[], &d_y)[0].is_empty());
        let specs = [x.spec(), w.spec()];
        assert_eq!(Linear.cost(&specs, Pass::Vjp(&wants)), Cost { flops: 2 * 60, bytes: 4 * (20 + 12 + 15) });
        assert_eq!(Linear.cost(&specs, Pass::Vjp(&[Want::Skip; 2])), Cost::default());
    }

    /// Row by row, in any company, on any number of threads: the same bits.
    #[test]
    fn a_row_does_not_depend_on_the_others() {
        const ROWS: usize = 75;
        for dtype in DTYPES {
            let [x, w, d_y] =
                [random(dtype, &[ROWS, 70], 0), random(dtype, &[37, 70], 1), random(dtype, &[ROWS, 37], 2)];
            let gradients = |x: &Buffer, d_y: &Buffer| vjp(&Linear, &[Want::Write; 2], &[x, &w], &[], d_y);
            let (y, d) = (forward(&Linear, &[&x, &w]), gradients(&x, &d_y));
            for rows in [1, 2, 13, 74] {
                let part = |from: &Buffer| {
                    let width = from.shape().last();
                    Buffer::from_f64(dtype, &[rows, width], &from.to_f64()[(ROWS - rows) * width..])
                };
                assert_eq!(forward(&Linear, &[&part(&x), &w]).as_bytes(), part(&y).as_bytes(), "{rows} rows");
                assert_eq!(gradients(&part(&x), &part(&d_y))[0].as_bytes(), part(&d[0]).as_bytes(), "{rows} rows");
            }
            for threads in [1, 3] {
                let (again, d_again) = with_threads(threads, || (forward(&Linear, &[&x, &w]), gradients(&x, &d_y)));
                assert_eq!(again.as_bytes(), y.as_bytes(), "{threads} threads");
                assert_eq!(d_again[0].as_bytes(), d[0].as_bytes(), "{threads} threads");
                assert_eq!(d_again[1].as_bytes(), d[1].as_bytes(), "{threads} threads");
            }
        }
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let spec = |dims: &[usize]| Spec::new(DType::F32, dims);
        let message = |op: &dyn Op, ins: &[Spec]| op.infer(ins).unwrap_err().to_string();
        assert_eq!(message(&Linear, &[spec(&[2, 3])]), "takes 2 inputs (x, w), got 1");
        assert_eq!(message(&Linear, &[spec(&[]), spec(&[4, 1])]), "x is f32[], must have at least one dimension");
        assert_eq!(message(&Linear, &[spec(&[2, 3]), spec(&[4])]), "w is f32[4], must have 2 dimensions");
        assert_eq!(message(&Linear, &[spec(&[2, 3]), spec(&[3, 4])]), "w is f32[3, 4], must be f32[3, 3]");
        let wrong = [spec(&[2, 3]), spec(&[4, 3]), spec(&[2, 3])];
        assert_eq!(message(&LinearResidual, &wrong), "residual is f32[2, 3], must be f32[2, 4]");
        let f64 = Spec::new(DType::F64, &[4, 3]);
        assert_eq!(message(&Linear, &[spec(&[2, 3]), f64]), "w is f64[4, 3], must be f32[4, 3]");
    }
}
