//! Computes all results of an op's case, on any device and in any precision, for comparisons.

use engine::eager::{relative_error, stored_as};
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Eager, Result, Want};
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

fn passes_of(case: &Case, device: &Device, dtype: DType, given: impl Fn(Buffer) -> Buffer) -> Result<Vec<Pass>> {
    let op = case.op.as_ref();
    let stored = case.buffers(dtype, 7);
    let into: Vec<Buffer> =
        stored.iter().map(|b| given(Buffer::from_f64(b.dtype(), b.shape().dims(), &vec![0.5; b.len()]))).collect();
    let result = op.infer(&case.specs(dtype)).expect("the case's shapes")[0].spec;
    let d_out = given(Input::normal(result.shape.dims()).buffer(result.dtype, Stream::new(3, 99)));
    let ins: Vec<Buffer> = stored.into_iter().map(given).collect();
    let eager = Eager { device, op };
    let outs = eager.forward(&ins);
    let mut passes = Vec::new();
    for wants in all_wants(case) {
        let buffers = on_host(eager.vjp(&wants, &ins, &outs, &d_out, &into))?;
        passes.push(Pass { what: format!("gradient for {wants:?}"), is_backward: true, buffers });
        if op.fuses() {
            let (mut buffers, d_ins) = eager.forward_vjp(&wants, &ins, &into);
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
