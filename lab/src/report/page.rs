use super::tokens::{reading, scale};
use super::{DRAWS, Entry, Measured, Options, Point, tables};
use crate::audit;
use crate::plot::{self, Look, Mark, Plot, Series};
use crate::table::visible;
use crate::text::tokenizer;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeSet;

/// Nothing but what stands in the file, and no script at all.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// Samples of a run's training that are shown, at most.
const MOST_SAMPLES: usize = 12;

/// The page of these runs, made by `command`.
pub fn page(options: &Options, entries: &[Entry], command: &str) -> String {
    let names = entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ");
    // The place within the page, the heading, and what stands under it.
    let sections = [
        ("curves", "Curves", curves(entries)),
        ("results", "Results", results(options, entries)),
        ("suite", "Suite", tables::suite(entries)),
        ("settings", "Settings", tables::settings(entries)),
        ("audit", "Audit", audits(entries)),
        ("tokens", "What every token costs", readings(entries)),
        ("samples", "Samples", samples(options, entries)),
    ];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "ltm " (env!("CARGO_PKG_VERSION")) };
                title { "ltm report: " (names) }
                // A browser that is told of no icon asks for one.
                link rel="icon" href="data:,";
                style { (PreEscaped(include_str!("style.css"))) (PreEscaped(plot::style())) }
            }
            body {
                header {
                    h1 { "Latent Thought Models: " (entries.len()) @if entries.len() == 1 { " run" } @else { " runs" } }
                    nav aria-label="Contents" {
                        ul { @for (place, name, _) in &sections { li { a href={ "#" (place) } { (name) } } } }
                    }
                }
                main {
                    (tables::overview(entries))
                    @for entry in entries {
                        @for note in &entry.notes { p.warning { (note) } }
                        @for trouble in &entry.history.troubles { p.warning { (entry.name) ", " (trouble) } }
                    }
                    @for (place, name, content) in &sections {
                        section id=(place) aria-label=(name) { h2 { (name) } (content) }
                    }
                    p.note { "Made by " code { (command) } ". Scores use each run's own seed, samples use seed 0." }
                }
            }
        }
    };
    page.into_string()
}

/// A run's name behind the sample of its lines.
fn signed(run: usize, entry: &Entry) -> Markup {
    html! { (PreEscaped(plot::swatch(Look::of(run)))) (entry.name) }
}

fn curves(entries: &[Entry]) -> Markup {
    let tokenizers: BTreeSet<String> =
        entries.iter().map(|entry| entry.run.config.data.tokenizer.to_string()).collect();
    let same_tokens = tokenizers.len() == 1;
    // Nats per token of different tokens cannot be compared.
    let loss = |point: &Point| if same_tokens { point.cost.loss } else { point.cost.bits_per_byte };
    let unit = if same_tokens { "nats per token" } else { "bits per byte" };
    // Without latents there is no KL, not one of 0.
    let kl = |entry: &Entry, point: &Point| if entry.has_latents() { point.cost.kl } else { f64::NAN };
    let chart = |title: &str, x: &str, y: &str, at: &dyn Fn(&Entry, &Point) -> [f64; 2]| {
        let ring = |[x, y]: [f64; 2]| Mark { hollow: true, ..Mark::new(x, y) };
        let series = entries.iter().enumerate().map(|(run, entry)| Series {
            name: entry.name.clone(),
            look: Look::of(run),
            line: entry.history.steps.iter().map(|point| at(entry, point)).collect(),
            marks: entry.history.validations.iter().map(|point| ring(at(entry, point))).collect(),
        });
        let (title, axes, series) = (title.into(), [x, y].map(String::from), series.collect());
        let plot = Plot { title, axes, series, ..Plot::default() };
        html! {
            @if !plot.is_empty() {
                figure {
                    figcaption { (plot.title) }
                    div role="img" aria-label=(plot.title) { (PreEscaped(plot.inline())) }
                }
            }
        }
    };
    let has_fixed_noise = entries.iter().any(|entry| !entry.run.config.losses_are_bounds());
    html! {
        @if entries.iter().any(|entry| entry.history.last.is_some()) {
            ul.legend { @for (run, entry) in entries.iter().enumerate() { li { (signed(run, entry)) } } }
            div.charts {
                (chart("Loss against steps", "steps", unit, &|_, point| [point.step, loss(point)]))
                (chart("Loss against tokens", "training tokens", unit, &|_, point| [point.tokens, loss(point)]))
                (chart("NLL against steps", "steps", "nats per token", &|_, point| [point.step, point.cost.nll]))
                (chart("KL against steps", "steps", "nats per token", &|entry, point| [point.step, kl(entry, point)]))
            }
            p.note {
                "Lines are training batches; the loss is NLL plus KL. Rings are validation text: the bound " code { "elbo" }
                " of models with latents, the exact " code { "nll" } " of models without. "
                @if has_fixed_noise {
                    "With " code { "fast.noise = fixed" } " a line is no bound, since it is measured at the noise that the posteriors were fitted to. "
                }
                @if !same_tokens { "The runs read different tokens, so only bits per byte can be compared. " }
                @if !entries.iter().all(Entry::has_latents) { "Runs without latents have no KL." }
            }
        } @else {
            p.note { "No run has metrics of its training." }
        }
    }
}

fn measured(entries: &[Entry]) -> impl Iterator<Item = (usize, &Entry, &Measured)> {
    entries.iter().enumerate().filter_map(|(run, entry)| Some((run, entry, entry.measured.as_ref()?)))
}

fn results(options: &Options, entries: &[Entry]) -> Markup {
    html! {
        @if measured(entries).any(|(_, _, measured)| !measured.results.is_empty()) {
            p {
                "The first " (options.limit) " sequences of "
                @match &options.data {
                    Some(path) => code { (path.display()) },
                    None => "each run's validation text",
                }
                ", " (DRAWS) " draws each, as many fast steps as in training. "
                @if options.data.is_none() && entries.len() > 1 { "Only runs with the same validation text can be compared." }
            }
            (tables::results(entries))
            @for (_, entry, measured) in measured(entries) {
                @if let Some(text) = &measured.text { p.note { (entry.name) ": " (text) } }
            }
            p.note {
                "A number is a bound on −log p of the text only if it includes the KL and is measured at noise that the posterior was not "
                "fitted to: " code { "elbo" } " and " code { "iwae" } " are bounds, " code { "nll" } " is exact, " code { "fixed" }
                " is not a bound. " code { "prefix" } " is the cost of the second halves, given the first, which all kinds of models have. "
                code { "iwae" } " averages over all draws at once, so it is no sum of an NLL and a KL."
            }
        } @else if options.limit == 0 {
            p.note { "Nothing was judged (" code { "--limit 0" } ")." }
        } @else {
            p.note { "Nothing could be judged; the reasons stand above." }
        }
    }
}

/// The audit's rows and that of the T of training.
fn audited(entry: &Entry) -> Option<(&[audit::Row], &audit::Row)> {
    let rows = entry.measured.as_ref().map(|measured| &measured.audit[..]).filter(|rows| !rows.is_empty())?;
    Some((rows, audit::as_trained(rows, &entry.run.config)))
}

fn audits(entries: &[Entry]) -> Markup {
    // One scale of KL for all runs.
    let all = entries.iter().filter_map(audited).flat_map(|(_, trained)| &trained.kl_by_latent);
    let most = all.copied().fold(0.0, f64::max);
    html! {
        p { "Nats per sequence after T fast steps, ± one standard error over sequences." }
        @for entry in entries {
            h3 { (entry.name) }
            @if let Some((rows, trained)) = audited(entry) {
                @for (caption, table) in audit::tables(rows) { (tables::html_table(caption, &table.columns)) }
                (tables::latents(trained, entry.run.config.model.latents, most))
                ul { @for line in audit::verdict(rows, &entry.run.config).lines() { li { (line.trim_start_matches("- ")) } } }
            } @else if entry.has_latents() {
                p.note { "Not judged." }
            } @else {
                p.note { "This model has no latents: its nll is exact, and there is nothing to audit." }
            }
        }
    }
}

fn readings(entries: &[Entry]) -> Markup {
    let read = || measured(entries).filter(|(_, _, measured)| !measured.readings.is_empty());
    let vocabularies: BTreeSet<usize> = read().map(|(_, entry, _)| entry.run.config.data.tokenizer.vocab()).collect();
    html! {
        @if read().next().is_none() { p.note { "No text was read." } }
        @for vocab in vocabularies { (scale(vocab)) }
        @if read().any(|(_, entry, _)| entry.has_latents()) {
            p.note {
                "With latents, a posterior was fitted to each text before " (DRAWS) " draws from it scored the tokens. So these costs are a part "
                "of the bound only: the KL comes on top."
            }
        }
        (beside("Text", entries, |entry, measured, i| {
            let text = measured.readings.get(i)?;
            Some(reading(text, &*tokenizer(entry.run.config.data.tokenizer)))
        }))
    }
}

/// What every run has of number 0, 1, …, beside each other, until none has anything.
fn beside(title: &str, entries: &[Entry], of: impl Fn(&Entry, &Measured, usize) -> Option<Markup>) -> Markup {
    let all = |i| {
        let parts = measured(entries).filter_map(|(run, entry, measured)| Some((run, entry, of(entry, measured, i)?)));
        parts.collect::<Vec<_>>()
    };
    html! {
        @for (i, parts) in (0..).map(all).take_while(|parts| !parts.is_empty()).enumerate() {
            h3 { (title) " " (i + 1) }
            div.beside { @for (run, entry, part) in parts { article { h4 { (signed(run, entry)) } (part) } } }
        }
    }
}

fn samples(options: &Options, entries: &[Entry]) -> Markup {
    html! {
        @if measured(entries).all(|(_, _, measured)| measured.samples.is_empty()) {
            p.note { "No run was asked to write, or none could." }
        } @else {
            p {
                @if options.prompt.is_some() {
                    "Behind the prompt, from which latents are inferred"
                } @else {
                    "From nothing, with latents drawn from the prior where there are any"
                }
                ": at most " (options.tokens) " tokens at temperature 1."
            }
        }
        (beside("Sample", entries, |_, measured, i| {
            let text = measured.samples.get(i)?;
            Some(html! {
                p.written dir="auto" {
                    @if let Some(prompt) = &options.prompt { span.prompt { (visible(prompt)) } }
                    (visible(text))
                }
            })
        }))
        @for (run, entry) in entries.iter().enumerate() {
            @let samples = &entry.history.samples;
            @if !samples.is_empty() {
                details {
                    summary { (signed(run, entry)) ": what it wrote while it was trained, the latest first" }
                    @for (step, text) in samples.iter().rev().step_by(samples.len().div_ceil(MOST_SAMPLES)) {
                        h4 { "After step " (step) }
                        p.written dir="auto" { (visible(text)) }
                    }
                }
            }
        }
    }
}
