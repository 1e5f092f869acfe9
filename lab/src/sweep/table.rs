use super::{Finished, Outcome, Point};
use crate::eval::{TRAINING_TEXT, bounded, with_error};
use crate::plan::Plans;
use crate::table::{DASH, Table, digits, nats, or_dash, short, si};
use engine::{Device, Result};
use ltm::evaluate::{Mean, Protocol};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The points and their cost on `device`, counted from their plans, or the reason why they will fail.
pub fn plan(points: &[Point], device: &Device) -> String {
    let plans = |point: &Point| Plans::new(point.config.as_ref().map_err(Clone::clone)?, device);
    // FLOPs per token position, and bytes.
    let cost = |point| plans(point).map(|plans| (plans.flops_per_token(), plans.store.bytes() as f64));
    let rows: Vec<(&Point, Result<(f64, f64)>)> = points.iter().map(|point| (point, cost(point))).collect();
    let tokens = |point: &Point| point.tokens() as f64;
    let cell = |cost: &Result<(f64, f64)>, of: &dyn Fn(&(f64, f64)) -> String| or_dash(cost.as_ref().ok().map(of));
    let table = Table::of(&rows)
        .left("point", |(point, _)| &point.name)
        .right("steps", |(point, _)| point.asked.train.steps)
        .right("tokens", |(point, _)| si(tokens(point), ""))
        .right("FLOP/token", |(_, cost)| cell(cost, &|cost| si(cost.0, "")))
        .right("FLOP", |(point, cost)| cell(cost, &|cost| si(cost.0 * tokens(point), "")))
        .right("memory", |(_, cost)| cell(cost, &|cost| si(cost.1, "B")))
        .left("", |(_, cost)| cost.as_ref().err().map_or(String::new(), |error| format!("will fail: {error}")));
    let costs = rows.iter().filter_map(|(point, cost)| Some(cost.as_ref().ok()?.0 * tokens(point)));
    format!("{table}\n\n{} points, {} FLOP of training in all", points.len(), si(costs.sum(), ""))
}

/// The nats of points that differ only in their seed.
struct Seeds<'a> {
    of: &'a Outcome,
    nats: BTreeMap<u64, f64>,
}

/// A table with a row for all seeds of a point: their mean, its differences from the baselines, and those from the next smaller
/// T and N_z.
fn paired(finished: &[(&Outcome, &Finished)]) -> String {
    let what = |o: &Outcome| (o.size.clone(), o.budget, o.kind.clone(), o.latents_total, o.fast_steps);
    let mut rows: Vec<Seeds<'_>> = Vec::new();
    for (outcome, result) in finished {
        let row = rows.iter().position(|row| what(row.of) == what(outcome)).unwrap_or(rows.len());
        if row == rows.len() {
            rows.push(Seeds { of: outcome, nats: BTreeMap::new() });
        }
        rows[row].nats.insert(outcome.seed, result.nats());
    }
    let minus = |row: &Seeds<'_>, other: Option<&Seeds<'_>>| {
        let pairs = row.nats.iter().filter_map(|(seed, nats)| Some(nats - other?.nats.get(seed)?));
        let pairs: Vec<f64> = pairs.collect();
        if pairs.is_empty() { String::new() } else { nats(Mean::of(&pairs)) }
    };
    let alike =
        |row: &Seeds<'_>, other: &&Seeds<'_>| (&row.of.size, row.of.budget) == (&other.of.size, other.of.budget);
    let infers = |row: &Seeds<'_>| row.of.fast_steps > 0;
    let baseline = |row: &Seeds<'_>, kind: &str, latents: usize| {
        let is = |other: &&Seeds<'_>| other.of.kind == kind && other.of.latents_total == latents;
        rows.iter()
            .filter(|other| row.of.kind != kind && alike(row, other))
            .find(is)
            .map_or(String::new(), |other| minus(row, Some(other)))
    };
    // The row that is the same but for the next smaller value.
    let smaller = |row: &Seeds<'_>, of: fn(&Outcome) -> usize, same: fn(&Outcome) -> usize| {
        let less = |other: &&Seeds<'_>| infers(other) && same(other.of) == same(row.of) && of(other.of) < of(row.of);
        let others = rows.iter().filter(|other| infers(row) && alike(row, other)).filter(less);
        minus(row, others.max_by_key(|other| of(other.of)))
    };
    let (steps, latents) = (|o: &Outcome| o.fast_steps, |o: &Outcome| o.latents_total);
    let table = Table::of(&rows)
        .left("size", |row| &row.of.size)
        .left("model", |row| &row.of.kind)
        .right("T", |row| steps(row.of))
        .right("N_z", |row| latents(row.of))
        .right("tokens", |row| si(row.of.budget as f64, ""))
        .right("seeds", |row| row.nats.len())
        .right("nats", |row| nats(Mean::of(&row.nats.values().copied().collect::<Vec<_>>())))
        .right("minus ar", |row| baseline(row, "ar", 0))
        .right("minus ar-latent", |row| baseline(row, "ar-latent", latents(row.of)))
        .right("minus smaller T", |row| smaller(row, steps, latents))
        .right("minus smaller N_z", |row| smaller(row, latents, steps));
    table.to_string()
}

/// The table of finished points, and the reasons of failed ones.
pub fn text(outcomes: &[Outcome]) -> String {
    let finished: Vec<(&Outcome, &Finished)> = outcomes.iter().filter_map(|o| Some((o, o.result.as_ref()?))).collect();
    let table = Table::of(&finished)
        .left("point", |(o, _)| &o.point)
        .right("parameters", |(o, _)| o.parameters.map_or(DASH.into(), |n| si(n as f64, "")))
        .right("T", |(o, _)| o.fast_steps)
        .right("K", |(o, _)| o.latents_per_layer)
        .right("N_z", |(o, _)| o.latents_total)
        .right("tokens", |(_, f)| si(f.tokens as f64, ""))
        .right("FLOP/token", |(_, f)| si(f.flops_per_token, ""))
        .right("perplexity", |(_, f)| {
            bounded(f.protocol != Protocol::Nll, with_error(f.perplexity, f.perplexity_error / f.perplexity))
        })
        .left("", |(_, f)| if f.data_learnt { TRAINING_TEXT } else { &f.protocol_status })
        .right("bits/byte", |(_, f)| digits(f.bits_per_byte, 4))
        .right("NLL", |(_, f)| or_dash(f.nll_per_sequence.map(|nll| digits(nll, 2))))
        .right("+ KL", |(_, f)| or_dash(f.kl_per_sequence.map(|kl| digits(kl, 2))))
        .right("seconds", |(_, f)| digits(f.train_seconds, 0))
        .right("tokens/s", |(_, f)| si(f.tokens as f64 / f.train_seconds, ""))
        .right("seed", |(o, _)| o.seed)
        .left("weights", |(_, f)| short(&f.weights_sha256));
    let mut lines = vec![table.to_string()];
    lines.push(format!(
        "\nNats per sequence over all seeds, and differences between points of the same seed\n\n{}\n",
        paired(&finished)
    ));
    if let Some(least) = finished.iter().find_map(|(_, f)| f.least_perplexity) {
        lines.push(format!("the true source has perplexity {least:.4}, the least possible"));
    }
    if let Some(floor) = finished.iter().find_map(|(_, f)| f.floor_perplexity) {
        lines.push(format!(
            "the best reader without memory has perplexity {floor:.4}, if it sees as far back as the first model"
        ));
    }
    let commands: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.command.as_str()).collect();
    lines.extend(commands.iter().map(|command| format!("by {command}")));
    let failed = outcomes.iter().filter_map(|o| Some(format!("{} failed: {}", o.point, o.reason.as_ref()?)));
    lines.extend(failed);
    lines.join("\n")
}

/// The columns of the CSV file: entries of a result's line.
const COLUMNS: &str = "point,kind,size,fast_steps,latents_per_layer,latents_total,seed,parameters,tokens,targets,\
                       flops_per_token,flops,protocol,sequences,perplexity,perplexity_error,bits_per_byte,nll_per_sequence,\
                       kl_per_sequence,least_perplexity,floor_perplexity,data_learnt,train_seconds,weights_sha256,config_sha256,command,reason";

/// The table as comma-separated values.
///
/// # Panics
/// Never: an outcome can be written as JSON, and writing to memory does not fail.
pub fn csv(outcomes: &[Outcome]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS.split(',')).expect("written to memory");
    for outcome in outcomes {
        let line = serde_json::to_value(outcome).expect("an outcome has a form in JSON");
        let cell = |key: &str| match &line[key] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            value => value.to_string(),
        };
        writer.write_record(COLUMNS.split(',').map(cell)).expect("written to memory");
    }
    writer.into_inner().expect("written to memory")
}
