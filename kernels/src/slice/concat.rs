use super::{Part, cpu, moved, resized, size};
use crate::{check, cost};
use engine::op::MOST;
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Result, Shape, Spec, Want, with_real};

/// Names of the inputs.
const NAMES: [&str; MOST] =
    ["x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15"];

/// `x0 [.., n0, ..], x1 [.., n1, ..], … → y [.., n0 + n1 + …, ..]`, 1 to 16 inputs. Memory-bound.
///
/// - Formula: `y` is the inputs one after the other on the axis
/// - VJP: each gradient is the slice of `d_y`
/// - Source: elementary
#[derive(Clone, Debug)]
pub struct Concat {
    /// The axis, 0 for the outermost.
    pub axis: usize,
    /// Each input's size on this axis. So the VJP knows the place of an input without reading the others.
    pub sizes: Vec<usize>,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &NAMES[..self.sizes.len().min(MOST)]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let (axis, count) = (self.axis, self.sizes.len());
        check::that((1..=MOST).contains(&count), || format!("joins {count} inputs, must join 1 to {MOST}"))?;
        size(NAMES[0], ins[0], axis)?;
        for ((name, &got), &size) in NAMES.iter().zip(ins).zip(&self.sizes) {
            check::is(name, got, ins[0].dtype, resized(ins[0], axis, size).shape.dims())?;
        }
        Ok(vec![Output { name: "y", spec: resized(ins[0], axis, self.sizes.iter().sum()) }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (parts, y) = (self.parts(outs[0].shape()), &mut outs[0]);
        if let Device::Cuda(gpu) = cx.device {
            return ins
                .iter()
                .zip(parts)
                .for_each(|(x, part)| part.launch(&**gpu, "put", x, y, x.len(), Some(Want::Write)));
        }
        with_real!(y.dtype(), T => {
            let mut all: [(&[T], usize); MOST] = [(&[], 0); MOST];
            ins.iter().zip(parts).zip(&mut all).for_each(|((x, part), slot)| *slot = (x.as_slice(), part.len));
            cpu::join::<T>(&all[..ins.len()], y.as_mut_slice());
        });
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        for ((d, part), &want) in d.iter_mut().zip(self.parts(d_y.shape())).zip(wants) {
            if want.is_wanted() {
                part.take(cx, want, d_y, d);
            }
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        match pass {
            Pass::Vjp(wants) => ins.iter().zip(wants).map(|(&x, &want)| moved(x, want)).sum(),
            _ => cost::of(self, ins, pass, 0, &[]),
        }
    }
}

impl Concat {
    /// The inputs' parts of `y`.
    fn parts(&self, y: Shape) -> impl Iterator<Item = Part> {
        self.sizes.iter().scan(0, move |start, &size| {
            *start += size;
            Some(Part::of(y, self.axis, *start - size, size))
        })
    }
}
