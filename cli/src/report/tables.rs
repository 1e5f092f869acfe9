//! The page's tables.

use super::Subject;
use super::words::shade;
use engine::Device;
use lab::audit::Row;
use lab::eval::TRAINING_TEXT;
use lab::plan::Plans;
use lab::suite::{KNOWN, known, published};
use lab::table::{digits, nats, perplexity, short, si};
use ltm::config::{Config, ModelKind};
use ltm::evaluate::Protocol;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Words,
    Numbers,
}

use Column::{Numbers, Words};

/// A table whose first column names its rows. It scrolls by itself where it is wider than the page.
pub fn table(caption: &str, columns: &[(&str, Column)], rows: &[Vec<String>]) -> Markup {
    let class = |column: Column| (column == Numbers).then_some("n");
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for &(name, column) in columns { th scope="col" class=[class(column)] { (name) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (i, (cell, &(_, column))) in row.iter().zip(columns).enumerate() {
                                @if i == 0 {
                                    th scope="row" class=[class(column)] { (cell) }
                                } @else {
                                    td class=[class(column)] { (cell) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a kind of model is called.
pub fn kind(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Ltm => "latent thoughts",
        ModelKind::Ar => "autoregressive baseline",
        ModelKind::Gpt2 => "GPT-2",
    }
}

/// Tokens that the run has learnt from per second, on whatever machine it was.
fn speed(subject: &Subject) -> Option<f64> {
    let (tokens, seconds) = subject.run.effort().ok()?;
    (seconds > 0.0).then(|| tokens as f64 / seconds)
}

/// What the runs are, how far they came, and what it took.
pub fn overview(subjects: &[Subject]) -> Markup {
    let columns = [
        ("run", Words),
        ("model", Words),
        ("weights", Numbers),
        ("latents", Numbers),
        ("step", Numbers),
        ("tokens seen", Numbers),
        ("FLOPs/position", Numbers),
        ("tokens/s", Numbers),
        ("last loss", Numbers),
        ("held out", Numbers),
        ("digest", Words),
        ("data", Words),
        ("program", Words),
    ];
    let rows = subjects.iter().map(|subject| {
        let (config, last, measured) = (subject.run.config(), subject.history.last, subject.measured.as_ref());
        let model = &config.model;
        let latents = match model.kind.has_latents() {
            true => format!("{} × {}", model.layers, model.latents),
            false => "none".into(),
        };
        let step = measured.map(|measured| measured.step as f64).or(last.map(|last| last.step));
        let validation = subject.history.validations.last();
        let data = match config.data.paths.first() {
            None if subject.imported => "imported".into(),
            None => "embedded corpus".into(),
            Some(first) if config.data.paths.len() == 1 => first.display().to_string(),
            Some(first) => format!("{} and {} more", first.display(), config.data.paths.len() - 1),
        };
        let program = subject.records.last().map(|record| record.program.version.as_str());
        vec![
            subject.name.clone(),
            kind(model.kind).into(),
            measured.map_or("–".into(), |measured| si(measured.parameters as f64, "")),
            latents,
            step.map_or("–".into(), |step| format!("{step:.0}")),
            last.map_or("–".into(), |last| si(last.tokens, "")),
            // Weights that came from elsewhere were trained in ways that are not known.
            last.and_then(|_| Plans::new(config, &Device::Cpu).ok())
                .map_or("–".into(), |plans| si(plans.flops_per_token(), "")),
            speed(subject).map_or("–".into(), |speed| si(speed, "")),
            last.map_or("–".into(), |last| digits(last.loss, 4)),
            validation.map_or("–".into(), |point| digits(point.loss, 4)),
            measured.map_or("–".into(), |measured| short(&measured.weights).into()),
            data,
            program.map_or("–".into(), str::to_string),
        ]
    });
    table(
        "The runs; losses are in nats per token, FLOPs and speed those of training, per position and per token learnt from",
        &columns,
        &rows.collect::<Vec<_>>(),
    )
}

/// The settings in which the runs differ, and all of them.
pub fn settings(subjects: &[Subject]) -> Markup {
    let mut columns = vec![("setting", Words)];
    columns.extend(subjects.iter().map(|subject| (subject.name.as_str(), Words)));
    let rows = Config::settings().iter().map(|key| {
        let values = subjects.iter().map(|subject| key.value(subject.run.config()));
        let values: Vec<String> =
            values.map(|value| value.as_str().map_or(value.to_string(), str::to_string)).collect();
        let differ = values.iter().any(|value| *value != values[0]);
        let row: Vec<String> = std::iter::once(key.name.to_string()).chain(values).collect();
        (differ, row)
    });
    let (differing, same): (Vec<_>, Vec<_>) = rows.partition(|(differ, _)| *differ);
    let cells = |rows: Vec<(bool, Vec<String>)>| rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>();
    html! {
        @if !differing.is_empty() {
            (table("Where the runs differ", &columns, &cells(differing)))
        } @else if subjects.len() > 1 {
            p { "The runs do not differ in any setting." }
        }
        details {
            summary { @if subjects.len() > 1 { "What they have in common" } @else { "All settings" } }
            (table("The same in all of them", &[("setting", Words), ("value", Words)], &cells(same)))
        }
    }
}

/// What every protocol says of every run.
pub fn results(subjects: &[Subject]) -> Markup {
    let judged = || subjects.iter().filter_map(|subject| Some((subject, subject.measured.as_ref()?)));
    let known = judged().any(|(_, measured)| measured.results.iter().any(|row| row.above().is_some()));
    let mut columns = vec![
        ("run", Words),
        ("protocol", Words),
        ("what it is", Words),
        ("nats/sequence", Numbers),
        ("= NLL", Numbers),
        ("+ KL", Numbers),
        ("perplexity", Numbers),
        ("bits/byte", Numbers),
    ];
    if known {
        columns.push(("above the truth", Numbers));
    }
    let rows = judged().flat_map(|(subject, measured)| measured.results.iter().map(move |row| (subject, row)));
    let rows = rows.map(|(subject, row)| {
        let split = matches!(row.figures.protocol, Protocol::Elbo | Protocol::Iwae | Protocol::Fixed);
        let mut cells = vec![
            subject.name.clone(),
            row.figures.protocol.name().into(),
            row.figures.protocol.status().into(),
            nats(row.nats()),
            digits(row.per_sequence(row.figures.nll), 2),
            if split { digits(row.per_sequence(row.figures.kl_or_rest()), 2) } else { "–".into() },
            perplexity(row.figures.perplexity),
            digits(row.figures.bits_per_byte, 4),
        ];
        if known {
            cells.push(row.above().map_or("–".into(), nats));
        }
        cells
    });
    let rows: Vec<_> = rows.collect();
    html! { @if !rows.is_empty() { (table("± is one standard error over sequences", &columns, &rows)) } }
}

/// What `ltm eval --suite` has left in the run folders.
pub fn suite(subjects: &[Subject]) -> Markup {
    let columns = [
        ("run", Words),
        ("set", Words),
        ("protocol", Words),
        ("what it is", Words),
        ("T", Numbers),
        ("S", Numbers),
        ("nats/token", Numbers),
        ("perplexity", Numbers),
        ("per GPT-2 token", Numbers),
        ("published", Numbers),
        ("bits/byte", Numbers),
        ("documents", Numbers),
        ("after step", Numbers),
        ("weights", Words),
        ("seed", Numbers),
    ];
    let judged = subjects.iter().filter(|subject| !subject.suite.is_empty());
    let rows: Vec<_> = judged
        .flat_map(|subject| {
            let lines = subject.suite.iter().map(|line| suite_row(subject, line));
            lines.chain(missing(subject).map(|name| {
                let mut row = vec![subject.name.clone(), name.into(), "MISSING".into()];
                row.resize(columns.len(), "–".into());
                row
            }))
        })
        .collect();
    let commands: BTreeSet<&str> =
        subjects.iter().flat_map(|subject| &subject.suite).filter_map(|line| line["command"].as_str()).collect();
    let without: Vec<&str> = subjects.iter().filter(|s| s.suite.is_empty()).map(|s| s.name.as_str()).collect();
    html! {
        @if rows.is_empty() {
            p.note { "None of the runs has been judged by a suite: " code { "ltm eval RUN --suite suite.toml" } " does that." }
        } @else {
            (table("From suite.jsonl of the run folders; ± is one standard error over sequences", &columns, &rows))
            p.note {
                "Published: perplexities per GPT-2 token of the paper's models S, M and L, by its " code { "fixed" }
                " as far as the public code shows, so not bounds, and of an autoregressive model of 76 M parameters (AR), exact. "
                "MISSING is a set of the paper that the run has not been judged by. "
                @if !without.is_empty() { "Judged by no suite: " (without.join(", ")) "." }
            }
            @for command in commands { p.note { "By " code { (command) } } }
        }
    }
}

/// A result of `ltm eval --suite`, with the published figures beside the first protocol of its kind.
fn suite_row(subject: &Subject, line: &Value) -> Vec<String> {
    let float = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
    let number = |key: &str, n| digits(float(key), n);
    let text = |key: &str| line.get(key).map_or("–".into(), plain);
    let (set, protocol) = (text("set"), text("protocol"));
    let judged = |protocol: &Protocol| {
        subject.suite.iter().any(|line| line["set"] == set.as_str() && line["protocol"] == protocol.name())
    };
    let protocols: Vec<_> = Protocol::of(subject.kind()).iter().copied().filter(judged).collect();
    let place = protocols.iter().position(|known| known.name() == protocol);
    let title: String = known(&set).map_or(set.clone(), |known| known.title.into());
    let beside = place.map(|i| published(known(&set).map(|set| set.published), &protocols, i));
    vec![
        subject.name.clone(),
        if line["data_learnt"] == true { format!("{title}, {TRAINING_TEXT}") } else { title },
        protocol,
        text("status"),
        number("fast_steps", 0),
        number("samples", 0),
        format!("{} ± {}", number("nats_per_token", 4), number("nats_per_token_error", 4)),
        perplexity(float("perplexity")),
        perplexity(float("perplexity_per_gpt2_token")),
        beside.filter(|figures| !figures.is_empty()).unwrap_or("–".into()),
        number("bits_per_byte", 4),
        number("documents", 0),
        number("step", 0),
        line["weights_sha256"].as_str().map_or("–".into(), |digest| short(digest).into()),
        number("seed", 0),
    ]
}

/// Titles of the paper's sets that a run has not been judged by.
fn missing(subject: &Subject) -> impl Iterator<Item = &'static str> {
    let judged = |name: &str| subject.suite.iter().any(|line| line["set"] == name);
    KNOWN.iter().filter(move |known| !judged(known.name)).map(|known| known.title)
}

/// What every protocol prints at some T.
pub fn audit(name: &str, rows: &[Row]) -> Markup {
    let mut columns = vec![
        ("T", Numbers),
        ("elbo, a bound", Numbers),
        ("iwae, a bound", Numbers),
        ("fixed, NOT a bound", Numbers),
        ("the same at fresh noise", Numbers),
        ("gap", Numbers),
    ];
    let known = rows.iter().any(|row| row.elbo.above().is_some());
    if known {
        columns.extend([("elbo above the truth", Numbers), ("fixed above the truth", Numbers)]);
    }
    let rows = rows.iter().map(|row| {
        let mut cells = vec![
            row.steps.to_string(),
            nats(row.elbo.nats()),
            nats(row.iwae.nats()),
            nats(row.fixed.nats()),
            nats(row.fixed_at_fresh_noise.nats()),
            nats(row.gap()),
        ];
        if known {
            cells.extend([&row.elbo, &row.fixed].map(|scores| scores.above().map_or("–".into(), nats)));
        }
        cells
    });
    table(&format!("{name}: nats per sequence after T fast steps"), &columns, &rows.collect::<Vec<_>>())
}

/// The KL of every latent, a row per layer, the cells the darker the nearer to `most`.
pub fn latents(name: &str, kl: &[f64], per_layer: usize, most: f64) -> Markup {
    html! {
        div.scroll role="region" aria-label={ "KL of " (name) } tabindex="0" {
            table {
                caption { (name) ": KL in nats per sequence" }
                thead {
                    tr {
                        th scope="col" { "layer" }
                        @for latent in 1..=per_layer { th.n scope="col" { "latent " (latent) } }
                        th.n scope="col" { "all" }
                    }
                }
                tbody {
                    @for (layer, row) in kl.chunks(per_layer).enumerate() {
                        tr {
                            th scope="row" { (layer + 1) }
                            @for kl in row { td class={ "n s" (shade(*kl, most)) } { (digits(*kl, 3)) } }
                            td.n { (digits(row.iter().sum(), 3)) }
                        }
                    }
                }
            }
        }
    }
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".into(),
        Value::Array(items) if items.is_empty() => "–".into(),
        other => other.to_string(),
    }
}
