use super::*;
use crate::{Graph, Phase, Store, Value};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want};

/// `y = f(x)` elementwise with a claimed derivative.
#[derive(Debug)]
struct Elementwise {
    f: fn(f64) -> f64,
    slope: fn(f64) -> f64,
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn reads(&self, _: &[Want]) -> Reads {
        Reads::of(&[0], &[])
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        outs[0].set_f64(&ins[0].to_f64().into_iter().map(self.f).collect::<Vec<_>>());
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let (x, d_y, d_x) = (ins[0].to_f64(), d_y.to_f64(), d[0].as_mut_slice::<f64>());
        for i in 0..x.len() {
            d_x[i] = if wants[0] == Want::Add { d_x[i] } else { 0.0 } + (self.slope)(x[i]) * d_y[i];
        }
    }

    fn cost(&self, _: &[Spec], _: Pass) -> Cost {
        Cost::default()
    }
}

fn check(f: fn(f64) -> f64, slope: fn(f64) -> f64, x: &[f64]) -> std::result::Result<Report, Failure> {
    let x = Buffer::from_f64(DType::F64, &[x.len()], x);
    check_op(&Elementwise { f, slope }, &[x], &Options::default())
}

fn reasons(report: &Report) -> Vec<(Place, Reason)> {
    report.not_checked.iter().map(|n| (n.place, n.reason)).collect()
}

const ALONG: Place = Place::Projection;

#[test]
fn a_right_gradient_is_certified_entry_by_entry() {
    let report = check(f64::sin, f64::cos, &[0.3, -1.0, 40.0]).unwrap();
    assert_eq!((report.checked, &report.certified[..], &report.not_checked[..]), (4, &["x".to_string()][..], &[][..]));
    assert!(report.worst < 1e-9, "{report}");
}

#[test]
fn a_wrong_gradient_is_reported_with_its_worst_entry() {
    let slope = |x: f64| if x > 0.5 { x.cos() + 0.5 } else { x.cos() * 1.01 };
    let Err(Failure::Wrong(wrong)) = check(f64::sin, slope, &[0.3, 1.0]) else { panic!("a wrong slope passed") };
    assert_eq!((wrong.place, wrong.check, &wrong.input[..], wrong.seed), (Place::Entry(1), Check::Numeric, "x", 0));
    assert!((wrong.claimed / wrong.expected - (1f64.cos() + 0.5) / 1f64.cos()).abs() < 1e-6, "{wrong}");
    for (claim, slope) in [(f64::NAN, (|_| f64::NAN) as fn(f64) -> f64), (f64::INFINITY, |_| f64::INFINITY)] {
        let Err(Failure::Wrong(wrong)) = check(f64::sin, slope, &[0.3]) else { panic!("{claim} passed") };
        assert_eq!((wrong.place, wrong.claimed.abs().to_string()), (Place::Entry(0), claim.to_string()));
    }
    assert_eq!(op::largest(&[f64::INFINITY, -3.0, f64::NAN]), 3.0);
}

#[test]
fn at_a_kink_nothing_is_certified() {
    for slope in [|_| 0.0, |_| 1.0, |_| 0.5] as [fn(f64) -> f64; 3] {
        let report = check(|x| x.max(0.0), slope, &[0.0]).unwrap();
        assert_eq!(reasons(&report), [(Place::Entry(0), Reason::Kink), (ALONG, Reason::Kink)]);
        assert_eq!((report.checked, report.certified.len()), (0, 0));
    }
    // Near the kink, smaller steps stay on one side, and the check finds a wrong slope.
    let relu = |x: f64| x.max(0.0);
    let step = |x: f64| f64::from(u8::from(x > 0.0));
    assert_eq!(check(relu, step, &[3e-4, -1e-4, 1.0]).unwrap().certified, ["x"]);
    assert!(check(relu, |_| 0.0, &[3e-4]).is_err());
    // A kink in one entry does not prevent the check of the others.
    let report = check(f64::abs, f64::signum, &[0.0, 2.0]).unwrap();
    assert_eq!(reasons(&report), [(Place::Entry(0), Reason::Kink), (ALONG, Reason::Kink)]);
    assert_eq!(report.checked, 1);
    assert!(check(f64::abs, |x| -x.signum(), &[0.0, 2.0]).is_err());
}

/// A million numbers at kinks, at every distance from a kink, and far away, each point with its own projection; also without
/// the check of entries.
#[test]
fn right_gradients_are_never_called_wrong_near_kinks() {
    type Function = fn(f64) -> f64;
    let ops: [(Function, Function); 3] = [
        (|x| x.max(0.0), |x| f64::from(u8::from(x > 0.0))),
        (|x| if x > 0.0 { x } else { 0.01 * x }, |x| if x > 0.0 { 1.0 } else { 0.01 }),
        (f64::abs, |x| if x == 0.0 { 0.0 } else { x.signum() }),
    ];
    let point = |seed: u64| -> Vec<f64> {
        let stream = Stream::new(seed, 77);
        let number = |i: u32| {
            let [kind, exponent, sign, _] = stream.words(i);
            let sign = if sign & 1 == 0 { 1.0 } else { -1.0 };
            match kind % 4 {
                0 => 0.0,
                1 => sign,
                2 => stream.normal(i + 100),
                _ => sign * 10f64.powf(-12.0 * f64::from(exponent) / f64::from(u32::MAX)),
            }
        };
        (0..12).map(number).collect()
    };
    // The entries away from kinks, and how many of them are certified.
    let count = |(f, slope): (Function, Function)| {
        let (mut far, mut certified) = (0, 0);
        for seed in 0..28_000 {
            let x = point(seed);
            let buffer = Buffer::from_f64(DType::F64, &[12], &x);
            let check = |slope, entrywise| {
                let options = Options { seed, entrywise };
                check_op(&Elementwise { f, slope }, std::slice::from_ref(&buffer), &options)
            };
            let report = check(slope, 12).unwrap_or_else(|e| panic!("{x:?}: {e}"));
            check(slope, 0).unwrap_or_else(|e| panic!("{x:?}, without entries: {e}"));
            for (i, _) in x.iter().enumerate().filter(|(_, x)| x.abs() > 0.01 && slope(**x) != 0.0) {
                far += 1;
                certified += usize::from(report.not_checked.iter().all(|n| n.place != Place::Entry(i)));
            }
        }
        [far, certified]
    };
    let [far, certified] = std::thread::scope(|scope| {
        let threads = ops.map(|op| scope.spawn(move || count(op)));
        threads
            .map(|thread| thread.join().expect("right gradients"))
            .into_iter()
            .fold([0, 0], |[a, b], [c, d]| [a + c, b + d])
    });
    // The check is not blind: a few slopes are too small.
    assert!(far > 300_000 && certified > far * 99 / 100, "{certified} of {far} entries away from kinks");
}

#[test]
fn what_is_not_finite_or_too_small_or_rough_is_not_certified() {
    let report = check(f64::ln, f64::recip, &[0.0]).unwrap();
    assert_eq!(reasons(&report)[0], (Place::Entry(0), Reason::NotFinite));
    assert_eq!(check(|x| 1e-14 * x, |_| 1e-14, &[0.0]).unwrap().checked, 2, "a small gradient of a small function");
    assert!(check(|x| 1e-14 * x, |_| 2e-14, &[0.0]).is_err());
    // Smaller steps stay within the domain.
    assert_eq!(check(f64::ln, f64::recip, &[1e-3]).unwrap().certified, ["x"]);
    // A function that does not move, and one that moves in steps because its terms cancel.
    let report = check(|x| (1e8 + 1e-9 * x) - 1e8, |_| 1e-10, &[1.0]).unwrap();
    assert_eq!(reasons(&report)[0], (Place::Entry(0), Reason::TooSmall));
    for seed in 0..2000 {
        let x = Stream::new(seed, 78).normal(0);
        for staircase in [|x| (1e8 + x) - 1e8, |x| (1e10 + x) - 1e10, |x| (1e12 + x) - 1e12] as [fn(f64) -> f64; 3] {
            check(staircase, |_| 1.0, &[x]).unwrap_or_else(|e| panic!("{x}: {e}"));
        }
    }
    assert!(check(|x| (1e8 + x) - 1e8, |_| 1.01, &[0.3]).is_err());
    // Next to a slope of one, rounding hides one of 10⁻¹³.
    let claims = [1.0, 2e-13];
    let claim = Claim { name: "x", at: &[0.5, 0.5], gradient: &claims };
    let report = check_function("f", &[claim], |x| x[0][0] + 1e-13 * x[0][1], &Options::default()).unwrap();
    assert_eq!(reasons(&report), [(Place::Entry(1), Reason::TooSmall)]);
    let report = check(|x| 1e6 + 1e-9 * x, |_| 2e-9, &[1.0]).unwrap();
    assert_eq!(reasons(&report)[0], (Place::Entry(0), Reason::TooSmall));
    let report = check(|x| x.powi(3), |x| 3.0 * x * x, &[0.5, -2.0, 0.0]).unwrap();
    assert_eq!(report.not_checked[0].to_string(), "gradient of x[2]: not checked, too small to certify");
    let rough = |x: f64| (1e9 * x).sin();
    let report = check(rough, |_| 0.0, &[0.1]).unwrap();
    assert_eq!((report.checked, reasons(&report).len()), (0, 2), "{report}");
}

/// The sum of all inputs, with gradients that may be wrong if all are wanted.
#[derive(Debug)]
struct Many {
    names: &'static [&'static str],
    is_wrong: bool,
}

const NAMES: [&str; 17] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];

impl Op for Many {
    fn name(&self) -> &'static str {
        "many"
    }

    fn arguments(&self) -> &'static [&'static str] {
        self.names
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        outs[0].set_f64(&[ins.iter().map(|x| x.to_f64()[0]).sum()]);
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let all = wants.iter().all(|want| want.is_wanted());
        for (want, d) in wants.iter().zip(d).filter(|(want, _)| want.is_wanted()) {
            let before = if *want == Want::Add { d.to_f64()[0] } else { 0.0 };
            let factor = if self.is_wrong && all { 2.0 } else { 1.0 };
            d.set_f64(&[before + factor * d_y.to_f64()[0]]);
        }
    }

    fn cost(&self, _: &[Spec], _: Pass) -> Cost {
        Cost::default()
    }
}

#[test]
fn many_inputs_are_checked_in_some_subsets_and_too_many_refused() {
    let check = |count: usize, is_wrong| {
        let ins = vec![Buffer::from_f64(DType::F64, &[1], &[0.5]); count];
        check_op(&Many { names: &NAMES[..count], is_wrong }, &ins, &Options::default())
    };
    let subsets = |count| op::subsets(count, 5);
    assert_eq!((subsets(3).len(), subsets(6).len()), (7, 63));
    for count in [7, 16] {
        let (all, subsets) = ((1 << count) - 1, subsets(count));
        assert!((0..count).all(|i| subsets.contains(&(1 << i)) && subsets.contains(&(all & !(1 << i)))));
        assert!(subsets.contains(&all) && subsets.iter().all(|subset| (1..=all).contains(subset)));
    }
    for count in [1, 6, 7, 14, 16] {
        let report = check(count, false).unwrap();
        assert_eq!(report.certified, NAMES[..count]);
        // Two comparisons in each subset of each input.
        assert!(report.checked < 2 * 16 * 80, "{count} inputs: {} comparisons", report.checked);
        assert!(check(count, true).is_err(), "{count} inputs");
    }
    let error = check(17, false).unwrap_err().to_string();
    let limit = "has 17 inputs and 1 outputs; an op may have up to 16 inputs and 1 to 16 outputs";
    assert_eq!(error, format!("the check was refused: many: {limit}"));
    let mut g = Graph::new();
    let x = g.leaf("x", Phase::Batch, Store::new(Device::CPU).alloc(Spec::new(DType::F64, &[1])));
    let error = g.apply(Many { names: &NAMES, is_wrong: false }, &[x; 17]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("many: {limit} (recorded at ")), "{error}");
}

#[test]
fn arguments_that_cannot_be_checked_are_refused() {
    let single = Buffer::from_f64(DType::F32, &[1], &[1.0]);
    let op = Elementwise { f: f64::sin, slope: f64::cos };
    let error = check_op(&op, &[single], &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "the check was refused: elementwise x is f32[1], must be f64 to be checked");
    let two = vec![Buffer::from_f64(DType::F64, &[1], &[1.0]); 2];
    let error = check_op(&op, &two, &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "the check was refused: elementwise: takes 1 inputs (x), got 2");
    let claim = Claim { name: "x", at: &[1.0, 2.0], gradient: &[1.0] };
    let error = check_function("f", &[claim], |_| 0.0, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("the gradient of x has 1 numbers, must have 2, as the input"), "{error}");
}

#[test]
fn graphs_are_checked_and_left_as_they_were() {
    let mut store = Store::new(Device::CPU);
    let id = store.insert(Buffer::from_f64(DType::F64, &[2, 2], &[0.1, -0.7, 1.3, 2.0]));
    let recorded = |slope: fn(f64) -> f64| {
        let mut g = Graph::new();
        let x = g.leaf("x", Phase::Batch, id);
        let y = g.apply(Elementwise { f: f64::sin, slope: f64::cos }, &[x]).unwrap();
        let y = g.apply(Elementwise { f: f64::exp, slope }, &[y]).unwrap();
        let root = g.apply(Projection::new(3), &[y]).unwrap();
        (g, x, root)
    };
    let (mut g, x, root) = recorded(f64::exp);
    let before = store.get(id).to_f64();
    let report = check_graph(&g, &mut store, root, &[x], &Options::default()).unwrap();
    // Four entries, and all of them along a random direction.
    assert_eq!((report.checked, &report.certified[..]), (5, &["x".to_string()][..]));
    assert_eq!(store.get(id).to_f64(), before);
    let mut refused = |g: &Graph, root: Value, wants: &[Value]| {
        check_graph(g, &mut store, root, wants, &Options::default()).unwrap_err().to_string()
    };
    let (wrong, wrong_x, wrong_root) = recorded(|x| 1.001 * x.exp());
    let error = refused(&wrong, wrong_root, &[wrong_x]);
    assert!(error.starts_with("projection.y: gradient of x["), "{error}");
    let error = refused(&g, root, &[root]);
    assert!(error.contains("not a leaf"), "{error}");
    g.leaf("twin", Phase::Batch, id);
    let error = refused(&g, root, &[x]);
    assert_eq!(error, "the check was refused: x and twin share a buffer: give each its own");
}

#[test]
fn errors_of_recording_name_scope_and_caller() {
    let mut g = Graph::new();
    g.scope("head");
    let x = g.leaf("x", Phase::Batch, Store::new(Device::CPU).alloc(Spec::new(DType::F32, &[4])));
    let error = g.apply(Projection::new(1), &[x]).unwrap_err().to_string();
    assert!(error.starts_with("projection in head: takes one input of f64 (recorded at "), "{error}");
}

#[test]
#[should_panic(expected = "leaf x is f64[2], but its buffer is now Buffer(f32[3]): write into it")]
fn a_leaf_whose_buffer_was_replaced_is_refused() {
    let mut store = Store::new(Device::CPU);
    let id = store.insert(Buffer::from_f64(DType::F64, &[2], &[0.1, -0.7]));
    let mut g = Graph::new();
    let x = g.leaf("x", Phase::Batch, id);
    let y = g.apply(Elementwise { f: f64::sin, slope: f64::cos }, &[x]).unwrap();
    let request = crate::Request { keep: vec![y], ..Default::default() };
    let plan = crate::Plan::new(&g, &mut store, &request).unwrap();
    plan.run_all(&mut store);
    *store.get_mut(id) = Buffer::from_slice(&[3], &[1.0f32; 3]);
    plan.run_all(&mut store);
}
