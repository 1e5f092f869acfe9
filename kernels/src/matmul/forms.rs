//! Weights packed beforehand: form 0 for the product with `x`, form 1 for the product with `d_y`.

use super::gemm::{pack_b, packed_len};
use super::mat::Mat;
use engine::{Buffer, Device, Form, Pass, Spec, with_real};

/// The forms of the weight `w` [out, in], input number 1, that a pass of a linear map reads.
pub fn of_weight(device: &Device, w: Spec, pass: Pass) -> Vec<Option<Form>> {
    // On a GPU, products take matrices as they are.
    if !matches!(device, Device::Cpu) {
        return Vec::new();
    }
    let (outputs, inputs) = (w.shape.rows(), w.shape.last());
    let form = |elements: usize| Some(Form { input: 1, spec: Spec::new(w.dtype, &[elements]) });
    let (forward, backward) = (form(packed_len(inputs, outputs)), form(packed_len(outputs, inputs)));
    match pass {
        Pass::Forward => vec![forward],
        Pass::Vjp(wants) if wants[0].is_wanted() => vec![None, backward],
        Pass::Vjp(_) | Pass::Fused(_) => Vec::new(),
    }
}

/// Makes form `number` of a weight [out, in].
pub fn prepare(number: usize, w: &Buffer, form: &mut Buffer) {
    let (outputs, inputs) = (w.shape().rows(), w.shape().last());
    with_real!(w.dtype(), T => {
        let w = Mat::<T>::new(w.as_slice(), outputs, inputs);
        pack_b(if number == 0 { w.transposed() } else { w }, form.as_mut_slice());
    });
}
