//! Every op's gradient against central differences in f64: all subsets of wanted inputs, over shapes and values drawn by
//! proptest, which shrinks what fails.

use autograd::gradcheck::{Options, check_op};
use engine::DType;
use kernels::case::Sizes;
use kernels::registry::ROOMS;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tests::{MEDIUM, sizes};

fn check(room: &str, s: &Sizes, seed: u64) -> Result<(), String> {
    let room = ROOMS.iter().find(|r| r.name == room).expect("a registered room");
    for case in (room.cases)(s) {
        let ins = case.buffers(DType::F64, seed);
        let options = Options { seed, ..Options::default() };
        let report = check_op(case.op.as_ref(), &ins, &options).map_err(|e| format!("case {}: {e}", case.label))?;
        let differentiable = (0..ins.len()).any(|i| case.op.differentiable(i));
        let sure = report.checked > 0 || !differentiable;
        if !sure && s == &MEDIUM {
            return Err(format!("case {}: no gradient could be certified", case.label));
        }
    }
    Ok(())
}

#[test]
fn every_gradient_of_every_op() {
    for room in ROOMS {
        let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
        runner
            .run(&(sizes(), any::<u64>()), |(s, seed)| check(room.name, &s, seed).map_err(TestCaseError::fail))
            .unwrap_or_else(|e| panic!("{}: {e}", room.name));
        check(room.name, &MEDIUM, 1).unwrap_or_else(|e| panic!("{} at {MEDIUM:?}: {e}", room.name));
    }
}
