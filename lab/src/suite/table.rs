use super::{Entry, Judged, Published, Request, known};
use crate::eval::{IWAE, TRAINING_TEXT};
use crate::table::{DASH, Table, digits, or_dash, perplexity, plus_minus, short};
use ltm::config::ModelKind;
use ltm::evaluate::Protocol;
use ltm::run::{Loaded, Run};
use serde::Serialize;
use std::collections::BTreeSet;

/// The published figures that stand beside the protocol at `place` among those that were asked for: those of Latent Thought
/// Models are the number `fixed`, the autoregressive model's is exact and stands beside the first. Where nobody asked for
/// `fixed`, all stand beside the first, and say what they are.
pub fn published(published: Option<Published>, asked: &[Protocol], place: usize) -> String {
    let Some(Published { small, medium, large, ar }) = published else { return String::new() };
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

/// A line of the table: a result, or that there is none.
struct Line<'a> {
    name: String,
    entry: Option<&'a Entry>,
    published: String,
}

/// A perplexity and its standard error, that of nats per token times `per` tokens.
fn with_error(value: Option<f64>, error: f64) -> String {
    or_dash(value.filter(|x| x.is_finite()).map(|x| format!("{} ± {}", perplexity(x), perplexity(x * error))))
}

/// The table, and where its figures come from.
pub fn text(run: &Run, model: &Loaded, request: &Request<'_>, judged: &[Judged]) -> String {
    let mut rows = Vec::new();
    for Judged { set, results, error, .. } in judged {
        // A limit that all documents are within has left nothing out.
        let limit = set.documents.filter(|limit| results.first().is_some_and(|entry| entry.documents >= *limit));
        let limit = limit.map_or(String::new(), |n| format!(" (first {n} documents)"));
        let name = format!("{}{limit}", set.title());
        for (i, entry) in results.iter().enumerate() {
            let place = request.protocols.iter().position(|&protocol| protocol == entry.figures.protocol);
            let published =
                published(known(&set.name).map(|known| known.published), &request.protocols, place.unwrap_or(i));
            rows.push(Line { name: if i == 0 { name.clone() } else { String::new() }, entry: Some(entry), published });
        }
        if error.is_some() {
            rows.push(Line { name, entry: None, published: DASH.into() });
        }
    }
    let cell = |of: fn(&Entry) -> String| move |line: &Line<'_>| or_dash(line.entry.map(of));
    let per_token = |entry: &Entry, sum: f64| digits(sum / entry.figures.tokens as f64, 4);
    let table = Table::of(&rows)
        .left("set", |line| &line.name)
        .left("protocol", |line| line.entry.map_or("MISSING", |entry| entry.figures.protocol.name()))
        .left("what it is", |line| line.entry.map_or("see below", |entry| entry.figures.protocol.status()))
        .right("nats/token", cell(|entry| plus_minus(entry.nats_per_token, entry.nats_per_token_error, 4)))
        .right("= NLL", |line| or_dash(line.entry.map(|entry| per_token(entry, entry.figures.nll))))
        .right("+ KL", |line| or_dash(line.entry.map(|entry| per_token(entry, entry.figures.kl_or_rest()))))
        .right("perplexity", cell(|entry| with_error(Some(entry.figures.perplexity), entry.nats_per_token_error)))
        .right(
            "bits/byte",
            cell(|entry| {
                // The error is the same part of the whole as that of nats per token.
                let bits = entry.figures.bits_per_byte;
                plus_minus(bits, bits * entry.nats_per_token_error / entry.nats_per_token, 4)
            }),
        )
        .right(
            "per GPT-2 token",
            cell(|entry| {
                let per = entry.gpt2_tokens.map_or(f64::NAN, |n| entry.figures.tokens as f64 / n as f64);
                with_error(entry.perplexity_per_gpt2_token, entry.nats_per_token_error * per)
            }),
        )
        .left("published", |line| &line.published);
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
        table.to_string(),
        String::new(),
    ];
    for Judged { set, results, is_training_text, error } in judged {
        if let Some(entry) = results.first() {
            let first = entry.first_left_out.as_deref().unwrap_or(DASH);
            let left_out = match entry.left_out {
                0 => String::new(),
                n => format!("; records without text left out: {n}, the first at {first}"),
            };
            lines.push(format!(
                "{}: {} (sha256 {}): {}: {} documents, {} sequences, {} tokens, {} bytes{left_out}{}",
                set.title(),
                entry.files.join(" + "),
                short(&entry.data_sha256),
                entry.reading,
                entry.documents,
                entry.figures.sequences,
                entry.figures.tokens,
                entry.figures.bytes,
                if *is_training_text { format!("; {TRAINING_TEXT}") } else { String::new() },
            ));
        }
        lines.extend(error.as_ref().map(|error| format!("{}: MISSING: {error}", set.title())));
    }
    let entries = || judged.iter().flat_map(|judged| &judged.results);
    let commands: BTreeSet<&str> = entries().map(|entry| entry.command.as_str()).collect();
    lines.extend(commands.iter().map(|command| format!("By {command}")));
    lines.push(
        "± is one standard error over sequences. Bytes are those of the text as it was scored, detokenised.".into(),
    );
    if entries().any(|entry| entry.figures.protocol == Protocol::Iwae) {
        lines.push(format!("{IWAE}."));
    }
    if judged.iter().any(|judged| known(&judged.set.name).is_some()) {
        lines.push(
            "published: perplexities per GPT-2 token of the paper's models S, M and L, by its `fixed` as far as the public \
             code shows, so not bounds, and of an autoregressive model of 76 M parameters (AR), exact; sequences of 1024 tokens."
                .into(),
        );
    }
    lines.join("\n")
}

#[derive(Serialize)]
struct Json<'a> {
    run: String,
    step: u64,
    weights_sha256: &'a str,
    suite: String,
    fast_steps: usize,
    samples: usize,
    sets: Vec<SetJson<'a>>,
}

#[derive(Serialize)]
struct SetJson<'a> {
    set: &'a str,
    data_learnt: bool,
    results: &'a [Entry],
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_perplexity: Option<Published>,
}

/// The same for programs, every figure with its command, seed and hashes.
pub fn json<'a>(run: &Run, model: &'a Loaded, request: &Request<'_>, judged: &'a [Judged]) -> impl Serialize + use<'a> {
    let sets = judged.iter().map(|Judged { set, results, is_training_text, error }| SetJson {
        set: &set.name,
        data_learnt: *is_training_text,
        results,
        missing: error.as_ref().map(ToString::to_string),
        published_perplexity: known(&set.name).map(|known| known.published),
    });
    Json {
        run: run.path().display().to_string(),
        step: model.step,
        weights_sha256: &model.weights,
        suite: request.file.display().to_string(),
        fast_steps: request.steps,
        samples: request.samples,
        sets: sets.collect(),
    }
}
