//! candle's gradients under the tests of `gradtest`: the adapter, and a function of its tensors.

use candle_core::{D, Device, Var};
use gradtest::{Case, Foreign, Function, Input, Strategy, Tensor, shapes};

/// A tensor of candle. Inputs are variables, for which candle records gradients.
pub struct Candle(pub candle_core::Tensor);

impl Foreign for Candle {
    fn tracked(tensor: &Tensor) -> Self {
        let var = Var::from_slice(&tensor.data, tensor.dims.as_slice(), &Device::Cpu).expect("a tensor");
        Self(var.into_inner())
    }

    fn numbers(&self) -> Vec<f64> {
        self.0.flatten_all().and_then(|x| x.to_vec1()).expect("numbers")
    }

    fn gradients(&self, d_y: &[f64], ins: &[Self]) -> Vec<Vec<f64>> {
        let d_y = candle_core::Tensor::from_slice(d_y, self.0.dims(), &Device::Cpu).expect("a tensor");
        let scalar = (&self.0 * d_y).and_then(|y| y.sum_all()).expect("a scalar");
        let gradients = scalar.backward().expect("gradients");
        let zeros = |x: &candle_core::Tensor| x.zeros_like().expect("zeros");
        ins.iter().map(|x| Self(gradients.get(&x.0).cloned().unwrap_or_else(|| zeros(&x.0))).numbers()).collect()
    }
}

/// log Σ exp(x) over the last axis, in candle's operations. Subtracting the maximum m and adding it again changes
/// nothing, so neither m is differentiated; with `is_wrong`, the one that is added is.
pub fn log_sum_exp(is_wrong: bool) -> Function {
    let value = move |x: &candle_core::Tensor| {
        let most = x.max_keepdim(D::Minus1)?;
        let sum = x.broadcast_sub(&most.detach())?.exp()?.sum_keepdim(D::Minus1)?;
        sum.log()? + if is_wrong { most } else { most.detach() }
    };
    Function::foreign("log_sum_exp", &["x"], move |ins: &[Candle]| Candle(value(&ins[0].0).expect("shapes that fit")))
}

/// Any shape of up to three dimensions.
pub fn cases(function: Function) -> impl Strategy<Value = Case> {
    function.cases(shapes(3, 4).prop_map(|dims| vec![Input::normal(&dims)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    gradtest::property_tests!(candle, cases(log_sum_exp(false)));

    #[test]
    fn a_maximum_differentiated_once_is_found() {
        let found = gradtest::gradients(cases(log_sum_exp(true))).unwrap_err();
        assert!(found.starts_with("log_sum_exp: gradient of x[0] is ") && found.contains("x f64[1] = "), "{found}");
    }
}
