//! The ops against PyTorch's numbers in f64, forward and gradient. `tests/fixtures/golden_ops.py` writes the file.

use engine::eager::relative_error;
use engine::{Buffer, DType, Device, Eager, Op, Shape, Want};
use kernels::cross_attention::CrossAttention;
use kernels::cross_entropy::LmHead;
use kernels::elementwise::Elementwise;
use kernels::embedding::{Embedding, ScatterAdd};
use kernels::gaussian::{GaussianKl, Reparameterize};
use kernels::layernorm::LayerNorm;
use kernels::matmul::{Linear, LinearResidual, MatMul, Stored};
use kernels::modulate::Modulate;
use kernels::permute::Permute;
use kernels::reduce::Reduce;
use kernels::registry::ROOMS;
use kernels::reshape::Reshape;
use kernels::rmsnorm::RmsNorm;
use kernels::self_attention::{Sees, SelfAttention};
use kernels::slice::{Concat, Pad, Slice};
use kernels::softmax::{CrossEntropy, LogSoftmax, Softmax};
use kernels::swiglu::SwiGlu;
use lab::verify::SIZES;
use ltm::safetensors::SafeTensors;
use std::collections::BTreeSet;

/// The ops of the file's cases.
fn ops() -> Vec<(&'static str, Box<dyn Op>)> {
    let product = |a, b| MatMul { a, b };
    let attention = |sees| SelfAttention { heads: 2, sees };
    let (plain, transposed) = (Stored::Plain, Stored::Transposed);
    vec![
        ("add", Box::new(Elementwise::Add)),
        ("add_repeated", Box::new(Elementwise::Add)),
        ("add_leading", Box::new(Elementwise::Add)),
        ("sub", Box::new(Elementwise::Sub)),
        ("mul", Box::new(Elementwise::Mul)),
        ("mul_number", Box::new(Elementwise::Mul)),
        ("div", Box::new(Elementwise::Div)),
        ("div_repeated", Box::new(Elementwise::Div)),
        ("neg", Box::new(Elementwise::Neg)),
        ("exp", Box::new(Elementwise::Exp)),
        ("log", Box::new(Elementwise::Log)),
        ("sqrt", Box::new(Elementwise::Sqrt)),
        ("pow_3", Box::new(Elementwise::Pow(3.0))),
        ("pow_minus_0_7", Box::new(Elementwise::Pow(-0.7))),
        ("tanh", Box::new(Elementwise::Tanh)),
        ("sigmoid", Box::new(Elementwise::Sigmoid)),
        ("relu", Box::new(Elementwise::Relu)),
        ("silu", Box::new(Elementwise::Silu)),
        ("gelu", Box::new(Elementwise::Gelu)),
        ("abs", Box::new(Elementwise::Abs)),
        ("clamp", Box::new(Elementwise::Clamp { low: -0.5, high: 1.25 })),
        ("where", Box::new(Elementwise::Where)),
        ("squared_error", Box::new(Elementwise::SquaredError)),
        ("binary_cross_entropy", Box::new(Elementwise::BinaryCrossEntropy)),
        ("linear", Box::new(Linear)),
        ("linear_residual", Box::new(LinearResidual)),
        ("linear_bias", Box::new(LinearResidual)),
        ("matmul", Box::new(product(plain, plain))),
        ("matmul_shared", Box::new(product(plain, plain))),
        ("matmul_tn", Box::new(product(transposed, plain))),
        ("matmul_nt", Box::new(product(plain, transposed))),
        ("matmul_tt", Box::new(product(transposed, transposed))),
        ("sum", Box::new(Reduce::sum())),
        ("sum_1", Box::new(Reduce::sum_axis(1))),
        ("mean", Box::new(Reduce::mean())),
        ("mean_0", Box::new(Reduce::mean_axis(0))),
        ("max", Box::new(Reduce::max())),
        ("max_2", Box::new(Reduce::max_axis(2))),
        ("softmax", Box::new(Softmax)),
        ("log_softmax", Box::new(LogSoftmax)),
        ("layernorm", Box::new(LayerNorm { eps: 1e-5 })),
        ("rmsnorm", Box::new(RmsNorm { eps: 1e-5 })),
        ("cross_entropy", Box::new(CrossEntropy)),
        ("slice", Box::new(Slice { axis: 1, start: 1, len: 3 })),
        ("pad", Box::new(Pad { axis: 2, before: 2, after: 1 })),
        ("concat", Box::new(Concat { axis: 1, sizes: vec![2, 4, 1] })),
        ("transpose", Box::new(Permute::transpose(3))),
        ("permute", Box::new(Permute { axes: vec![2, 0, 3, 1] })),
        ("reshape", Box::new(Reshape(Shape::new(&[15, 7])))),
        ("embedding", Box::new(Embedding)),
        ("scatter_add", Box::new(ScatterAdd { rows: 6 })),
        ("attention_window", Box::new(attention(Sees::Window(3)))),
        ("attention_past", Box::new(attention(Sees::Past))),
        ("attention_all", Box::new(attention(Sees::All))),
        ("cross_attention", Box::new(CrossAttention { heads: 2 })),
        ("attention_text", Box::new(attention(Sees::Text))),
        ("modulate", Box::new(Modulate { base: 1.0 })),
        ("gate", Box::new(Modulate { base: 0.0 })),
        ("lm_head", Box::new(LmHead::CrossEntropy)),
        ("score_entropy", Box::new(LmHead::ScoreEntropy)),
        ("swiglu", Box::new(SwiGlu)),
        ("reparameterize", Box::new(Reparameterize)),
        ("gaussian_kl", Box::new(GaussianKl)),
    ]
}

/// A tensor of the file: f64, or i32 for integers.
fn tensor(file: &SafeTensors, name: &str) -> Buffer {
    let info = file.info(name).expect(name);
    match file.get_f64(name) {
        Ok(numbers) => Buffer::from_f64(DType::F64, &info.shape, &numbers),
        Err(_) => {
            let numbers: Vec<i32> = file.get_i64(name).expect(name).into_iter().map(|n| n as i32).collect();
            Buffer::from_slice(&info.shape, &numbers)
        }
    }
}

/// Ops without a case in the file: the golden file of the whole model has rotary positions, the ring is tested against windows, and
/// PyTorch's noise is another.
const OTHERS: [&str; 4] = ["dropout", "ring_attention", "rope", "rope_table"];

#[test]
fn every_op_agrees_with_pytorch() {
    let known: BTreeSet<&str> = ops().iter().map(|(_, op)| op.name()).chain(OTHERS).collect();
    let all = ROOMS.iter().flat_map(|room| (room.cases)(&SIZES[0])).map(|case| case.op.name());
    let missing: BTreeSet<&str> = all.filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "ops without golden numbers: {missing:?}");

    let file = SafeTensors::parse(&include_bytes!("../../fixtures/golden_ops.safetensors")[..]).expect("a golden file");
    let names: BTreeSet<String> = file.names().into_iter().collect();
    let mut unread = names.clone();
    let mut read = |name: &str| {
        unread.remove(name);
        tensor(&file, name)
    };
    for (name, op) in ops() {
        let count = op.arguments().len();
        // PyTorch's condition is no tensor of floats, and so the first of three inputs here.
        let numbers = if name == "where" { vec![None, Some(0), Some(1)] } else { (0..count).map(Some).collect() };
        let place =
            |kind: &str, i: Option<usize>| i.map_or(format!("{name}.condition"), |i| format!("{name}.{kind}{i}"));
        let ins: Vec<Buffer> = numbers.iter().map(|&i| read(&place("in", i))).collect();
        let (out, d_out) = (read(&format!("{name}.out")), read(&format!("{name}.d_out")));
        let eager = Eager { device: &Device::CPU, op: &*op };
        let outs = eager.forward(&ins);
        let near = |what: &str, ours: &Buffer, golden: &Buffer| {
            assert_eq!(ours.shape(), golden.shape(), "{name}: {what}");
            let error = relative_error(&ours.to_f64(), &golden.to_f64());
            assert!(error <= 1e-12, "{name}: {what} has an error of {error:e}");
        };
        near("the result", &outs[0], &out);
        let has_gradient = |i: &Option<usize>| i.is_some_and(|i| names.contains(&format!("{name}.d_in{i}")));
        let wants: Vec<Want> = numbers.iter().map(|i| if has_gradient(i) { Want::Write } else { Want::Skip }).collect();
        let d_ins = eager.vjp(&wants, &ins, &outs, &d_out, &ins);
        for ((i, d_in), argument) in
            numbers.iter().zip(&d_ins).zip(op.arguments()).filter(|((i, _), _)| has_gradient(i))
        {
            near(&format!("the gradient of {argument}"), d_in, &read(&place("d_in", *i)));
        }
    }
    assert!(unread.is_empty(), "tensors that no case reads: {unread:?}");
}
