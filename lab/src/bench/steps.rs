//! Whole steps of learning, as training takes them.

use super::meter;
use super::run::Gather;
use super::{Cache, STEPS, Setup, Task};
use crate::plan::{Part, parts};
use autograd::{Phase, Plan, Store};
use engine::rng::Stream;
use engine::{Cost, Device, Result};
use ltm::config::Config;
use ltm::data::{Batch, SampleInfo};
use ltm::learn::Fast;
use ltm::train::Trainer;
use std::time::Instant;

/// Seconds for the training steps of all passes, unless one takes longer: where there is no time for one in every pass, the
/// last passes have them.
const TRAINING: f64 = 150.0;

/// Most samples of a part of a step in all passes.
const MOST: usize = 60;

/// Seconds from which work is measured without once to warm up.
const LONG: f64 = 10.0;

/// A batch of random tokens, every target scored.
fn random_batch(config: &Config) -> Batch {
    let (samples, tokens) = (config.train.batch, config.model.seq);
    let mut batch = Batch::new(samples, tokens);
    let stream = Stream::new(3, 0);
    for (id, i) in batch.tokens.iter_mut().chain(&mut batch.targets).zip(0..) {
        *id = stream.below(i, config.model.vocab) as i32;
    }
    batch.samples.fill(SampleInfo { scored: tokens as u32, bytes: tokens as u64, ..SampleInfo::default() });
    batch
}

/// The seconds of `work` until the device is done with it, as the only sample.
fn time(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Vec<f64>> {
    device.finish()?;
    let mut done = Ok(());
    let seconds = meter::time(|| done = work().and_then(|()| device.finish()));
    done.map(|()| vec![seconds])
}

/// The mean seconds of `steps` fast steps, the first left out. A GPU is over a step before the host would notice.
fn fast_steps(fast: &Fast, store: &mut Store, steps: usize) -> Vec<f64> {
    let device = store.device.clone();
    let (mut second, mut seconds) = (Instant::now(), 0.0);
    fast.fit(store, 0.1, 1, |t, _| {
        if t == 0 || t + 1 == steps {
            // The device keeps a failure, and `repeat` returns it.
            let _ = device.finish();
            seconds = second.elapsed().as_secs_f64().max(1e-9);
            second = Instant::now();
        }
    });
    vec![seconds / (steps - 1) as f64]
}

/// Repeats `sample` as often as the effort allows in a pass, after once to warm up unless that takes long.
fn repeat(setup: &Setup, sample: &mut dyn FnMut() -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    let mut start = Instant::now();
    let mut seconds = sample()?;
    if start.elapsed().as_secs_f64() < LONG {
        start = Instant::now();
        seconds = sample()?;
    }
    while start.elapsed().as_secs_f64() < 5.0 * setup.effort.seconds && seconds.len() < MOST / setup.effort.passes {
        seconds.extend(sample()?);
    }
    setup.device.finish()?;
    Ok(seconds)
}

/// Measures whole steps: the fast step, what comes once per batch before it, the slow step's gradient and update, and the
/// training step that is made of them all. The first pass sets how many training steps there is time for.
///
/// # Errors
/// If the device cannot hold or run the model.
pub(super) fn measure_steps(gather: &mut Gather, training_steps: &mut Option<usize>) -> Result<()> {
    let setup = gather.setup;
    let Setup { device, config, .. } = setup;
    let tokens = Some(config.train.batch * config.model.seq);
    let left = setup.effort.passes - gather.pass;
    let mut row = |name: &str, Cost { flops, bytes }, tokens, sample: &mut dyn FnMut() -> Result<Vec<f64>>| {
        let (group, case, pass) = (STEPS.into(), name.into(), "whole".into());
        let task = Task { group, case, pass, cache: Cache::Hot, flops, bytes, tokens };
        gather.measure(task, |_| repeat(setup, sample))
    };
    // Several fast steps are needed to see one without what comes before the first; many are not, where a step is long.
    let steps = config.fast.steps.clamp(4, if matches!(device, Device::Cpu) { 8 } else { 64 });
    let mut roomy = config.clone();
    roomy.fast.steps = steps.max(config.fast.steps);
    let batch = random_batch(config);
    let mut trainer = Trainer::new(roomy, device)?;
    trainer.inputs.load(&mut trainer.store, &config.model, &batch)?;
    let cost = |plan: &Plan, phases: &[Phase]| -> Cost { phases.iter().map(|&phase| plan.cost(phase)).sum() };

    let Trainer { store, fast, slow, .. } = &mut trainer;
    let (mut fast_step, mut before) = (0.0, 0.0);
    if let Some(fast) = fast {
        fast.take_steps(steps);
        let (plan, once) = (&fast.plan, [Phase::Update, Phase::Batch]);
        let each = cost(plan, &[Phase::Step]);
        fast_step = row("fast step", each, tokens, &mut || Ok(fast_steps(fast, store, steps)))?;
        before = row("before the fast steps", cost(plan, &once), None, &mut || {
            time(device, || {
                once.iter().for_each(|&phase| plan.run(store, phase));
                Ok(())
            })
        })?;
        fast.take_steps(config.fast.steps);
    }
    let [gradient, update] = slow.plans().map(|plan| cost(plan, &Phase::ALL));
    let slow_step = row("slow step: gradient", gradient, tokens, &mut || {
        time(device, || {
            slow.gradient(store);
            Ok(())
        })
    })?;
    row("slow step: norm and update", update, None, &mut || {
        time(device, || {
            slow.grad_norm(store)?;
            slow.apply(store, 0.0, 1);
            Ok(())
        })
    })?;

    // The first pass decides for all, or those in which the machine is slow would be left out.
    let expected = before + config.fast.steps as f64 * fast_step + slow_step;
    let count = *training_steps.get_or_insert(((TRAINING / expected) as usize).max(1));
    if count >= left {
        let parts = parts(trainer.fast.as_ref(), &trainer.slow, config.fast.steps);
        let cost = parts.iter().map(Part::cost_in_step).sum();
        row("training step", cost, tokens, &mut || time(device, || trainer.train(&batch).map(drop)))?;
    }
    Ok(())
}
