//! The table of a sweep, for people and as a file, and its figures as files.

use super::super::output::{Align, short, si, table};
use engine::{Error, Result};
use lab::sweep::{Cost, FIGURES, Outcome, Point, figures};
use ltm::checkpoint::write_atomic;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What `--dry-run` shows.
pub fn plan(points: &[(&Point, Result<Cost>)]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("point", Left),
        ("steps", Right),
        ("tokens", Right),
        ("FLOP/token", Right),
        ("FLOP", Right),
        ("memory", Right),
        ("", Left),
    ];
    let mut sum = 0.0;
    let rows = points.iter().map(|(point, cost)| {
        let tokens = point.tokens() as f64;
        let mut row = vec![point.name.clone(), point.asked.train.steps.to_string(), si(tokens, "")];
        row.extend(match cost {
            Ok(cost) => {
                sum += cost.flops_per_token * tokens;
                let flops = cost.flops_per_token;
                [si(flops, ""), si(flops * tokens, ""), si(cost.bytes, "B"), String::new()]
            }
            Err(error) => ["–".into(), "–".into(), "–".into(), format!("will fail: {error}")],
        });
        row
    });
    let rows: Vec<_> = rows.collect();
    format!("{}\n\n{} points, {} FLOP of training in all", table(&columns, &rows), points.len(), si(sum, ""))
}

/// The table of what is there, and why the rest is not.
pub fn text(outcomes: &[Outcome]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("point", Left),
        ("parameters", Right),
        ("T", Right),
        ("K", Right),
        ("N_z", Right),
        ("tokens", Right),
        ("FLOP/token", Right),
        ("perplexity", Right),
        ("", Left),
        ("bits/byte", Right),
        ("NLL", Right),
        ("+ KL", Right),
        ("seconds", Right),
        ("seed", Right),
        ("weights", Left),
    ];
    let finished = outcomes.iter().filter(|outcome| outcome.reason().is_none());
    let rows = finished.map(|o| {
        let whole = |key: &str| format!("{:.0}", o.number(key));
        vec![
            o.text("point").to_string(),
            si(o.number("parameters"), ""),
            whole("fast_steps"),
            whole("latents_per_layer"),
            whole("latents_total"),
            si(o.number("tokens"), ""),
            si(o.number("flops_per_token"), ""),
            error_bar(o),
            o.text("protocol_status").to_string(),
            format!("{:.4}", o.number("bits_per_byte")),
            format!("{:.2}", o.number("nll_per_sequence")),
            format!("{:.2}", o.number("kl_per_sequence")),
            whole("train_seconds"),
            whole("seed"),
            short(o.text("weights_sha256")).to_string(),
        ]
    });
    let mut text = table(&columns, &rows.collect::<Vec<_>>());
    if let Some(least) = outcomes.iter().map(|o| o.number("least_perplexity")).find(|x| x.is_finite()) {
        text.push_str(&format!("\nthe least possible: perplexity {least:.4}, that of the stories' own source"));
    }
    let commands: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.text("command")).collect();
    commands.iter().for_each(|command| text.push_str(&format!("\nby {command}")));
    for outcome in outcomes {
        if let Some(reason) = outcome.reason() {
            text.push_str(&format!("\n{} failed: {reason}", outcome.text("point")));
        }
    }
    text
}

fn error_bar(outcome: &Outcome) -> String {
    let (perplexity, error) = (outcome.number("perplexity"), outcome.number("perplexity_error"));
    // Of a model that has learnt little both are astronomical.
    let show = |x: f64| if x < 1e5 { format!("{x:.4}") } else { format!("{x:.1e}") };
    if error.is_finite() { format!("{} ± {}", show(perplexity), show(error)) } else { show(perplexity) }
}

/// The columns of the table as a file: entries of a result's line.
const COLUMNS: [&str; 26] = [
    "point",
    "status",
    "kind",
    "size",
    "fast_steps",
    "latents_per_layer",
    "latents_total",
    "seed",
    "parameters",
    "tokens",
    "targets",
    "flops_per_token",
    "flops",
    "protocol",
    "sequences",
    "perplexity",
    "perplexity_error",
    "bits_per_byte",
    "nll_per_sequence",
    "kl_per_sequence",
    "least_perplexity",
    "train_seconds",
    "weights_sha256",
    "config_sha256",
    "command",
    "reason",
];

/// Writes `sweep.csv` and the figures into `folder`, whole or not at all. A figure without a point is taken away.
///
/// # Errors
/// If they cannot be written.
pub fn write(folder: &Path, outcomes: &[Outcome]) -> Result<()> {
    write_atomic(&folder.join("sweep.csv"), &csv(outcomes)?)?;
    for (name, figure) in FIGURES.iter().zip(figures(outcomes)) {
        let path = folder.join(format!("{name}.svg"));
        match figure {
            Some(figure) => write_atomic(&path, figure.file().as_bytes())?,
            None if path.exists() => fs::remove_file(&path).map_err(|e| Error::io("remove", &path, &e))?,
            None => {}
        }
    }
    Ok(())
}

fn csv(outcomes: &[Outcome]) -> Result<Vec<u8>> {
    let fail = |e: csv::Error| Error::new(format!("cannot lay out the table: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(fail)?;
    for outcome in outcomes {
        let cell = |key: &&str| match outcome.line.get(key) {
            Some(ltm::json::Value::String(text)) => text.clone(),
            Some(ltm::json::Value::Null) | None => String::new(),
            Some(value) => value.to_string(),
        };
        writer.write_record(COLUMNS.iter().map(cell)).map_err(fail)?;
    }
    writer.into_inner().map_err(|e| Error::new(format!("cannot lay out the table: {e}")))
}
