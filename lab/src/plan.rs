//! The cost of a configuration: parameters, FLOPs and memory, counted from the plans that training runs.

mod ranks;

pub use ranks::Rates;

use crate::table::{Table, si};
use autograd::{Phase, Plan, Store};
use engine::{Cost, Device, Result};
use ltm::config::{Config, Work};
use ltm::learn::{Fast, Learner, Slow};

/// The plans of training, without weights, of one of the processes that share every batch.
pub struct Plans {
    /// All memory.
    pub store: Store,
    /// The planned learner.
    pub learner: Learner,
    config: Config,
    ranks: usize,
}

/// Work that runs together.
pub(crate) struct Part<'a> {
    name: &'static str,
    plan: &'a Plan,
    phases: &'static [Phase],
    /// How often it runs in a training step.
    times: usize,
}

impl Part<'_> {
    /// FLOPs and least bytes of one run.
    pub fn cost(&self) -> Cost {
        self.phases.iter().map(|&phase| self.plan.cost(phase)).sum()
    }

    /// The same for all runs in a training step.
    pub fn cost_in_step(&self) -> Cost {
        let (Cost { flops, bytes }, times) = (self.cost(), self.times as u64);
        Cost { flops: flops.saturating_mul(times), bytes: bytes.saturating_mul(times) }
    }
}

/// The parts of a training step with these settings, by a process that computes `of_batch` parts of every batch.
pub(crate) fn parts<'a>(fast: Option<&'a Fast>, slow: &'a Slow, config: &Config, of_batch: usize) -> Vec<Part<'a>> {
    let (steps, updates) = (config.fast.steps, config.slow.updates);
    let part = |name, plan, phases, times| Part { name, plan, phases, times };
    let mut parts = Vec::new();
    if let Some(plan) = fast.map(|fast| &fast.plan) {
        let [update, batch, step] = Phase::ALL.each_ref().map(std::slice::from_ref);
        parts.push(part("fast loop, once per weight update", plan, update, of_batch));
        parts.push(part("fast loop, once per batch", plan, batch, of_batch));
        parts.push(part("fast loop, at every fast step", plan, step, of_batch * steps));
    }
    let [gradient, update] = slow.plans();
    parts.push(part("slow step: gradient", gradient, &Phase::ALL, of_batch * updates));
    parts.push(part("slow step: update", update, &Phase::ALL, updates));
    parts
}

impl Plans {
    /// Plans training with a resolved configuration on `device`, even if it does not fit into memory.
    ///
    /// # Errors
    /// If the device has no kernels for it.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        Self::among(config, device, 1)
    }

    /// The same for one of `ranks` processes that share every batch.
    ///
    /// # Errors
    /// Also if so many cannot share a batch.
    pub fn among(config: &Config, device: &Device, ranks: usize) -> Result<Self> {
        let parts = config.train.parts_of_each(ranks)?;
        config.check_device(device, Work::Training)?;
        let mut store = Store::new(config.train.precision.on(device));
        let learner = Learner::new(config, config.train.precision.stored_on(device), parts, &mut store)?;
        Ok(Self { store, learner, config: config.clone(), ranks })
    }

    /// Every plan with its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Plan)> {
        let [gradient, update] = self.learner.slow.plans();
        let fast = self.learner.fast.as_ref().map(|fast| ("fast loop", &fast.plan));
        fast.into_iter().chain([("slow gradient", gradient), ("slow update", update)])
    }

    /// The parts of a training step, by each of `ranks` processes.
    fn parts(&self, ranks: usize) -> Vec<Part<'_>> {
        parts(self.learner.fast.as_ref(), &self.learner.slow, &self.config, self.config.train.parts() / ranks)
    }

    /// Token positions of the process's part of a training step.
    fn tokens(&self) -> f64 {
        (self.config.train.batch / self.ranks * self.config.model.seq) as f64
    }

    /// FLOPs of a training step, by each of `ranks` processes.
    fn flops(&self, ranks: usize) -> f64 {
        self.parts(ranks).iter().map(|part| part.cost_in_step().flops as f64).sum()
    }

    /// FLOPs of a training step per token position.
    pub fn flops_per_token(&self) -> f64 {
        self.flops(self.ranks) / self.tokens()
    }

    /// The same by the paper's formula, with N instead of its 1024; `None` for a model that infers no latents.
    pub fn formula_per_token(&self) -> Option<f64> {
        let m = &self.config.model;
        let attention = (m.layers * m.dim * m.seq) as f64;
        let formula =
            (self.config.fast.steps + 1) as f64 * (6.0 * self.learner.params.count() as f64 + 6.0 * attention);
        m.kind.infers().then_some(formula)
    }

    /// A table of what runs, how often, and its cost.
    pub fn phases(&self) -> String {
        let (parts, tokens) = (self.parts(self.ranks), self.tokens());
        let count = |part: &Part| part.phases.iter().map(|&phase| part.plan.labels(phase).len()).sum::<usize>();
        Table::of(&parts)
            .left("phase", |part| part.name)
            .right("instructions", count)
            .right("times", |part| part.times)
            .right("FLOP each", |part| si(part.cost().flops as f64, ""))
            .right("bytes each, at least", |part| si(part.cost().bytes as f64, ""))
            .right("FLOP per token", |part| si(part.cost_in_step().flops as f64 / tokens, ""))
            .to_string()
    }

    /// A table of memory use.
    pub fn memory(&self) -> String {
        let [weights, fast, slow, sum] = self.learner.bytes;
        // The sum over processes takes one tensor after the other, and receives a half of it first.
        let gradients = self.learner.params.iter().map(|p| p.spec.shape.numel());
        let exchange = if self.ranks > 1 { gradients.max().unwrap_or(0).div_ceil(2) * size_of::<f32>() } else { 0 };
        let rows = [
            ("weights", weights),
            ("fast loop: posterior, noise, moments, workspace", fast),
            ("slow step: gradients, moments, further workspace", slow),
            ("sum over the parts of a batch: waiting gradients", sum),
            ("sum over processes: received gradients", exchange),
            ("total", self.store.bytes() + exchange),
        ];
        let rows: Vec<_> = rows.into_iter().filter(|row| row.1 > 0).collect();
        let table = Table::of(&rows).left("memory", |row| row.0).right("", |row| si(row.1 as f64, "B"));
        let arena = self.all().map(|(name, plan)| format!("{name} {}", si(plan.arena_bytes as f64, "B")));
        let arena = arena.collect::<Vec<_>>().join(", ");
        format!("{table}\nactivations, in one workspace that all plans share: {arena}")
    }
}
