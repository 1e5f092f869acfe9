//! The cost of a pass: the op counts operations; the bytes follow from its inputs and outputs.

use engine::{Cost, Op, Pass, Spec, Want};

/// Whether any gradient is wanted.
pub fn any_wanted(wants: &[Want]) -> bool {
    wants.iter().any(|want| want.is_wanted())
}

/// The fewest bytes that a pass of `op` moves. The forward pass reads its inputs and writes its outputs. The backward
/// pass reads the result's gradient and the buffers listed in [`Op::reads`], and writes the wanted gradients; adding to
/// a gradient also reads it. A fused pass reads the inputs once.
pub fn bytes(op: &dyn Op, ins: &[Spec], pass: Pass) -> u64 {
    let outs: Vec<Spec> = op.infer(ins).expect("inputs that the op accepts").iter().map(|out| out.spec).collect();
    let sum = |specs: &[Spec], which: u16| -> usize {
        specs.iter().enumerate().map(|(i, spec)| if which >> i & 1 == 1 { spec.bytes() } else { 0 }).sum()
    };
    let moved = match pass {
        Pass::Vjp(wants) if !any_wanted(wants) => return 0,
        Pass::Vjp(wants) => {
            let reads = op.reads(wants);
            sum(ins, reads.ins) + sum(&outs, reads.outs) + outs[0].bytes()
        }
        Pass::Forward | Pass::Fused(_) => sum(ins, u16::MAX) + sum(&outs, u16::MAX),
    };
    let stored = pass.wants().iter().zip(ins).map(|(want, of)| match want {
        Want::Skip => 0,
        Want::Write => of.bytes(),
        Want::Add => 2 * of.bytes(),
    });
    (moved + stored.sum::<usize>()) as u64
}

/// The sum of `flops[i]` over the wanted gradients.
pub fn wanted(wants: &[Want], flops: &[usize]) -> usize {
    wants.iter().zip(flops).filter(|(want, _)| want.is_wanted()).map(|(_, flops)| flops).sum()
}

/// The cost of an op that needs `forward` operations, and `gradients[i]` for the gradient of input `i`. `Add` takes one
/// more per element.
pub fn of(op: &dyn Op, ins: &[Spec], pass: Pass, forward: usize, gradients: &[usize]) -> Cost {
    let forward = if let Pass::Vjp(_) = pass { 0 } else { forward };
    let added = pass.wants().iter().zip(ins).filter(|(want, _)| **want == Want::Add).map(|(_, of)| of.shape.numel());
    let flops = forward + wanted(pass.wants(), gradients) + added.sum::<usize>();
    Cost { flops: flops as u64, bytes: bytes(op, ins, pass) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adamw;
    use crate::cross_entropy::LmHead;
    use crate::latents::{LatentStep, Noise, Renewal, Rule};
    use crate::matmul::{Linear, LinearResidual};
    use engine::{DType, Update};

    /// The costs of the model's main ops, counted by hand.
    #[test]
    fn costs_are_those_of_the_passes() {
        use Want::{Add, Skip, Write};
        let of = |dims: &[usize]| Spec::new(DType::F32, dims);
        let head = [of(&[2, 3, 4]), of(&[5, 4]), Spec::new(DType::I32, &[2, 3]), of(&[1])];
        let linear = [of(&[6, 4]), of(&[5, 4]), of(&[6, 5])];
        let table: [(&dyn Op, &[Spec], _, _, _); 13] = [
            (&LmHead::CrossEntropy, &head, Pass::Forward, 360, 256),
            (&LmHead::CrossEntropy, &head, Pass::Vjp(&[Write, Skip, Skip, Skip]), 570, 328),
            (&LmHead::CrossEntropy, &head, Pass::Vjp(&[Write, Write, Skip, Skip]), 810, 408),
            (&LmHead::CrossEntropy, &head, Pass::Vjp(&[Skip; 4]), 0, 0),
            (&LmHead::CrossEntropy, &head, Pass::Fused(&[Write, Skip, Skip, Skip]), 690, 352),
            (&LmHead::CrossEntropy, &head, Pass::Fused(&[Write, Add, Skip, Skip]), 930, 512),
            (&LmHead::CrossEntropy, &head, Pass::Fused(&[Skip; 4]), 360, 256),
            (&Linear, &linear[..2], Pass::Forward, 240, 296),
            (&Linear, &linear[..2], Pass::Vjp(&[Write, Skip]), 240, 296),
            (&Linear, &linear[..2], Pass::Vjp(&[Write, Add]), 480, 552),
            (&Linear, &linear[..2], Pass::Vjp(&[Skip; 2]), 0, 0),
            (&LinearResidual, &linear, Pass::Forward, 270, 416),
            (&LinearResidual, &linear, Pass::Vjp(&[Skip, Skip, Add]), 30, 360),
        ];
        for (op, ins, pass, flops, bytes) in table {
            assert_eq!(op.cost(ins, pass), Cost { flops, bytes }, "{}, {pass:?}", op.name());
        }
        let adamw = Rule::AdamW(adamw::Rule { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 });
        let natural = Rule::Natural { beta: 0.6 };
        let steps = [
            (adamw, Renewal::Fresh, 1272, 1536),
            (natural, Renewal::Antithetic, 840, 1152),
            (natural, Renewal::Fixed, 768, 1056),
        ];
        for (rule, renewal, flops, bytes) in steps {
            let step = LatentStep { noise: Noise { seed: 1, renewal }, rule };
            assert_eq!(step.cost(&[of(&[2, 3, 4]); 3], &[]), Cost { flops, bytes }, "{}", step.name());
        }
    }
}
