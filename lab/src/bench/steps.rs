//! Whole steps of learning, as training takes them.

use super::run::Gather;
use super::{Cache, Ceilings, STEPS, Samples, Setup, Task};
use autograd::{Phase, Plan, Store};
use engine::rng::Stream;
use engine::{Cost, DType, Device, Result};
use ltm::config::{Config, Work};
use ltm::data::{Batch, SampleInfo};
use ltm::learn::{self, Fast, Inputs, Slow};
use ltm::model::Params;
use ltm::train::Trainer;
use std::time::Instant;

const PHASES: [Phase; 3] = [Phase::Update, Phase::Batch, Phase::Step];

/// Seconds for the training steps of all passes, unless one takes longer.
const TRAINING: f64 = 150.0;

/// Most samples of a part of a step in all passes.
const MOST: usize = 60;

/// Seconds from which work is measured without once to warm up.
const LONG: f64 = 10.0;

/// A batch of random tokens, every target scored.
pub fn random_batch(config: &Config) -> Batch {
    let (samples, tokens) = (config.train.batch, config.model.seq);
    let mut batch = Batch::new(samples, tokens);
    let stream = Stream::new(3, 0);
    let ids = (0..=(samples * tokens) as u32).map(|i| stream.below(i, config.model.vocab) as i32).collect::<Vec<_>>();
    batch.tokens.copy_from_slice(&ids[..samples * tokens]);
    batch.targets.copy_from_slice(&ids[1..]);
    for (id, sample) in batch.samples.iter_mut().enumerate() {
        *sample = SampleInfo { id: id as u32, scored: tokens as u32, bytes: tokens as u64, nats: None };
    }
    batch
}

fn cost(plan: &Plan, phases: &[Phase]) -> Cost {
    phases.iter().map(|&phase| plan.cost(phase)).sum()
}

fn times(cost: Cost, count: usize) -> Cost {
    Cost { flops: cost.flops * count as u64, bytes: cost.bytes * count as u64 }
}

/// FLOPs and least bytes of one training step, by its plans. A model without latents has no fast steps.
pub fn training_cost(fast: Option<&Fast>, slow: &Slow, steps: usize) -> Cost {
    let fast = fast.map_or(Cost::default(), |fast| {
        cost(fast.plan(), &[Phase::Update, Phase::Batch]) + times(cost(fast.plan(), &[Phase::Step]), steps)
    });
    fast + slow.plans().into_iter().map(|plan| cost(plan, &PHASES)).sum()
}

/// The time of `work` until the device is done with it.
fn time(device: &Device, work: impl FnOnce()) -> f64 {
    // The device keeps a failure, and `repeat` returns it.
    let _ = device.finish();
    let start = Instant::now();
    work();
    let _ = device.finish();
    start.elapsed().as_secs_f64().max(1e-9)
}

/// The parts of a training step, to be run one by one.
struct Parts {
    store: Store,
    /// None without latents.
    fast: Option<Fast>,
    slow: Slow,
    steps: usize,
}

impl Parts {
    fn new(setup: &Setup) -> Result<Self> {
        let Setup { device, dtype, .. } = setup;
        let mut config = setup.config.clone();
        // Several steps are needed to see one without what comes before the first; many are not, where a step is long.
        let most = if matches!(device, Device::Cpu) { 8 } else { 64 };
        config.fast.steps = config.fast.steps.clamp(4, most);
        config.check_device(device, Work::Training)?;
        let mut store = Store::new(device.clone());
        let params = Params::new(&config.model, DType::F32, &mut store).computed_in(*dtype);
        params.init(&mut store, config.train.seed);
        let inputs = Inputs::new(config.train.batch, config.model.seq, DType::F32, &mut store);
        let piles = learn::piles(&config, &params, &mut store);
        let fast = learn::fast_loop(&config, &params, &inputs, &piles, &mut store)?;
        let z = fast.as_ref().map(|fast| fast.latents.z);
        let slow = Slow::new(&config.model, &config.slow, &params, &inputs, z, &piles, &mut store)?;
        config.check_room(&store, Work::Training)?;
        inputs.load(&mut store, &config.model, &random_batch(&config))?;
        Ok(Self { store, fast, slow, steps: config.fast.steps })
    }

    /// Seconds of each fast step of a whole loop, the first left out. On a GPU, where a step is over before the host would
    /// notice, their mean.
    fn fast_steps(&mut self, device: &Device) -> Vec<f64> {
        let mut seconds = Vec::new();
        let (mut latest, last) = (Instant::now(), self.steps - 1);
        let Some(fast) = &mut self.fast else { return seconds };
        fast.fit(&mut self.store, 0.1, 1, |t, _| match device {
            Device::Cpu => {
                let now = Instant::now();
                if t > 0 {
                    seconds.push((now - latest).as_secs_f64().max(1e-9));
                }
                latest = now;
            }
            Device::Cuda(gpu) if t == 0 || t == last => {
                let _ = gpu.finish();
                if t == last {
                    seconds.push(latest.elapsed().as_secs_f64().max(1e-9) / last as f64);
                }
                latest = Instant::now();
            }
            Device::Cuda(_) => {}
        });
        seconds
    }
}

/// Repeats `sample` as often as the effort allows in a pass, after once to warm up unless that takes long.
fn repeat(setup: &Setup, mut sample: impl FnMut() -> Vec<f64>) -> Result<Samples> {
    let mut start = Instant::now();
    let mut seconds = sample();
    if start.elapsed().as_secs_f64() < LONG {
        start = Instant::now();
        seconds = sample();
    }
    while start.elapsed().as_secs_f64() < 5.0 * setup.effort.seconds && seconds.len() < MOST / setup.effort.passes {
        seconds.extend(sample());
    }
    setup.device.finish()?;
    Samples::new(seconds)
}

/// Measures the step of that name.
fn row(
    gather: &mut Gather,
    ceilings: &mut Ceilings,
    name: &str,
    cost: Cost,
    tokens: Option<usize>,
    work: &mut dyn FnMut() -> Result<Samples>,
) -> Result<f64> {
    let (group, case, pass) = (STEPS.into(), name.into(), "whole".into());
    gather.measure(Task { group, case, pass, cache: Cache::Hot, cost, tokens }, ceilings, &mut |_| work())
}

/// Measures whole steps: the fast step, what comes once per batch before it, the slow step's gradient and update, and the
/// training step that is made of them all.
///
/// # Errors
/// If the device cannot hold or run the model, and those of `gather`.
pub(super) fn measure_steps(setup: &Setup, ceilings: &mut Ceilings, gather: &mut Gather) -> Result<()> {
    let device = &setup.device;
    let tokens = setup.config.train.batch * setup.config.model.seq;
    let mut parts = Parts::new(setup)?;
    let (once, step) = ([Phase::Update, Phase::Batch], [Phase::Step]);
    let costs = parts.fast.as_ref().map(|fast| [&step[..], &once].map(|phases| cost(fast.plan(), phases)));
    let (mut fast, mut before) = (0.0, 0.0);
    if let Some(costs) = costs {
        fast = row(gather, ceilings, "fast step", costs[0], Some(tokens), &mut || {
            repeat(setup, || parts.fast_steps(device))
        })?;
        before = row(gather, ceilings, "before the fast steps", costs[1], None, &mut || {
            let Parts { store, fast, .. } = &mut parts;
            let plan = fast.as_ref().expect("it was there when its cost was asked").plan();
            let work = &mut || once.iter().for_each(|&phase| plan.run(store, phase));
            repeat(setup, || vec![time(device, &mut *work)])
        })?;
    }
    let [gradient, update] = parts.slow.plans().map(|plan| cost(plan, &PHASES));
    let slow = row(gather, ceilings, "slow step: gradient", gradient, Some(tokens), &mut || {
        let Parts { store, slow, .. } = &mut parts;
        repeat(setup, || vec![time(device, || slow.gradient(store))])
    })?;
    row(gather, ceilings, "slow step: norm and update", update, None, &mut || {
        let Parts { store, slow, .. } = &mut parts;
        repeat(setup, || {
            vec![time(device, || {
                let _ = slow.grad_norm(store);
                slow.apply(store, 0.0, 1);
            })]
        })
    })?;
    drop(parts);

    let expected = before + setup.config.fast.steps as f64 * fast + slow;
    // The first pass decides for all, or those in which the machine is slow would be left out.
    if gather.pass == 0 {
        gather.training_steps = ((TRAINING / expected) as usize).clamp(1, gather.passes.max(5));
    }
    let (count, left) = (gather.training_steps, gather.passes - gather.pass);
    if count < left {
        return Ok(());
    }
    let repeats = count.div_ceil(gather.passes);
    let mut trainer = trainer(&setup.config, device)?;
    let cost = training_cost(trainer.fast.as_ref(), &trainer.slow, setup.config.fast.steps);
    row(gather, ceilings, "training step", cost, Some(tokens), &mut || {
        let batch = random_batch(&setup.config);
        if expected < LONG {
            trainer.train(&batch)?;
        }
        let mut seconds = Vec::new();
        for _ in 0..repeats {
            let mut outcome = Ok(());
            seconds.push(time(device, || outcome = trainer.train(&batch).map(|_| ())));
            outcome?;
        }
        Samples::new(seconds)
    })?;
    Ok(())
}

/// A fresh model in training, for which there is room.
pub(super) fn trainer(config: &Config, device: &Device) -> Result<Trainer> {
    let trainer = Trainer::new(config.clone(), device)?;
    config.check_room(&trainer.store, Work::Training)?;
    Ok(trainer)
}
