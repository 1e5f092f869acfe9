//! `ltm plan`.

use super::output::{note, print};
use super::place::{Choice, Place};
use super::settings::Settings;
use engine::{Device, Result};
use lab::plan::Plans;
use lab::table::si;
use ltm::config::{ModelKind, Work};

/// Show the cost of a configuration before training: parameters, FLOPs per token, memory, and every instruction
///
/// FLOPs and memory are counted from the plans that training runs. The paper's formula is printed beside them.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Print every instruction
    #[arg(long)]
    ops: bool,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let config = args.settings.configuration(&[])?;
    let plans = place.within(|device| {
        let plans = Plans::new(&config, device)?;
        // As in training.
        if place.device == Choice::Auto && matches!(device, Device::Cuda(_)) {
            config.check_room(&plans.store, Work::Training)?;
        }
        Ok(plans)
    })?;
    let (m, parameters) = (&config.model, plans.learner.params.count());
    let latents = match m.kind {
        ModelKind::Ltm => format!("{} latents in each layer", m.latents),
        ModelKind::ArLatent => format!("{} learned latents in each layer", m.latents),
        ModelKind::Oracle => format!("{} latents of known facts in each layer", m.latents),
        _ => "no latents".into(),
    };
    let sees = match m.kind.method() {
        Some(_) => "attention in both directions".into(),
        None => format!("window {}", m.window),
    };
    print(format_args!(
        "decoder: {} layers of width {}, {} heads, feed-forward {}, {sees}, {latents}, vocabulary {}\n\
         parameters: {parameters} ({} without the embedding)\n\n{}\n",
        m.layers,
        m.dim,
        m.heads,
        m.ffn,
        m.vocab,
        si((parameters - m.vocab * m.dim) as f64, ""),
        plans.phases()
    ))?;
    let counted = plans.flops_per_token();
    let formula = plans.formula_per_token().map_or(String::new(), |formula| {
        let (steps, ratio) = (config.fast.steps, counted / formula);
        format!("; {} by the paper's (T+1)(6P + 6·L·d·N), T = {steps}; ratio {ratio:.2}", si(formula, ""))
    });
    let counted = si(counted, "");
    print(format_args!("training FLOP per token: {counted} counted from the plans{formula}\n\n{}", plans.memory()))?;
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
