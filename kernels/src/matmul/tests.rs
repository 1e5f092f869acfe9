use super::*;
use crate::testing::{check, check_all, normal, refuses};
use engine::eager::garbage;
use engine::{DType, Products};

/// Sizes without rows, around and beyond the edges of register tiles and cache blocks.
const SIZES: [[usize; 3]; 7] =
    [[0, 2, 5], [1, 1, 1], [3, 2, 5], [7, 16, 17], [16, 33, 48], [65, 300, 31], [130, 20, 257]];

/// x [.., in], w [out, in] and optionally the residual.
fn formula(inputs: usize, ins: &[Vec<f64>]) -> Vec<f64> {
    let product = |(x, w): (&[f64], &[f64])| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    let rows = ins[0].chunks(inputs).flat_map(|x| ins[1].chunks(inputs).map(move |w| (x, w)));
    rows.map(product).zip(ins.get(2).unwrap_or(&vec![0.0]).iter().cycle()).map(|(y, r)| y + r).collect()
}

#[test]
fn matches_the_formula() {
    check_all(linear_maps, &[], |s, number, ins| formula(linear_maps(s)[number].ins[1].dims[1], ins));
    for [rows, inputs, outputs] in SIZES {
        for residual in [&[rows, outputs][..], &[outputs]] {
            let ins = [&[rows, inputs], &[outputs, inputs], residual].map(Input::normal).to_vec();
            check(&Case::new("", LinearResidual, ins), |ins| formula(inputs, ins));
        }
    }
}

#[test]
fn errors_say_what_would_be_right() {
    refuses(&Linear, "f32[] f32[4, 1]", "x is f32[], must have at least one dimension");
    refuses(&Linear, "f32[2, 3] f32[4]", "w is f32[4], must have 2 dimensions");
    let said = "residual is f32[3], must be f32[2, 4] or f32[4]";
    refuses(&LinearResidual, "f32[2, 3] f32[4, 3] f32[3]", said);
}

/// The op reads the form and not the weight, which is NaN here.
#[test]
fn a_form_stands_for_the_weight() {
    let [x, w, d_y] = [[3, 7], [5, 7], [3, 5]].map(|dims| normal(DType::F32, &dims, 1));
    let (nan, none, wants) = (garbage(&Device::CPU, w.spec()), Buffer::empty(), [Want::Write, Want::Skip]);
    let passes = [Pass::Forward, Pass::Vjp(&wants)].into_iter().enumerate();
    let devices = [Device::CPU, Device::CPU.with(Products::Bf16)];
    for ((number, pass), device) in passes.flat_map(|pass| devices.each_ref().map(|device| (pass, device))) {
        let specs = [x.spec(), w.spec()];
        let mut scratch = Buffer::new(Spec::new(DType::Bf16, &[Linear.scratch(device, &specs, pass) / 2]));
        let cx = &mut Context { device, scratch: &mut scratch };
        let spec = Linear.forms(device, &specs, pass)[number].expect("a form").spec;
        let mut form = Buffer::new(spec);
        Linear.prepare(cx, number, &w, &mut form);
        let mut run = |w: &Buffer, form: &Buffer| {
            let mut out = [Buffer::new([&d_y, &x][number].spec()), Buffer::empty()];
            match pass {
                Pass::Forward => Linear.forward(cx, &[&x, w, form], &mut out),
                _ => Linear.vjp(cx, &wants, &[&x, w, &none, form], &[], &d_y, &mut out),
            }
            out[0].to_f64()
        };
        assert_eq!(run(&nan, &form), run(&w, &none), "{pass:?}");
    }
}
