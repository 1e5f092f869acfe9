//! What a configuration costs: parameters, FLOPs and memory, counted from the very plans that training runs.

use crate::table::{Table, si};
use autograd::{Phase, Plan, Store};
use engine::{DType, Device, Result};
use ltm::config::{Config, Work};
use ltm::learn::{self, Fast, Inputs, Slow};
use ltm::model::Params;

/// The plans of training, without weights in them.
pub struct Plans {
    /// All memory.
    pub store: Store,
    /// The decoder's parameters.
    pub params: Params,
    config: Config,
    /// Without latents there is none.
    fast: Option<Fast>,
    slow: Slow,
    /// Bytes of parameters, inputs and constants, of what the fast loop owns beyond, and of what the slow step owns.
    owned: [(&'static str, usize); 3],
}

const PHASES: [Phase; 3] = [Phase::Update, Phase::Batch, Phase::Step];

/// What runs together.
struct Part<'a> {
    name: &'static str,
    plan: &'a Plan,
    phases: &'static [Phase],
    /// In a training step.
    times: usize,
}

impl Part<'_> {
    /// FLOPs, and bytes at least, of one time.
    fn cost(&self) -> (f64, f64) {
        let costs = self.phases.iter().map(|&phase| self.plan.cost(phase));
        costs.fold((0.0, 0.0), |(flops, bytes), c| (flops + c.flops as f64, bytes + c.bytes as f64))
    }

    fn flops(&self) -> f64 {
        self.times as f64 * self.cost().0
    }
}

impl Plans {
    /// Plans training with a resolved configuration on `device`, whose memory need not hold it.
    ///
    /// # Errors
    /// If the device has no kernels for it, or the machine no room for its largest value.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        config.check_plan()?;
        config.check_kernels(device, Work::Training)?;
        let mut store = Store::new(device.clone());
        let params = Params::new(&config.model, DType::F32, &mut store);
        let params = params.computed_in(config.train.precision.to_use_on(device));
        let weights = store.bytes();
        let inputs = Inputs::new(config.train.batch, config.model.seq, DType::F32, &mut store);
        let piles = learn::piles(config, &params, &mut store);
        let fast = learn::fast_loop(config, &params, &inputs, &piles, &mut store)?;
        let after_fast = store.bytes();
        let z = fast.as_ref().map(|fast| fast.latents.z);
        let slow = Slow::new(&config.model, &config.slow, &params, &inputs, z, &piles, &mut store)?;
        let owned = [
            ("weights", weights),
            ("fast loop: posterior, noise, moments, workspace", after_fast - weights),
            ("slow step: gradients, moments, further workspace", store.bytes() - after_fast),
        ];
        Ok(Self { store, params, config: config.clone(), fast, slow, owned })
    }

    /// Every plan with its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Plan)> {
        let [gradient, update] = self.slow.plans();
        let fast = self.fast.as_ref().map(|fast| ("fast loop", fast.plan()));
        fast.into_iter().chain([("slow gradient", gradient), ("slow update", update)])
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let part = |name, plan, phases, times| Part { name, plan, phases, times };
        let mut parts = Vec::new();
        if let Some(fast) = &self.fast {
            let steps = self.config.fast.steps;
            parts.push(part("fast loop, once per weight update", fast.plan(), &PHASES[..1], 1));
            parts.push(part("fast loop, once per batch", fast.plan(), &PHASES[1..2], 1));
            parts.push(part("fast loop, at every fast step", fast.plan(), &PHASES[2..], steps));
        }
        let [gradient, update] = self.slow.plans();
        parts.push(part("slow step: gradient", gradient, &PHASES, 1));
        parts.push(part("slow step: update", update, &PHASES, 1));
        parts
    }

    /// Token positions of a training step.
    fn tokens(&self) -> f64 {
        (self.config.train.batch * self.config.model.seq) as f64
    }

    /// FLOPs of a training step per token position.
    pub fn flops_per_token(&self) -> f64 {
        self.parts().iter().map(Part::flops).sum::<f64>() / self.tokens()
    }

    /// The same by the paper's formula, with N in the place of its 1024; it has none for a model without latents.
    pub fn formula_per_token(&self) -> Option<f64> {
        let m = &self.config.model;
        let attention = (m.layers * m.dim * m.seq) as f64;
        let formula = (self.config.fast.steps + 1) as f64 * (6.0 * self.params.count() as f64 + 6.0 * attention);
        m.kind.has_latents().then_some(formula)
    }

    /// What runs how often, and what it costs.
    pub fn phases(&self) -> String {
        let (parts, tokens) = (self.parts(), self.tokens());
        let count = |part: &Part| part.phases.iter().map(|&phase| part.plan.labels(phase).len()).sum::<usize>();
        Table::of(&parts)
            .left("phase", |part| part.name)
            .right("instructions", count)
            .right("times", |part| part.times)
            .right("FLOP each", |part| si(part.cost().0, ""))
            .right("bytes each, at least", |part| si(part.cost().1, ""))
            .right("FLOP per token", |part| si(part.flops() / tokens, ""))
            .to_string()
    }

    /// What needs how much memory.
    pub fn memory(&self) -> String {
        let mut rows = self.owned.to_vec();
        rows.push(("all together", self.store.bytes()));
        let table = Table::of(&rows).left("memory", |row| row.0).right("", |row| si(row.1 as f64, "B"));
        let arena = self.all().map(|(name, plan)| format!("{name} {}", si(plan.arena_bytes() as f64, "B")));
        let arena = arena.collect::<Vec<_>>().join(", ");
        format!("{table}\nactivations, in one workspace that all plans share: {arena}")
    }
}
