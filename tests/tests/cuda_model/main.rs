//! Tests the model on the host shim: whole runs, the requests of a step to the device, and the checks and the benchmark
//! of a device.

mod run;

use engine::{Alone, DType, Device};
use kernels::registry::{ROOMS, modules};
use lab::bench::{STEPS, Setup, measure_all, picture};
use lab::verify::{device, golden};
use ltm::config::Config;
use ltm::train::Trainer;
use roofline::{Cache, Effort, Recorder, Report, Task};
use std::sync::Arc;
use tests::measured::{ON_SHIM, errors, same_line};
use tests::shim::{Counts, Fault, Order, Shim, loaded};
use tests::threads::together;

/// A small model, with these settings changed.
fn config(settings: &str) -> Config {
    let model = "model.dim=24 model.heads=2 model.layers=2 model.seq=13 model.window=5 model.latents=3";
    tests::tiny(&format!("{model} train.batch=2 fast.steps=4 {settings}"))
}

/// A device with all kernels.
fn shim(order: Order) -> Device {
    loaded(Shim::device(order), &modules())
}

/// Every op and whole steps run, are recorded and counted. Rates are meaningless here.
#[test]
fn every_op_and_step_is_measured() {
    let config = config("model.layers=1 model.seq=8 train.batch=1 fast.steps=2 train.precision=bf16");
    let setup = Setup::new(config, shim(Order::Forward)).expect("a setup");
    let setup = Setup { effort: Effort::least(), all: true, ..setup };
    let works = setup.works().expect("work");
    let mut recorder = Recorder::new(&setup.device, setup.dtype, setup.effort).expect("room");
    measure_all(&setup, &works, &mut recorder, &mut |_, _| ()).expect("rows");
    let rows = recorder.rows();
    assert!(rows.iter().all(|row| row.samples.0.len() == setup.effort.passes), "a row without all its passes");
    for group in ROOMS.iter().map(|room| room.name).chain([STEPS]) {
        assert!(rows.iter().any(|row| row.task.group == group && row.samples.median() > 0.0), "{group}");
    }
    for work in &works {
        let is_this = |task: &Task| task.case == work.case && task.pass == work.name && task.cache == Cache::Hot;
        assert!(rows.iter().any(|row| is_this(&row.task)));
    }
    let training = rows.last().expect("rows");
    assert_eq!((training.task.case.as_str(), training.task.tokens), ("training step", Some(8)));
    let fast = rows.iter().find(|row| row.task.case == "fast step").expect("a row");
    assert!(training.task.flops > 2 * fast.task.flops);
    let report = Report::new(setup.conditions("tiny".into()), &recorder.ceilings, rows);
    let machine = &report.conditions.machine;
    assert_eq!((machine.device.as_str(), machine.dtype.as_str()), ("host shim", "bf16"));
    assert!(report.to_json().contains("tokens_per_second") && !picture(&report).contains("NaN"));
}

/// After the first batch, training allocates no GPU memory, and the fast steps of a batch make no transfer between host
/// and device; every fast step is one launch of the recording.
#[test]
fn a_fast_step_is_one_launch() {
    for precision in ["f32", "bf16"] {
        let (device, counts) = Shim::counted();
        let config = config(&format!("fast.steps=6 train.precision={precision}"));
        let mut trainer = Trainer::new(config, &loaded(device, &modules())).expect("a trainer");
        for round in 0..3 {
            let before = counts();
            let batch = tests::batch(2, 13, round);
            let mut behind: Vec<Counts> = Vec::new();
            trainer.fit(&batch, |_, _| behind.push(counts())).expect("a batch that fits");
            assert_eq!(behind.len(), 6);
            for (t, (before, after)) in behind.iter().zip(&behind[1..]).enumerate() {
                let place = format!("{precision}, batch {round}, fast step {}", t + 1);
                let quiet = (after.memory, after.transfers) == (before.memory, before.transfers);
                assert!(quiet, "{place}: nothing is allocated, sent or fetched");
                // The first batch's first steps are run and recorded.
                if round > 0 || t > 1 {
                    let (work, replays) = (after.work - before.work, after.replays - before.replays);
                    assert_eq!((work, replays), (0, 1), "{place}: one launch of the recording");
                }
            }
            trainer.train(&batch).expect("a step");
            assert!(round == 0 || counts().memory == before.memory, "{precision}: no memory after the first batch");
        }
    }
}

/// Their gradients are added, and later draws are from the fits of all parts.
#[test]
fn a_batch_in_parts() {
    let config = config("model.layers=1 model.seq=8 fast.steps=2 slow.updates=2 train.micro=1");
    let norms = [loaded(Shim::device(Order::Forward), &modules()), Device::CPU].map(|device| {
        let mut trainer = Trainer::new(config.clone(), &device).expect("a trainer");
        [0, 1].map(|round| trainer.train(&tests::batch(2, 8, round)).expect("a step").grad_norm)
    });
    for (gpu, cpu) in norms[0].iter().zip(norms[1]) {
        assert!((gpu / cpu - 1.0).abs() < 1e-3, "{norms:?}");
    }
}

/// One GPU for all, or one each: the same bits.
#[test]
fn processes_with_gpus_train_the_same_model() {
    let config = config("model.layers=1 model.seq=8 fast.steps=2 slow.updates=2 train.micro=1");
    let train = |ranks| {
        let mut trainer = Trainer::among(config.clone(), &shim(Order::Forward), ranks).expect("a trainer");
        trainer.share().expect("the weights of process 0");
        let reports = [0, 1].map(|round| trainer.train(&tests::batch(2, 8, round)).expect("a step"));
        let weights = trainer.params.iter().map(|p| trainer.store.get(p.id).read_f64().expect("a sound device"));
        (reports, weights.collect::<Vec<_>>())
    };
    let alone = train(Arc::new(Alone));
    assert!(together(2, train).into_iter().all(|done| done == alone));
}

/// It trains with the same bits as one that records, and can be measured.
#[test]
fn a_device_that_records_nothing() {
    let config = config("model.layers=1 model.seq=8 fast.steps=4");
    let direct = loaded(Shim::direct(), &modules());
    let trained = |device: &Device| {
        let mut trainer = Trainer::new(config.clone(), device).expect("a trainer");
        let report = trainer.train(&tests::batch(2, 8, 0)).expect("a step");
        (trainer.checksum(), report.nll.to_bits(), report.kl.to_bits())
    };
    assert_eq!(trained(&direct), trained(&shim(Order::Forward)));
    let setup = Setup::new(config, direct).expect("a setup");
    let setup = Setup { effort: Effort::least(), only: vec!["rmsnorm".into()], ..setup };
    let mut recorder = Recorder::new(&setup.device, setup.dtype, setup.effort).expect("room");
    measure_all(&setup, &setup.works().expect("work"), &mut recorder, &mut |_, _| ()).expect("rows");
    assert!(!recorder.rows().is_empty());
}

/// A mistake is reported with its place, and only there. Blocks of an RTX 40 have less shared memory, so attention with
/// wide heads is skipped if it does not fit. The rest passes.
#[test]
fn a_smaller_device_with_a_mistake() {
    let fault = Fault { file: "latents", find: "site + number", replace: "site + number + 1" };
    let gpu = loaded(Shim::with_shared(99 << 10, Some(fault)), &modules());
    let mut told = 0;
    let reports = device(&gpu, &[], |_| told += 1).expect("a device that does not fail");
    assert_eq!(told, reports.len());
    assert!(reports.iter().all(|r| r.cases > 0));
    for name in ["rmsnorm", "self_attention", "cast", "adamw in place"] {
        assert!(reports.iter().any(|r| r.op == name), "{name} is not checked");
    }
    // AUDIT.md has the same errors as measured here, except for the mistake and the skipped ops.
    let said = include_str!("../../../AUDIT.md");
    for r in reports.iter().filter(|r| r.failure.is_none() && r.left_out == 0) {
        let line = errors(ON_SHIM, r);
        assert!(said.lines().any(|said| same_line(said, &line)), "AUDIT.md does not say: {line}");
    }
    let wrong: Vec<_> = reports.iter().filter(|r| r.failure.is_some()).collect();
    assert_eq!(wrong.iter().map(|r| r.op.as_str()).collect::<Vec<_>>(), ["latents in place"], "{wrong:#?}");
    assert!(wrong[0].failure.as_ref().is_some_and(|said| said.starts_with("latents in place f32, buffer: ")));
    let left_out = reports.iter().filter(|r| r.left_out > 0).map(|r| (r.op.as_str(), r.dtype));
    assert_eq!(left_out.collect::<Vec<_>>(), [("cross_attention", DType::F32), ("self_attention", DType::F32)]);
}

/// An out-of-bounds write, after which a device does nothing more.
#[test]
fn a_device_that_fails_ends_the_check() {
    let fault = Fault { file: "elementwise", find: "store_pack<N>(y + i, x);", replace: "store_pack<N>(y + n, x);" };
    let said = device(&loaded(Shim::faulty(Order::Forward, fault), &modules()), &[], |_| ());
    let said = said.expect_err("a device that fails").to_string();
    assert!(
        said.starts_with("elementwise f32, add hidden: elementwise ")
            && said.ends_with("an allocation of 8 bytes was written"),
        "{said}"
    );
}

#[test]
fn the_golden_numbers_on_a_device() {
    for dtype in [DType::F32, DType::Bf16] {
        let all = golden(None, dtype, &shim(Order::Forward)).expect("golden numbers");
        let worst = all.iter().map(|c| c.error).fold(0.0, f64::max);
        for c in &all {
            assert!(c.is_good(dtype), "{} has an error of {:.1e} in {dtype}", c.name, c.error);
        }
        assert!(dtype == DType::F32 || worst > 1e-3, "{worst:.1e} is closer than bf16 can be: it was not used");
    }
}
