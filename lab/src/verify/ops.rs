use autograd::gradcheck::{Bench, Options, check_op};
use engine::{Buffer, DType, Want};
use kernels::case::{Case, Sizes};
use kernels::registry::ROOMS;

/// How one op did at all of its cases.
#[derive(Clone, Debug, PartialEq)]
pub struct OpReport {
    /// Room and op.
    pub op: String,
    /// Cases run.
    pub cases: usize,
    /// Worst relative error ‖f32 − f64‖ / ‖f64‖ of any output.
    pub forward: f64,
    /// The same of any gradient.
    pub gradient: f64,
    /// Worst relative difference between an f64 gradient and central differences; `None` without gradients.
    pub numeric: Option<f64>,
    /// What was found wrong.
    pub failure: Option<String>,
}

/// Largest accepted relative error of f32 against f64.
const F32_TOLERANCE: f64 = 1e-4;

/// Sizes with tails everywhere, and sizes with full blocks.
const SIZES: [Sizes; 2] = [
    Sizes { batch: 2, tokens: 37, heads: 3, head_dim: 10, window: 11, latents: 3, ffn: 45, vocab: 101 },
    Sizes { batch: 1, tokens: 128, heads: 2, head_dim: 32, window: 48, latents: 8, ffn: 96, vocab: 258 },
];

/// Runs every op's cases on this machine.
pub fn ops() -> Vec<OpReport> {
    ROOMS
        .iter()
        .map(|room| {
            let mut report =
                OpReport { op: room.name.into(), cases: 0, forward: 0.0, gradient: 0.0, numeric: None, failure: None };
            for case in SIZES.iter().flat_map(|s| (room.cases)(s)) {
                check(&case, &mut report);
            }
            report
        })
        .collect()
}

fn check(case: &Case, report: &mut OpReport) {
    report.cases += 1;
    let (exact, single) = (run(case, DType::F64), run(case, DType::F32));
    let place = format!("{} {}", case.op.name(), case.label);
    for (what, pairs, worst) in [
        ("output", exact.0.iter().zip(&single.0), &mut report.forward),
        ("gradient", exact.1.iter().zip(&single.1), &mut report.gradient),
    ] {
        for (i, (a, b)) in pairs.enumerate() {
            let error = relative_error(b, a);
            *worst = worst.max(error);
            // Written so that NaN fails.
            let close = error <= F32_TOLERANCE;
            if !close {
                report.failure.get_or_insert(format!("{place}: {what} {i} is off by {error:.1e}"));
            }
        }
    }
    match check_op(case.op.as_ref(), &case.buffers(DType::F64, 1), &Options::default()) {
        Ok(r) if r.checked > 0 => report.numeric = Some(report.numeric.unwrap_or(0.0).max(r.worst)),
        Ok(_) => {}
        Err(e) => {
            report.failure.get_or_insert(format!("{place}: {e}"));
        }
    }
}

/// Outputs and gradients at the same numbers in any precision.
fn run(case: &Case, dtype: DType) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let ins = case.buffers(dtype, 1);
    let op = case.op.as_ref();
    let mut bench = Bench::new(op, &ins);
    let outs = bench.forward(&ins);
    let wants: Vec<Want> =
        (0..ins.len()).map(|i| if op.differentiable(i) { Want::Write } else { Want::Skip }).collect();
    let grads = if wants.contains(&Want::Write) {
        let d_out = Buffer::from_f64(dtype, outs[0].shape().dims(), &vec![1.0; outs[0].len()]);
        bench.vjp(&wants, &ins, &outs, &d_out, &[])
    } else {
        Vec::new()
    };
    let numbers = |buffers: &[Buffer]| buffers.iter().filter(|b| !b.is_empty()).map(Buffer::to_f64).collect();
    (numbers(&outs), numbers(&grads))
}

/// ‖a − b‖ / ‖b‖, and ‖a‖ where b is zero.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    if size > 0.0 { difference / size } else { difference }
}
