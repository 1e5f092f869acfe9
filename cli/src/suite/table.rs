//! The suite's results for people and for programs.

use super::{Judged, Request, title};
use crate::evaluation::LEARNT;
use crate::output::{Align, digits, perplexity as shown, short, table};
use lab::suite::{Published, known};
use ltm::config::ModelKind;
use ltm::evaluate::Protocol;
use ltm::json::Value;
use ltm::run::{Loaded, Run};
use std::collections::BTreeSet;

/// The number at `key`; not a number where there is none.
fn float(result: &Value, key: &str) -> f64 {
    result.get(key).and_then(|value| value.as_f64().ok()).unwrap_or(f64::NAN)
}

/// It with so many digits.
fn number(result: &Value, key: &str, places: usize) -> String {
    digits(float(result, key), places)
}

/// A number with digits that suit a perplexity, and its standard error.
fn perplexity(result: &Value, key: &str) -> String {
    let Some(Value::Number(x)) = result.get(key) else { return "–".into() };
    match result.get("nats_per_token_error") {
        Some(Value::Number(error)) => {
            let per = if key == "perplexity" { 1.0 } else { float(result, "tokens") / float(result, "gpt2_tokens") };
            let error = x * error * per;
            format!("{} ± {}", shown(*x), if error.is_finite() { shown(error) } else { "–".into() })
        }
        _ => shown(*x),
    }
}

/// Bits per byte and their standard error, the same part of them as of nats per token.
fn bits_per_byte(result: &Value) -> String {
    let bits = float(result, "bits_per_byte");
    let error = bits * float(result, "nats_per_token_error") / float(result, "nats_per_token");
    format!("{} ± {}", digits(bits, 4), digits(error, 4))
}

/// Nats per token of a part of the whole.
fn part(result: &Value, key: &str) -> String {
    digits(float(result, key) / float(result, "tokens"), 4)
}

/// The published figures that stand beside the protocol at `place` among those that were asked for: those of Latent Thought
/// Models are the number `fixed`, the autoregressive model's is exact and stands beside the first. Where nobody asked for
/// `fixed`, all stand beside the first, and say what they are.
pub fn published(published: Option<Published>, asked: &[Protocol], place: usize) -> String {
    let Some(Published { ltm: [small, medium, large], ar }) = published else { return String::new() };
    let mut figures = Vec::new();
    if place == 0 {
        figures.push(format!("AR {ar}"));
    }
    match asked.iter().position(|&protocol| protocol == Protocol::Fixed) {
        Some(fixed) if fixed == place => figures.push(format!("S {small} M {medium} L {large}")),
        None if place == 0 => figures.push(format!("(fixed, no bounds: S {small} M {medium} L {large})")),
        _ => {}
    }
    figures.join(" ")
}

/// The table, and where its figures come from.
pub fn text(run: &Run, model: &Loaded, request: &Request, judged: &[Judged]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("set", Left),
        ("protocol", Left),
        ("what it is", Left),
        ("nats/token", Right),
        ("= NLL", Right),
        ("+ KL", Right),
        ("perplexity", Right),
        ("bits/byte", Right),
        ("per GPT-2 token", Right),
        ("published", Left),
    ];
    let mut rows = Vec::new();
    for Judged { set, results, error, .. } in judged {
        // A limit that all documents are within has left nothing out.
        let scored = results.first().and_then(|(_, result)| result.read("documents", Value::as_u64).ok());
        let limit = set.documents.filter(|limit| scored.is_some_and(|n| n >= *limit));
        let limit = limit.map_or(String::new(), |n| format!(" (first {n} documents)"));
        let name = format!("{}{limit}", title(set));
        for (i, (protocol, result)) in results.iter().enumerate() {
            rows.push(vec![
                if i == 0 { name.clone() } else { String::new() },
                protocol.name().into(),
                protocol.status().into(),
                format!("{} ± {}", number(result, "nats_per_token", 4), number(result, "nats_per_token_error", 4)),
                part(result, "nll"),
                part(result, if *protocol == Protocol::Iwae { "rest" } else { "kl" }),
                perplexity(result, "perplexity"),
                bits_per_byte(result),
                perplexity(result, "perplexity_per_gpt2_token"),
                published(known(&set.name).map(|known| known.published), &request.protocols, i),
            ]);
        }
        if error.is_some() {
            let mut row = vec![name, "MISSING".into(), "see below".into()];
            row.resize(columns.len(), "–".into());
            rows.push(row);
        }
    }
    let how = match model.config.model.kind {
        ModelKind::Ltm => format!("T = {} fast steps, S = {} draws, ", request.steps, request.samples),
        ModelKind::Ar | ModelKind::Gpt2 => String::new(),
    };
    let mut lines = vec![
        format!(
            "{} after step {}, weights {}, seed {}: {how}sequences of {} tokens ({})\n",
            run.path().display(),
            model.step,
            short(&model.weights),
            model.config.train.seed,
            model.config.model.seq,
            model.config.data.tokenizer
        ),
        table(&columns, &rows),
        String::new(),
    ];
    for Judged { set, results, learnt, error } in judged {
        if let Some((_, result)) = results.first() {
            let files: Vec<_> = set.files.iter().map(|file| file.display().to_string()).collect();
            let left_out = match number(result, "left_out", 0).as_str() {
                "0" => String::new(),
                n => {
                    let first = result.read("first_left_out", Value::as_str).unwrap_or("–");
                    format!("; records or files without text left out: {n}, the first at {first}")
                }
            };
            lines.push(format!(
                "{}: {} (sha256 {}): {}: {} documents, {} sequences, {} tokens, {} bytes{left_out}{}",
                title(set),
                files.join(" + "),
                result.get("data_sha256").and_then(|value| value.as_str().ok()).map_or("–", short),
                set.reading(),
                number(result, "documents", 0),
                number(result, "sequences", 0),
                number(result, "tokens", 0),
                number(result, "bytes", 0),
                if *learnt { format!("; {LEARNT}") } else { String::new() },
            ));
        }
        lines.extend(error.as_ref().map(|error| format!("{}: MISSING: {error}", title(set))));
    }
    let commands: BTreeSet<&str> = judged
        .iter()
        .flat_map(|judged| &judged.results)
        .filter_map(|(_, result)| result.read("command", Value::as_str).ok())
        .collect();
    lines.extend(commands.iter().map(|command| format!("By {command}")));
    lines.push(
        "± is one standard error over sequences. Bytes are those of the text as it was scored, detokenised.".into(),
    );
    if judged.iter().any(|judged| judged.results.iter().any(|(protocol, _)| *protocol == Protocol::Iwae)) {
        lines.push("iwae is no sum of two parts: its KL column is what is left beside the draws' mean NLL.".into());
    }
    if judged.iter().any(|judged| known(&judged.set.name).is_some()) {
        lines.push(
            "published: perplexities per GPT-2 token of the paper's models S, M and L, by its `fixed` as far as the public code shows, so not bounds, and of an autoregressive model of 76 M parameters (AR), exact; sequences of 1024 tokens."
                .into(),
        );
    }
    lines.join("\n")
}

/// The same for programs, every figure with its command, seed and hashes.
pub fn json(run: &Run, model: &Loaded, request: &Request, judged: &[Judged]) -> Value {
    let sets = judged.iter().map(|Judged { set, results, learnt, error }| {
        let mut entries = vec![
            ("set", set.name.as_str().into()),
            ("data_learnt", (*learnt).into()),
            ("results", Value::Array(results.iter().map(|(_, result)| result.clone()).collect())),
        ];
        entries.extend(error.as_ref().map(|error| ("missing", error.to_string().into())));
        entries.extend(known(&set.name).map(|known| {
            let Published { ltm: [small, medium, large], ar } = known.published;
            let figures = [("small", small), ("medium", medium), ("large", large), ("ar", ar)];
            ("published_perplexity", Value::object(figures.map(|(name, x)| (name, x.into()))))
        }));
        Value::object(entries)
    });
    Value::object([
        ("run", run.path().display().to_string().into()),
        ("step", model.step.into()),
        ("weights_sha256", model.weights.as_str().into()),
        ("suite", request.file.display().to_string().into()),
        ("fast_steps", request.steps.into()),
        ("samples", request.samples.into()),
        ("sets", Value::Array(sets.collect())),
    ])
}
