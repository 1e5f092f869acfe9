//! `ltm plan`.

use super::output::{Align, note, print, si, table};
use super::settings::Settings;
use super::{device, memory};
use autograd::{Phase, Plan, Store};
use engine::{DType, Device, Result};
use ltm::config::{Config, ModelKind, Precision, Work};
use ltm::learn::{self, Fast, Inputs, Slow};
use ltm::model::Params;

/// Show what a configuration costs before paying for it: parameters, FLOPs per token, memory, and every instruction
///
/// FLOPs and memory are counted from the very plans that training runs. The paper's formula stands beside them.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Print every instruction
    #[arg(long)]
    ops: bool,
}

const PHASES: [Phase; 3] = [Phase::Update, Phase::Batch, Phase::Step];

pub fn run(args: &Args, choice: device::Choice) -> Result<()> {
    let config = args.settings.configuration(&[])?;
    memory::check_plan(&config)?;
    let plans = device::within(choice, |device| {
        config.check_device(device, Work::Training)?;
        let plans = Plans::new(&config, device)?;
        // As training would.
        if choice == device::Choice::Auto && matches!(device, Device::Cuda(_)) {
            config.check_room(&plans.store, Work::Training)?;
        }
        Ok(plans)
    })?;
    if config.train.precision == Precision::Bf16 && plans.params.compute() == DType::F32 {
        note("train.precision = bf16 needs a GPU (--device cuda): this is the plan in f32, as on the CPU");
    }
    let (m, tokens) = (&config.model, (config.train.batch * config.model.seq) as f64);
    let latents = match m.kind {
        ModelKind::Ltm => format!("{} latents in each layer", m.latents),
        ModelKind::Ar | ModelKind::Gpt2 => "no latents".into(),
    };
    print(format_args!(
        "decoder: {} layers of width {}, {} heads, feed-forward {}, window {}, {latents}, vocabulary {}",
        m.layers, m.dim, m.heads, m.ffn, m.window, m.vocab
    ))?;
    print(format_args!(
        "parameters: {} ({} without the embedding)\n",
        plans.params.count(),
        si((plans.params.count() - m.vocab * m.dim) as f64, "")
    ))?;
    print(plans.phases(&config, tokens))?;
    print(flops(&config, &plans, tokens))?;
    print("")?;
    print(plans.memory())?;
    if let Err(e) = config.check_room(&plans.store, Work::Training) {
        note(format_args!("note: training would not start: {e}"));
    }
    if args.ops {
        for (name, plan) in plans.all() {
            print(format_args!("\n=== {name} ===\n{}", plan.to_string().trim_end()))?;
        }
    }
    Ok(())
}

/// Training FLOPs per token position and bytes of memory of a resolved configuration, counted from the plans.
///
/// # Errors
/// If the device has no kernels for it, or the machine no room for its largest value.
pub fn price(config: &Config, device: &Device) -> Result<(f64, usize)> {
    memory::check_plan(config)?;
    config.check_device(device, Work::Training)?;
    let plans = Plans::new(config, device)?;
    let tokens = (config.train.batch * config.model.seq) as f64;
    Ok((plans.flops(config.fast.steps) / tokens, plans.store.bytes()))
}

/// The plans of training, without weights in them.
struct Plans {
    store: Store,
    params: Params,
    /// Without latents there is none.
    fast: Option<Fast>,
    slow: Slow,
    /// Bytes of parameters, inputs and constants, of what the fast loop owns beyond, and of what the slow step owns.
    owned: [(&'static str, usize); 3],
}

impl Plans {
    fn new(config: &Config, device: &Device) -> Result<Self> {
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
        Ok(Self { store, params, fast, slow, owned })
    }

    /// Every plan with its name.
    fn all(&self) -> impl Iterator<Item = (&'static str, &Plan)> {
        let [gradient, update] = self.slow.plans();
        let fast = self.fast.as_ref().map(|fast| ("fast loop", fast.plan()));
        fast.into_iter().chain([("slow gradient", gradient), ("slow update", update)])
    }

    /// What runs how often, and what it costs.
    fn phases(&self, config: &Config, tokens: f64) -> String {
        use Align::{Left, Right};
        let steps = config.fast.steps;
        let [gradient, update] = self.slow.plans();
        let mut whole: Vec<(&str, &Plan, &[Phase], usize)> = Vec::new();
        if let Some(fast) = &self.fast {
            whole.push(("fast loop, once per weight update", fast.plan(), &[Phase::Update], 1));
            whole.push(("fast loop, once per batch", fast.plan(), &[Phase::Batch], 1));
            whole.push(("fast loop, at every fast step", fast.plan(), &[Phase::Step], steps));
        }
        whole.push(("slow step: gradient", gradient, &PHASES, 1));
        whole.push(("slow step: update", update, &PHASES, 1));
        let rows = whole.iter().map(|(name, plan, phases, times)| {
            let count: usize = phases.iter().map(|&phase| plan.labels(phase).len()).sum();
            let (flops, bytes) = cost(plan, phases);
            let total = flops * *times as f64;
            let cells = [count.to_string(), times.to_string(), si(flops, ""), si(bytes, ""), si(total / tokens, "")];
            std::iter::once(name.to_string()).chain(cells).collect()
        });
        let columns = [
            ("phase", Left),
            ("instructions", Right),
            ("times", Right),
            ("FLOP each", Right),
            ("bytes each, at least", Right),
            ("FLOP per token", Right),
        ];
        table(&columns, &rows.collect::<Vec<Vec<_>>>())
    }

    /// Floating-point operations of one training step.
    fn flops(&self, steps: usize) -> f64 {
        let once = self.fast.as_ref().map_or(0.0, |fast| {
            let fast = fast.plan();
            cost(fast, &[Phase::Update, Phase::Batch]).0 + steps as f64 * cost(fast, &[Phase::Step]).0
        });
        self.slow.plans().iter().fold(once, |sum, plan| sum + cost(plan, &PHASES).0)
    }

    fn memory(&self) -> String {
        use Align::{Left, Right};
        let row = |name: &str, bytes: usize| vec![name.to_string(), si(bytes as f64, "B")];
        let mut rows: Vec<_> = self.owned.iter().map(|(name, bytes)| row(name, *bytes)).collect();
        rows.push(row("all together", self.store.bytes()));
        let arena = self.all().map(|(name, plan)| format!("{name} {}", si(plan.arena_bytes() as f64, "B")));
        let arena = arena.collect::<Vec<_>>().join(", ");
        let text = table(&[("memory", Left), ("", Right)], &rows);
        format!("{text}\nactivations, in one workspace that all plans share: {arena}")
    }
}

fn cost(plan: &Plan, phases: &[Phase]) -> (f64, f64) {
    let costs = phases.iter().map(|&phase| plan.cost(phase));
    costs.fold((0.0, 0.0), |(flops, bytes), c| (flops + c.flops as f64, bytes + c.bytes as f64))
}

/// Training FLOPs per token: counted, and by the paper's formula with N in the place of its 1024.
fn flops(config: &Config, plans: &Plans, tokens: f64) -> String {
    let m = &config.model;
    let (steps, params) = (config.fast.steps as f64, plans.params.count() as f64);
    let counted = plans.flops(config.fast.steps) / tokens;
    if !m.kind.has_latents() {
        return format!("\ntraining FLOP per token: {} counted from the plans", si(counted, ""));
    }
    let formula = (steps + 1.0) * (6.0 * params + 6.0 * (m.layers * m.dim * m.seq) as f64);
    format!(
        "\ntraining FLOP per token, T = {}: {} counted from the plans; {} by the paper's (T+1)(6P + 6·L·d·N); ratio {:.2}",
        config.fast.steps,
        si(counted, ""),
        si(formula, ""),
        counted / formula
    )
}
