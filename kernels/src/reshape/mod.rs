//! The same elements with another shape.

use crate::case::{Case, Input, Sizes};
use crate::{check, cost, elementwise};
use engine::{Buffer, Context, Cost, Op, Output, Pass, Result, Shape, Spec, Want};

/// `x [..] → y` of another shape with as many elements, in the same order.
///
/// - Formula: `y = x`
/// - VJP: `d_x = d_y`
/// - Source: elementary
///
/// Free in a plan, which lets both share one buffer, except where another op reads both shapes or the caller keeps y.
#[derive(Clone, Copy, Debug)]
pub struct Reshape(pub Shape);

impl Op for Reshape {
    check::names!("reshape": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let Self(shape) = *self;
        let spec = Spec { dtype: check::real("x", ins[0])?, shape };
        let (from, to) = (ins[0].shape.numel(), shape.numel());
        check::that(from == to, || format!("x is {}, must have the {to} elements of {shape}", ins[0]))?;
        Ok(vec![Output { name: "y", spec }])
    }

    fn only_reshapes(&self) -> bool {
        true
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        elementwise::pass_on(cx, Want::Write, ins[0], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        elementwise::pass_on(cx, wants[0], d_y, &mut d[0]);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost::of(self, ins, pass, 0, &[0])
    }
}

/// One case: the hidden states as a matrix.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let shape = Shape::new(&[s.batch * s.tokens, s.dim()]);
    vec![Case::new("as a matrix", Reshape(shape), vec![Input::normal(&[s.batch, s.tokens, s.dim()])])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, refuses};

    #[test]
    fn matches_the_formula() {
        check_all(cases, &[], |_, _, x| x[0].clone());
    }

    #[test]
    fn the_number_of_elements_stays() {
        let op = Reshape(Shape::new(&[4]));
        refuses(&op, "f32[2, 3]", "x is f32[2, 3], must have the 4 elements of [4]");
    }
}
