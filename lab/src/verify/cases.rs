//! Computes all results of an op's case, on any device and in any precision, for comparisons.

use engine::rng::Stream;
use engine::{Bench, Buffer, DType, Device, Result, Want};
use kernels::case::{Case, Input};

/// Outputs or gradients of one pass, in host memory.
#[derive(Debug)]
pub struct Pass {
    /// Its name, e.g. `result`.
    pub what: String,
    /// Whether gradients are among them.
    pub is_backward: bool,
    /// The numbers; empty if an input's gradient was not wanted.
    pub buffers: Vec<Buffer>,
}

/// All results of the case's op on tensors of `dtype`: gradients and fused passes for each input alone, for all inputs,
/// and with `Add`; and the result.
///
/// # Errors
/// If the device has failed.
///
/// # Panics
/// If the op refuses the case's shapes.
pub fn passes(case: &Case, device: &Device, dtype: DType) -> Result<Vec<Pass>> {
    passes_of(case, device, dtype, |b| b)
}

/// The same on the same numbers, computed by the CPU in f64.
pub fn exact(case: &Case, dtype: DType) -> Vec<Pass> {
    passes_of(case, &Device::CPU, dtype, |b| stored_as(DType::F64, &b)).expect("the CPU does not fail")
}

/// The same numbers, floats stored as `float`.
pub(super) fn stored_as(float: DType, b: &Buffer) -> Buffer {
    let dtype = if b.dtype() == DType::I32 { DType::I32 } else { float };
    Buffer::from_f64(dtype, b.shape().dims(), &b.to_f64())
}

fn passes_of(case: &Case, device: &Device, dtype: DType, given: impl Fn(Buffer) -> Buffer) -> Result<Vec<Pass>> {
    let op = case.op.as_ref();
    let stored = case.buffers(dtype, 7);
    let into: Vec<Buffer> =
        stored.iter().map(|b| given(Buffer::from_f64(b.dtype(), b.shape().dims(), &vec![0.5; b.len()]))).collect();
    let result = op.infer(&case.specs(dtype)).expect("the case's shapes")[0].spec;
    let d_out = given(Input::normal(result.shape.dims()).buffer(result.dtype, Stream::new(3, 99)));
    let ins: Vec<Buffer> = stored.into_iter().map(given).collect();
    let bench = Bench { device, op };
    let outs = bench.forward(&ins);
    let mut passes = Vec::new();
    for wants in all_wants(case) {
        let buffers = on_host(bench.vjp(&wants, &ins, &outs, &d_out, &into))?;
        passes.push(Pass { what: format!("gradient for {wants:?}"), is_backward: true, buffers });
        if op.fuses() {
            let (mut buffers, d_ins) = bench.forward_vjp(&wants, &ins, &into);
            buffers.extend(d_ins);
            let buffers = on_host(buffers)?;
            passes.push(Pass { what: format!("fused pass for {wants:?}"), is_backward: true, buffers });
        }
    }
    passes.push(Pass { what: "result".into(), is_backward: false, buffers: on_host(outs)? });
    device.finish()?;
    Ok(passes)
}

/// The buffers in host memory.
pub(super) fn on_host(buffers: Vec<Buffer>) -> Result<Vec<Buffer>> {
    let fetch = |b: Buffer| if b.address() == 0 { Ok(b) } else { Ok(b.on_host()?.into_owned()) };
    buffers.into_iter().map(fetch).collect()
}

/// `Write` and `Add` for each input alone and for all.
fn all_wants(case: &Case) -> Vec<Vec<Want>> {
    let n = case.ins.len();
    let mut all: Vec<Vec<Want>> = Vec::new();
    for want in [Want::Write, Want::Add] {
        for chosen in (0..n).map(|i| i..i + 1).chain(std::iter::once(0..n)) {
            let of = |i| if chosen.contains(&i) && case.op.differentiable(i) { want } else { Want::Skip };
            all.push((0..n).map(of).collect());
        }
    }
    all.retain(|wants| wants.iter().any(|w| w.is_wanted()));
    // With a single differentiable input, both are the same.
    all.dedup();
    all
}

/// The relative error of every buffer of these passes, with its pass and number.
pub fn errors<'a>(ours: &'a [Pass], exact: &'a [Pass]) -> impl Iterator<Item = (&'a Pass, usize, f64)> {
    ours.iter().zip(exact).flat_map(|(ours, exact)| {
        let pairs = ours.buffers.iter().zip(&exact.buffers).enumerate().filter(|(_, (a, _))| !a.is_empty());
        pairs.map(move |(i, (a, b))| (ours, i, relative_error(&a.to_f64(), &b.to_f64())))
    })
}

/// ‖a − b‖ / ‖b‖; ‖a‖ if b is zero; infinity if that is NaN.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    let error = if size > 0.0 { difference / size } else { difference };
    if a.len() != b.len() || error.is_nan() { f64::INFINITY } else { error }
}
