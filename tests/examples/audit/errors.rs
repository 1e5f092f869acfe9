//! How far every op and update is off, per type and backend.

use engine::{DType, Device};
use gradtest::Tried;
use kernels::case::Case;
use kernels::cast::Cast;
use kernels::registry::{ROOMS, Room, modules};
use lab::verify::{self, Arithmetic, errors, passes, relative_error};
use std::collections::BTreeMap;
use tests::shim::{Order, Shim, loaded};

/// The types and backends that are compared with the CPU's f64.
pub const BACKENDS: [(&str, DType); 3] =
    [("CPU f32", DType::F32), ("CUDA f32, on the host shim", DType::F32), ("CUDA bf16, on the host shim", DType::Bf16)];

/// Worst relative errors; `None` where there is nothing to compare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Errors {
    pub result: Option<f64>,
    pub gradient: Option<f64>,
}

/// What the check of a gradient has certified.
#[derive(Clone, Debug, Default)]
pub struct Numeric {
    /// Random cases, and the worst relative difference of a number that could be certified.
    pub tried: Tried,
    /// The inputs, and in how many of the random cases something of each could be certified.
    pub certified: Vec<(String, usize)>,
}

/// What was found out about one op, or the updates of one room.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The check of the f64 gradient against central differences at random points.
    pub numeric: Option<Numeric>,
    /// By backend.
    pub backends: [Errors; 3],
}

fn worse(worst: &mut Option<f64>, error: f64) {
    *worst = Some(worst.map_or(error, |w| if error > w || error.is_nan() { error } else { w }));
}

fn shim() -> Device {
    loaded(Shim::device(Order::Forward), &modules())
}

/// By the op's name.
pub fn of_ops() -> BTreeMap<&'static str, Found> {
    let (cpu, gpu) = (Device::Cpu, shim());
    let mut all: BTreeMap<&'static str, Found> = BTreeMap::new();
    for room in ROOMS {
        for case in verify::sizes(room).iter().flat_map(|s| (room.cases)(s)) {
            let found = all.entry(case.op.name()).or_default();
            for (at, (_, dtype)) in BACKENDS.into_iter().enumerate() {
                let device = if at == 0 { &cpu } else { &gpu };
                if at > 0 && room.cuda.is_none() {
                    continue;
                }
                compare(&case, device, dtype, &mut found.backends[at]);
            }
        }
        numeric(room, &mut all);
    }
    // The cast has no room in the registry: its gradient cannot be checked numerically.
    let found = all.entry("cast").or_default();
    for (at, from, to) in [(1, DType::F32, DType::Bf16), (2, DType::Bf16, DType::F32)] {
        let case =
            Case::new("cast", Cast { to }, vec![kernels::case::Input::new(&[2059], kernels::case::Fill::NORMAL)]);
        let bits = |device: &Device| passes(&case, device, from, Arithmetic::Stored).expect("sound kernels");
        for (a, b) in bits(&gpu).iter().zip(&bits(&cpu)) {
            let of = &mut found.backends[at];
            let worst = if a.is_backward { &mut of.gradient } else { &mut of.result };
            for (a, b) in a.buffers.iter().zip(&b.buffers).filter(|(a, _)| !a.is_empty()) {
                worse(worst, relative_error(&a.to_f64(), &b.to_f64()));
            }
        }
    }
    all
}

/// All subsets of wanted inputs against central differences in f64, as the tests do it.
fn numeric(room: &Room, all: &mut BTreeMap<&'static str, Found>) {
    let summary = gradtest::gradients(room.cases).unwrap_or_else(|e| panic!("{}: {e}", room.name));
    for ((op, input), times) in summary.certified {
        let found = all.get_mut(op.as_str()).expect("an op of the room");
        let numeric = found.numeric.get_or_insert_default();
        numeric.tried = summary.by_op[&op];
        numeric.certified.push((input, times));
    }
}

fn compare(case: &Case, device: &Device, dtype: DType, found: &mut Errors) {
    let run = |device, arithmetic| passes(case, device, dtype, arithmetic).expect("sound kernels");
    let (ours, exact) = (run(device, Arithmetic::Stored), run(&Device::Cpu, Arithmetic::Exact));
    for (pass, _, error) in errors(&ours, &exact) {
        worse(if pass.is_backward { &mut found.gradient } else { &mut found.result }, error);
    }
}

/// By the room's name.
pub fn of_updates() -> BTreeMap<&'static str, Found> {
    let gpu = shim();
    let mut all: BTreeMap<&'static str, Found> = BTreeMap::new();
    for script in verify::scripts() {
        let run = |device: &Device, dtype| script.run(device, dtype).expect("sound kernels");
        let exact = run(&Device::Cpu, DType::F64);
        let found = all.entry(script.room).or_default();
        // Updates work on what is learned, which lies in f32.
        for (at, device) in [Device::Cpu, gpu.clone()].iter().enumerate() {
            for (a, b) in run(device, DType::F32).iter().zip(&exact) {
                worse(&mut found.backends[at].result, relative_error(&a.to_f64(), &b.to_f64()));
            }
        }
    }
    all
}
