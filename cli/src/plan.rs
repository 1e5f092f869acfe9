//! `ltm plan`.

use super::command_line::whole;
use super::output::{note, print};
use super::place::{Choice, Place};
use super::settings::Settings;
use engine::{Device, Error, Result};
use lab::plan::{Plans, Rates};
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
    /// Plan for one of R processes that share every batch, and show what other numbers of processes cost
    #[arg(long, value_name = "R", value_parser = whole::<usize>(1..))]
    ranks: Option<usize>,
    /// How fast each process sends to another, and receives: shows the time of communication
    #[arg(long, value_name = "GB/s", requires_all = ["ranks", "speed"], value_parser = positive)]
    link: Option<f64>,
    /// Tokens per second of one process alone, as `ltm train` and `ltm bench` show them
    #[arg(long, value_name = "TOKENS/s", requires = "link", value_parser = positive)]
    speed: Option<f64>,
}

/// Takes a number above zero.
fn positive(text: &str) -> Result<f64> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| Error::usage("must be a number above 0"))
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let config = args.settings.configuration(&[])?;
    let plans = place.within(|device| {
        let plans = Plans::among(&config, device, args.ranks.unwrap_or(1))?;
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
    let who = match args.ranks {
        Some(ranks) if ranks > 1 => format!("one of {ranks} processes:\n"),
        _ => String::new(),
    };
    print(format_args!(
        "decoder: {} layers of width {}, {} heads, feed-forward {}, {sees}, {latents}, vocabulary {}\n\
         parameters: {parameters} ({} without the embedding)\n\n{who}{}\n",
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
    if args.ranks.is_some() {
        let rates = args.speed.zip(args.link).map(|(tokens, link)| Rates { tokens, bytes: 1e9 * link });
        print(format_args!("\n{}", plans.processes(rates)))?;
    }
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
