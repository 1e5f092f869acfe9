use super::{CAPTION, Entry, Judged, Known, Request, others};
use crate::eval::{IWAE, TRAINING_TEXT, bounded, origin, with_error};
use crate::table::{Table, digits, or_dash, plus_minus, short};
use ltm::evaluate::Protocol;
use ltm::run::{Loaded, Run};
use std::collections::BTreeSet;

/// The table, with the origin of its figures.
pub fn text(run: &Run, model: &Loaded, request: &Request<'_>, judged: &[Judged]) -> String {
    let rows = judged.iter().flat_map(|Judged { set, results, .. }| {
        results.iter().enumerate().map(move |(i, entry)| {
            // A limit above the number of documents has no effect.
            let limit = set.documents.filter(|limit| entry.documents >= *limit);
            let limit = limit.map_or(String::new(), |n| format!(" (first {n} documents)"));
            let published = set.published.map_or(String::new(), |published| published.to_string());
            let name = format!("{}{limit}", set.title);
            if i == 0 { (name, entry, published) } else { (String::new(), entry, String::new()) }
        })
    });
    let rows: Vec<(String, &Entry, String)> = rows.collect();
    let per_token =
        |entry: &Entry, sum: Option<f64>| or_dash(sum.map(|sum| digits(sum / entry.figures.tokens as f64, 4)));
    let kind = model.config.model.kind;
    let table = Table::of(&rows)
        .left("set", |(name, ..)| name)
        .left("protocol", |(_, entry, _)| entry.figures.protocol.name())
        .left("kind of number", |(_, entry, _)| entry.figures.protocol.status(kind))
        .right("nats/token", |(_, entry, _)| plus_minus(entry.nats_per_token, entry.nats_per_token_error, 4))
        .right("= NLL", |(_, entry, _)| per_token(entry, entry.figures.nll))
        .right("+ KL", |(_, entry, _)| per_token(entry, entry.figures.kl))
        .right("perplexity", |(_, entry, _)| {
            bounded(
                entry.figures.protocol.is_bound(kind),
                with_error(entry.figures.perplexity, entry.nats_per_token_error),
            )
        })
        .right("bits/byte", |(_, entry, _)| {
            // The relative error is that of nats per token.
            let bits = entry.figures.bits_per_byte;
            plus_minus(bits, bits * entry.nats_per_token_error / entry.nats_per_token, 4)
        })
        .right("per GPT-2 token", |(_, entry, _)| {
            let per = entry.gpt2_tokens.map_or(f64::NAN, |n| entry.figures.tokens as f64 / n as f64);
            let shown =
                |x| bounded(entry.figures.protocol.is_bound(kind), with_error(x, entry.nats_per_token_error * per));
            or_dash(entry.perplexity_per_gpt2_token.map(shown))
        })
        .left("published", |(.., published)| published);
    let mut lines = vec![format!(
        "{}: sequences of {} tokens ({})\n\n{table}\n",
        origin(run, model, &request.options),
        model.config.model.seq,
        model.config.data.tokenizer
    )];
    for Judged { set, results, is_training_text, missing } in judged {
        if let Some(entry) = results.first() {
            let left_out = match entry.left_out {
                0 => String::new(),
                n => format!("; skipped records without text: {n}"),
            };
            lines.push(format!(
                "{}: {} (sha256 {}): {}: {} documents, {} sequences, {} tokens, {} bytes{left_out}{}",
                set.title,
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
        lines.extend(missing.as_ref().map(|error| format!("{}: MISSING: {error}", set.title)));
    }
    let commands: BTreeSet<&str> = rows.iter().map(|(_, entry, _)| entry.command.as_str()).collect();
    lines.extend(commands.iter().map(|command| format!("By {command}")));
    lines.push("± is one standard error over sequences. Bytes are those of the detokenised text.".into());
    if rows.iter().any(|(_, entry, _)| entry.figures.protocol == Protocol::Iwae) {
        lines.push(format!("{IWAE}."));
    }
    if judged.iter().any(|judged| judged.set.published.is_some()) {
        lines.push(
            "published: perplexities per GPT-2 token of the paper's models S, M and L, by its `fixed` as far as the public code \
             shows, so not bounds, and of an autoregressive model of 76 M parameters (AR), exact; sequences of 1024 tokens. \
             They are means of exp(NELBO/1023) over sequences; those of PTB, PubMed and arXiv are of validation splits."
                .into(),
        );
        let scored = |known: &Known| judged.iter().any(|judged| judged.set.name == known.name);
        lines.push(format!("\n{CAPTION}:\n\n{}", others(scored)));
    }
    lines.join("\n")
}
