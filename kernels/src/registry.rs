//! One line per op.

use crate::case::{Case, Sizes};
use crate::{
    adamw, attention, cast, cross_attention, cross_entropy, dropout, elementwise, embedding, gaussian, latents,
    layernorm, modulate,
};
use crate::{
    matmul, muon, permute, reduce, reshape, ring_attention, rmsnorm, rope, self_attention, sgd, slice, softmax, swiglu,
};
use engine::DType;
use engine::cuda::{EXCHANGE, Gpu, Module};

/// An op's folder: its name, and its cases for given sizes.
pub struct Room {
    /// Name of the folder.
    pub name: &'static str,
    /// The cases at these sizes: every variant of the op that a model uses.
    pub cases: fn(&Sizes) -> Vec<Case>,
    /// The kernels that its ops launch on a GPU.
    pub cuda: &'static [&'static Module],
}

/// Every op's folder.
pub const ROOMS: &[Room] = &[
    Room { name: "cross_attention", cases: cross_attention::cases, cuda: &[&cross_attention::cuda::KERNELS] },
    Room { name: "cross_entropy", cases: cross_entropy::cases, cuda: &[&cross_entropy::cuda::KERNELS, &cast::KERNELS] },
    Room { name: "dropout", cases: dropout::cases, cuda: &[&dropout::KERNELS] },
    Room { name: "elementwise", cases: elementwise::cases, cuda: &[&elementwise::KERNELS] },
    Room { name: "embedding", cases: embedding::cases, cuda: &[&embedding::KERNELS] },
    Room { name: "gaussian", cases: gaussian::cases, cuda: &[&gaussian::KERNELS, &elementwise::KERNELS] },
    Room { name: "layernorm", cases: layernorm::cases, cuda: &[&layernorm::KERNELS] },
    Room { name: "matmul", cases: matmul::cases, cuda: &[&elementwise::KERNELS] },
    Room { name: "modulate", cases: modulate::cases, cuda: &[&modulate::KERNELS, &elementwise::KERNELS] },
    Room { name: "permute", cases: permute::cases, cuda: &[&permute::KERNELS] },
    Room { name: "reduce", cases: reduce::cases, cuda: &[&reduce::KERNELS] },
    Room { name: "reshape", cases: reshape::cases, cuda: &[&elementwise::KERNELS] },
    Room { name: "ring_attention", cases: ring_attention::cases, cuda: &[&ring_attention::KERNELS] },
    Room { name: "rmsnorm", cases: rmsnorm::cases, cuda: &[&rmsnorm::KERNELS] },
    Room { name: "rope", cases: rope::cases, cuda: &[&rope::KERNELS] },
    Room { name: "self_attention", cases: self_attention::cases, cuda: &[&self_attention::cuda::KERNELS] },
    Room { name: "slice", cases: slice::cases, cuda: &[&slice::KERNELS] },
    Room { name: "softmax", cases: softmax::cases, cuda: &[&softmax::KERNELS] },
    Room { name: "swiglu", cases: swiglu::cases, cuda: &[&swiglu::KERNELS] },
];

/// Kernels without cases: in-place updates, the cast, whose rounding has no gradient to check, and the sum over processes.
const OTHERS: &[&Module] =
    &[&adamw::KERNELS, &cast::KERNELS, &EXCHANGE, &latents::cuda::KERNELS, &muon::cuda::KERNELS, &sgd::KERNELS];

/// Every kernel file. A GPU must load them before a plan runs.
pub fn modules() -> Vec<&'static Module> {
    let mut all: Vec<_> = ROOMS.iter().flat_map(|room| room.cuda).chain(OTHERS).copied().collect();
    all.sort_by_key(|module| module.name);
    all.dedup_by_key(|module| module.name);
    all
}

/// The widest attention head whose tiles fit into a block's shared memory on this GPU: 128 on an A100 or H100, 64 in f32 with the
/// 99 KiB of an RTX 30 to 50.
pub fn widest_head(gpu: &dyn Gpu, dtype: DType) -> usize {
    let needed = |size| {
        let tiles = attention::Tiles { size, dtype };
        self_attention::cuda::shared(tiles).max(cross_attention::cuda::shared(tiles))
    };
    attention::SIZES.into_iter().take_while(|&size| needed(size) <= gpu.shared_bytes()).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes, distance, normal, ones, same_bits, sizes};
    use engine::op::infer;
    use engine::{Buffer, Device, Eager, Products, Spec, Want};

    /// Sizes with several blocks of every kind, complete and partial.
    const LARGE: Sizes =
        Sizes { batch: 2, tokens: 275, heads: 2, head_dim: 34, window: 70, latents: 5, ffn: 33, vocab: 301 };

    /// Outputs and gradients, also those of the fused pass.
    fn run(device: &Device, case: &Case, ins: &[Buffer], d_out: &Buffer) -> Vec<Buffer> {
        let op = &*case.op;
        let eager = Eager { device, op };
        let outs = eager.forward(ins);
        let mut all = outs.clone();
        for want in [Want::Write, Want::Add] {
            let wants: Vec<_> = (0..ins.len()).map(|i| if op.differentiable(i) { want } else { Want::Skip }).collect();
            if !wants.iter().any(|want| want.is_wanted()) {
                continue;
            }
            all.extend(eager.vjp(&wants, ins, &outs, d_out, &ones(ins)));
            if op.fuses() {
                let (outs, d_ins) = eager.forward_vjp(&wants, ins, &ones(ins));
                all.extend([outs, d_ins].concat());
            }
        }
        all
    }

    /// If an input has another type or does not fit the others, the error names it.
    #[test]
    fn inputs_that_do_not_fit_are_named() {
        for case in ROOMS.iter().flat_map(|room| (room.cases)(&sizes()[0])) {
            let (op, names) = (case.op.name(), case.op.arguments());
            let refused = |specs: &[Spec]| infer(&*case.op, specs).expect_err(op).to_string();
            let specs = case.specs(DType::F32);
            let counted = format!("takes {} inputs ({}), got {}", names.len(), names.join(", "), names.len() - 1);
            assert_eq!(refused(&specs[1..]), counted);
            for (i, name) in names.iter().enumerate() {
                let Spec { dtype, shape } = specs[i];
                let other = if dtype == DType::I32 { DType::F32 } else { DType::I32 };
                let mut wrong = vec![Spec { dtype: other, shape }];
                // The first input determines the sizes, but not how many tokens are looked up or how many columns b has.
                if i > 0 && *name != "tokens" && (op, *name) != ("matmul", "b") {
                    wrong.push(Spec { dtype, shape: shape.with_last(shape.last() + 1) });
                }
                for spec in wrong {
                    let mut specs = specs.clone();
                    specs[i] = spec;
                    let error = refused(&specs);
                    assert!(error.starts_with(&format!("{name} is {spec}, must ")), "{op}: {error}");
                }
            }
        }
    }

    /// The same bits on every instruction set and number of threads, and for a sample in any batch. A buffer belongs to the
    /// samples if its shape changes with the size of the batch.
    #[test]
    fn bits_depend_on_nothing_else() {
        bits_depend_on_nothing_else_on(&Device::CPU, |_, _| true);
    }

    /// The same for products that round their factors. Their results are near those of f32.
    #[test]
    fn bits_of_rounded_products_depend_on_nothing_else() {
        let mut rooms = Vec::new();
        bits_depend_on_nothing_else_on(&Device::CPU.with(Products::Bf16), |case, [exact, rounded]| {
            for (i, (exact, rounded)) in exact.iter().zip(rounded).filter(|(exact, _)| !exact.is_empty()).enumerate() {
                let error = distance(&rounded.to_f64(), &exact.to_f64());
                assert!(error < 1e-2, "{} ({}): buffer {i} has an error of {error:e}", case.op.name(), case.label);
            }
            // Other ops were tested above.
            let rounds = bytes(exact) != bytes(rounded);
            if rounds && !rooms.contains(&case.op.name()) {
                rooms.push(case.op.name());
            }
            rounds
        });
        assert_eq!(rooms, ["lm_head", "score_entropy", "linear", "linear_residual", "matmul", "self_attention"]);
    }

    /// On `device`, for the cases that pass `check`, which gets their results in f32 and on the device.
    fn bits_depend_on_nothing_else_on(device: &Device, mut check: impl FnMut(&Case, [&[Buffer]; 2]) -> bool) {
        for (room, s) in ROOMS.iter().flat_map(|room| sizes().into_iter().chain([LARGE]).map(move |s| (room, s))) {
            for (case, one) in (room.cases)(&s).iter().zip((room.cases)(&Sizes { batch: 1, ..s })) {
                let name = format!("{} ({})", case.op.name(), case.label);
                let ins = case.buffers(DType::F32, 3);
                let result = case.op.infer(&case.specs(DType::F32)).expect("a case")[0].spec;
                let d_out = normal(result.dtype, result.shape.dims(), 5);
                if !check(
                    case,
                    [&Device::CPU, device].map(|device| run(device, case, &ins, &d_out)).each_ref().map(|b| &b[..]),
                ) {
                    continue;
                }
                let together = same_bits(&name, || run(device, case, &ins, &d_out));
                for sample in 0..s.batch {
                    let part = |x: &Buffer, dims: &[usize]| {
                        let first = if x.shape().dims() == dims { 0 } else { sample * x.len() / s.batch };
                        Buffer::from_f64(x.dtype(), dims, &x.to_f64()[first..][..dims.iter().product()])
                    };
                    let own: Vec<_> = ins.iter().zip(&one.ins).map(|(x, one)| part(x, &one.dims)).collect();
                    let result = one.op.infer(&one.specs(DType::F32)).expect("a case")[0].spec;
                    let separate = run(device, &one, &own, &part(&d_out, result.shape.dims()));
                    for (i, (together, separate)) in together.iter().zip(&separate).enumerate() {
                        if !together.is_empty() && together.shape() != separate.shape() {
                            let part = part(together, separate.shape().dims());
                            assert!(part.as_bytes() == separate.as_bytes(), "{name}: buffer {i} of sample {sample}");
                        }
                    }
                }
            }
        }
    }
}
