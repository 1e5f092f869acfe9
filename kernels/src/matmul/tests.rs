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
    let [x, w, d_y] = [random(DType::F32, &[4, 3], 0), random(DType::F32, &[5, 3], 1), random(DType::F32, &[4, 5], 2)];
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
        let [x, w, d_y] = [random(dtype, &[ROWS, 70], 0), random(dtype, &[37, 70], 1), random(dtype, &[ROWS, 37], 2)];
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
