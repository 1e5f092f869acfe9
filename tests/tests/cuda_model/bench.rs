//! The benchmark on a GPU, on the host shim: every op and whole steps run, are recorded and counted. Rates mean nothing here.

use crate::shim;
use kernels::registry::ROOMS;
use lab::bench::{Cache, Ceilings, Effort, Report, STEPS, Setup, measure_all, roofline};
use tests::shim::Order;

#[test]
fn every_op_and_step_is_measured() {
    let config = crate::config("model.layers=1 model.seq=8 train.batch=1 fast.steps=2 train.precision=bf16");
    let setup = Setup::new(config, shim(Order::Forward)).expect("a setup");
    let setup = Setup { effort: Effort::least(), ..setup };
    let works = setup.works().expect("work");
    let mut ceilings = Ceilings::new(&setup.device, setup.dtype, &setup.effort).expect("room");
    let rows = measure_all(&setup, &works, &mut ceilings, &mut |_, _| ()).expect("rows");
    assert!(rows.iter().all(|row| row.samples.0.len() == setup.effort.passes), "a row without all its passes");
    for group in ROOMS.iter().map(|room| room.name).chain([STEPS]) {
        assert!(rows.iter().any(|row| row.task.group == group && row.samples.median() > 0.0), "{group}");
    }
    for work in &works {
        assert!(
            rows.iter()
                .any(|row| row.task.case == work.case && row.task.pass == work.name && row.task.cache == Cache::Hot)
        );
    }
    let training = rows.last().expect("rows");
    assert_eq!((training.task.case.as_str(), training.task.tokens), ("training step", Some(8)));
    let fast = rows.iter().find(|row| row.task.case == "fast step").expect("a row");
    assert!(training.task.flops > 2 * fast.task.flops);
    let report = Report::new(&setup, "tiny", &ceilings, rows);
    assert_eq!((report.machine.device.as_str(), report.machine.dtype.as_str()), ("host shim", "bf16"));
    assert!(report.to_json().to_string().contains("tokens_per_second") && !roofline(&report).contains("NaN"));
}
