//! A whole measurement: every case, then whole steps of learning as training takes them.

use super::work::{Work, works};
use crate::plan::{Part, parts};
use autograd::{Phase, Plan, Store};
use engine::rng::Stream;
use engine::{Cost, DType, Device, Error, Result};
use kernels::registry::ROOMS;
use ltm::config::{self, Config, ModelKind, SETTINGS, Setting, nearest};
use ltm::data::{Batch, SampleInfo};
use ltm::learn::Fast;
use ltm::train::Trainer;
use roofline::{Conditions, Effort, Machine, Recorder, Task};
use std::time::Instant;

/// The group of whole steps, beside the ops' folders.
pub const STEPS: &str = "steps";

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Sizes, resolved.
    pub config: Config,
    /// Where, in the configuration's `train.precision`.
    pub device: Device,
    /// Storage type of tensors.
    pub dtype: DType,
    /// Folders, ops, or [`STEPS`]; if empty, steps and all ops that training uses.
    pub only: Vec<String>,
    /// Also ops that training does not use, if `only` is empty.
    pub all: bool,
    /// The effort per row.
    pub effort: Effort,
}

impl Setup {
    /// Everything, with full effort.
    ///
    /// # Errors
    /// If the device cannot store tensors as the configuration says, or run the model.
    pub fn new(config: Config, device: Device) -> Result<Self> {
        config.check_device(&device, config::Work::Training)?;
        let (dtype, effort) = (config.train.precision.stored_on(&device), Effort::full(&device));
        Ok(Self { device: config.train.precision.on(&device), config, dtype, only: Vec::new(), all: false, effort })
    }

    /// The cases and passes to be measured.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a name is not a folder, an op or [`STEPS`].
    pub fn works(&self) -> Result<Vec<Work>> {
        let mut all = works(&self.config, self.dtype)?;
        let rooms: Vec<&str> = ROOMS.iter().map(|room| room.name).chain([STEPS]).collect();
        let names = || rooms.iter().copied().chain(all.iter().map(Work::op));
        if let Some(name) = self.only.iter().find(|name| !names().any(|known| known == *name)) {
            return Err(Error::usage(format!(
                "unknown op {name:?}, did you mean {:?}? Known are {}, the last for whole steps",
                nearest(name, names()),
                rooms.join(", ")
            )));
        }
        let is_named = |work: &Work| self.only.iter().any(|n| n == work.room || n == work.op());
        all.retain(|work| if self.only.is_empty() { self.all || work.trains } else { is_named(work) });
        Ok(all)
    }

    /// Whether whole steps are measured, too.
    pub fn has_steps(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == STEPS)
    }

    /// What times depend on, for a report with this title.
    pub fn conditions(&self, title: String) -> Conditions {
        let is_learning = |key: &&Setting| key.name.starts_with("fast.") || key.name.starts_with("slow.");
        let learning = SETTINGS.iter().filter(is_learning);
        // A value as on the command line.
        let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let settings = learning.map(|key| (key.name.to_string(), text(key.value(&self.config)))).collect();
        let machine = Machine::of(&self.device, self.config.train.precision);
        Conditions { title, sizes: self.sizes(), settings, machine }
    }

    /// The sizes that times depend on.
    pub fn sizes(&self) -> String {
        let (m, batch) = (&self.config.model, self.config.train.batch);
        let latents = match m.kind {
            ModelKind::Ltm => format!("{} latents per layer, {} fast steps", m.latents, self.config.fast.steps),
            ModelKind::ArLatent => format!("{} learned latents per layer", m.latents),
            ModelKind::Oracle => format!("{} latents of known facts per layer", m.latents),
            _ => "no latents".into(),
        };
        let [dim, heads, window, ffn] = [m.dim, m.heads, m.window, m.ffn_hidden()];
        format!(
            "batch {batch}, {} tokens, {} layers, width {dim}, {heads} heads, window {window}, {latents}, feed-forward {ffn}, vocabulary {}",
            m.seq, m.layers, m.vocab
        )
    }
}

/// Measures `works`, and whole steps if wanted, in as many passes as the effort has, with the ceilings in between.
/// Calls `seen` with the pass, counted from 1, and the case.
///
/// # Errors
/// If the device lacks the memory, or has failed; if an op computes something else than in f64.
pub fn measure_all(
    setup: &Setup,
    works: &[Work],
    recorder: &mut Recorder,
    seen: &mut dyn FnMut(usize, &str),
) -> Result<()> {
    let mut steps = Steps::new(setup);
    for pass in 1..=setup.effort.passes {
        for work in works {
            seen(pass, &work.case);
            work.record(recorder)?;
        }
        if setup.has_steps() {
            seen(pass, STEPS);
            steps.record(recorder)?;
        }
    }
    recorder.ceilings.measure();
    Ok(())
}

/// Whole steps, pass by pass.
pub struct Steps<'a> {
    setup: &'a Setup,
    /// The present pass, counted from 0.
    pass: usize,
    /// The number of training steps in all passes, once known.
    training_steps: Option<usize>,
}

impl<'a> Steps<'a> {
    /// Before the first pass.
    pub fn new(setup: &'a Setup) -> Self {
        Self { setup, pass: 0, training_steps: None }
    }

    /// Measures whole steps: the fast step, the work once per batch before it, the slow step's gradient and update, and
    /// the training step, which consists of all of these. The first pass sets the number of training steps.
    ///
    /// # Errors
    /// If the device lacks the memory, or has failed.
    pub fn record(&mut self, recorder: &mut Recorder) -> Result<()> {
        let (setup, known) = (self.setup, self.training_steps);
        let Setup { device, config, .. } = setup;
        let tokens = Some(config.train.batch * config.model.seq);
        let at_once = Some(config.train.rows() * config.model.seq);
        let left = setup.effort.passes.saturating_sub(self.pass);
        let mut row = |name: &str, cost: Cost, tokens, sample: &mut dyn FnMut() -> Result<Vec<f64>>| {
            let task = Task { tokens, ..Task::new(STEPS, name, "whole", cost) };
            recorder.record(task, false, |_| repeat(setup, sample))
        };
        // Several fast steps are needed to separate a step from the work before the first; a few are enough if a step
        // is long.
        let steps = config.fast.steps.clamp(4, if matches!(device, Device::Cpu(_)) { 8 } else { 64 });
        let mut roomy = config.clone();
        roomy.fast.steps = steps.max(config.fast.steps);
        let batch = random_batch(config);
        let mut trainer = Trainer::new(roomy, device)?;
        trainer.load(&batch, 0, 0)?;
        let cost = |plan: &Plan, phases: &[Phase]| -> Cost { phases.iter().map(|&phase| plan.cost(phase)).sum() };

        let Trainer { store, fast, masked, slow, .. } = &mut trainer;
        let (mut fast_step, mut before) = (0.0, 0.0);
        if let Some(fast) = fast {
            fast.take_steps(steps);
            let (plan, once) = (&fast.plan, [Phase::Update, Phase::Batch]);
            let each = cost(plan, &[Phase::Step]);
            fast_step = row("fast step", each, at_once, &mut || Ok(fast_steps(fast, store, steps)))?;
            before = row("before the fast steps", cost(plan, &once), None, &mut || {
                time(device, || {
                    once.iter().for_each(|&phase| plan.run(store, phase));
                    Ok(())
                })
            })?;
            fast.take_steps(config.fast.steps);
        }
        let [gradient, update] = slow.plans().map(|plan| cost(plan, &Phase::ALL));
        let mut updates = 0;
        let slow_step = row("slow step: gradient", gradient, at_once, &mut || {
            // Masked diffusion masks other tokens at every update.
            if let Some(masked) = masked {
                updates += 1;
                masked.load(store, &batch, 0, updates)?;
            }
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

        // The first pass decides for all; otherwise slow passes would be left out.
        let once = before + config.fast.steps as f64 * fast_step + config.slow.updates as f64 * slow_step;
        let expected = config.train.parts() as f64 * once;
        let count = known.unwrap_or(((TRAINING / expected) as usize).max(1));
        if count >= left {
            let parts = parts(trainer.fast.as_ref(), &trainer.slow, config, config.train.parts());
            let cost = parts.iter().map(Part::cost_in_step).sum();
            row("training step", cost, tokens, &mut || time(device, || trainer.train(&batch).map(drop)))?;
        }
        self.training_steps = Some(count);
        self.pass += 1;
        Ok(())
    }
}

/// Seconds for the training steps of all passes, unless one takes longer. If there is no time for one in every pass,
/// only the last passes have one.
const TRAINING: f64 = 150.0;

/// Most samples of a part of a step in all passes.
const MOST: usize = 60;

/// Work that takes longer than this is measured without a warm-up.
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

/// The seconds of `work` until the device has finished it, as the only sample.
fn time(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Vec<f64>> {
    device.finish()?;
    let mut done = Ok(());
    let seconds = roofline::time(|| done = work().and_then(|()| device.finish()));
    done.map(|()| vec![seconds])
}

/// The mean seconds of `steps` fast steps without the first. The host cannot time single steps on a GPU.
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

/// Repeats `sample` as often as the effort allows in a pass, after a warm-up unless that takes long.
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
