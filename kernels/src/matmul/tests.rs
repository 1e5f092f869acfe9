use super::*;
use crate::testing::{check, check_all, forward, garbage, normal, refuses, vjp};
use engine::DType;

/// Sizes around and beyond the edges of register tiles and cache blocks.
const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [3, 2, 5], [7, 16, 17], [16, 33, 48], [65, 300, 31], [130, 20, 257]];

/// x [.., in], w [out, in] and, where there is one, the residual.
fn formula(inputs: usize, ins: &[Vec<f64>]) -> Vec<f64> {
    let product = |(x, w): (&[f64], &[f64])| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    let rows = ins[0].chunks(inputs).flat_map(|x| ins[1].chunks(inputs).map(move |w| (x, w)));
    rows.map(product)
        .zip(ins.get(2).unwrap_or(&vec![]).iter().chain(std::iter::repeat(&0.0)))
        .map(|(y, r)| y + r)
        .collect()
}

#[test]
fn matches_the_formula() {
    check_all(cases, &[], |s, number, ins| formula(cases(s)[number].ins[1].dims[1], ins));
    for [rows, inputs, outputs] in SIZES {
        let [x, w, residual] = [[rows, inputs], [outputs, inputs], [rows, outputs]].map(|dims| Input::normal(&dims));
        check(&Case::new("", LinearResidual, vec![x, w, residual]), |ins| formula(inputs, ins));
    }
}

#[test]
fn prepared_weights_give_the_same_bits() {
    for dtype in [DType::F32, DType::F64] {
        for [rows, inputs, outputs] in SIZES {
            let [x, w] = [normal(dtype, &[rows, inputs], 0), normal(dtype, &[outputs, inputs], 1)];
            let [residual, d_y] = [2, 3].map(|site| normal(dtype, &[rows, outputs], site));
            let (ins, specs) = ([&x, &w, &residual], [x.spec(), w.spec(), residual.spec()]);
            let op = LinearResidual;
            let wants = [Want::Write, Want::Skip, Want::Skip];
            let (mut none, empty) = (Buffer::empty(), Buffer::empty());
            let mut cx = Context { device: &Device::Cpu, scratch: &mut none };
            let mut made = Vec::new();
            for (number, pass) in [Pass::Forward, Pass::Vjp(&wants)].into_iter().enumerate() {
                let form = op.forms(cx.device, &specs, pass).swap_remove(number).expect("a form for this pass");
                let mut buffer = garbage(form.spec);
                op.prepare(&mut cx, number, ins[form.input], &mut buffer);
                made.push(buffer);
            }
            // From what lies where the weight should be, nothing can come.
            let nothing = Buffer::from_f64(dtype, &[outputs, inputs], &vec![f64::NAN; outputs * inputs]);
            let mut y = [Buffer::new(residual.spec())];
            op.forward(&mut cx, &[&x, &nothing, &residual, &made[0]], &mut y);
            assert_eq!(y[0].as_bytes(), forward(&op, &ins)[0].as_bytes());
            let mut d = [Buffer::new(x.spec()), Buffer::empty(), Buffer::empty()];
            op.vjp(&mut cx, &wants, &[&empty, &nothing, &empty, &empty, &made[1]], &[], &d_y, &mut d);
            assert_eq!(d[0].as_bytes(), vjp(&op, &wants, &ins, &[], &d_y)[0].as_bytes());
        }
    }
    let specs = [[4, 3], [5, 3]].map(|dims| Spec::new(DType::F32, &dims));
    assert!(Linear.forms(&Device::Cpu, &specs, Pass::Vjp(&[Want::Skip, Want::Write])).is_empty());
}

#[test]
fn unwanted_gradients_cost_nothing() {
    let [x, w, d_y] = [normal(DType::F32, &[4, 3], 0), normal(DType::F32, &[5, 3], 1), normal(DType::F32, &[4, 5], 2)];
    let wants = [Want::Skip, Want::Write];
    assert_eq!(Linear.reads(&wants), Reads::of(&[0], &[]));
    assert_eq!(Linear.reads(&[Want::Add, Want::Skip]), Reads::of(&[1], &[]));
    assert!(vjp(&Linear, &wants, &[&x, &w], &[], &d_y)[0].is_empty());
    let specs = [x.spec(), w.spec()];
    assert_eq!(Linear.cost(&specs, Pass::Vjp(&wants)), Cost { flops: 2 * 60, bytes: 4 * (20 + 12 + 15) });
    assert_eq!(Linear.cost(&specs, Pass::Vjp(&[Want::Skip; 2])), Cost::default());
}

#[test]
fn errors_say_what_would_be_right() {
    refuses(&Linear, "f32[2, 3]", "takes 2 inputs (x, w), got 1");
    refuses(&Linear, "f32[] f32[4, 1]", "x is f32[], must have at least one dimension");
    refuses(&Linear, "f32[2, 3] f32[4]", "w is f32[4], must have 2 dimensions");
    refuses(&Linear, "f32[2, 3] f32[3, 4]", "w is f32[3, 4], must be f32[3, 3]");
    refuses(&Linear, "f32[2, 3] f64[4, 3]", "w is f64[4, 3], must be f32[4, 3]");
    refuses(&LinearResidual, "f32[2, 3] f32[4, 3] f32[2, 3]", "residual is f32[2, 3], must be f32[2, 4]");
}
