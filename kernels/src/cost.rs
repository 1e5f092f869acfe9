//! The cost of a pass: the op counts operations, bytes follow from its contract.

use engine::{Cost, Op, Pass, Spec, Want};

/// Whether any gradient is wanted.
pub fn any_wanted(wants: &[Want]) -> bool {
    wants.iter().any(|want| want.is_wanted())
}

/// The fewest bytes that a pass of `op` moves. Forward, it reads its inputs and writes its outputs. Backward, it reads the
/// result's gradient and what [`Op::reads`] announces, and writes the wanted gradients; adding to one reads it as well.
/// Both in one read the inputs once.
pub fn bytes(op: &dyn Op, ins: &[Spec], pass: Pass) -> u64 {
    let outs: Vec<Spec> = op.infer(ins).expect("inputs that suit the op").iter().map(|out| out.spec).collect();
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

/// The cost of an op that needs `forward` operations, and `gradients[i]` for the gradient of input `i`. `Add` takes one more for
/// each element.
pub fn of(op: &dyn Op, ins: &[Spec], pass: Pass, forward: usize, gradients: &[usize]) -> Cost {
    let forward = if let Pass::Vjp(_) = pass { 0 } else { forward };
    let added = pass.wants().iter().zip(ins).filter(|(want, _)| **want == Want::Add).map(|(_, of)| of.shape.numel());
    let flops = forward + wanted(pass.wants(), gradients) + added.sum::<usize>();
    Cost { flops: flops as u64, bytes: bytes(op, ins, pass) }
}
