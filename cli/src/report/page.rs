//! The page as a whole.

use super::history::Point;
use super::measure::{DRAWS, Measured};
use super::tables;
use super::words::{reading, scale, visible};
use super::{Args, Subject};
use crate::output::quoted;
use lab::plot::{self, Axis, Look, Mark, Plot, Series};
use lab::text::tokenizer;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeSet;

/// Nothing but what stands in the file, and no script at all.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// Headings and what stands under them; the names are those of their places in the page.
type Section = (&'static str, &'static str, Markup);

/// The page.
pub fn page(args: &Args, subjects: &[Subject]) -> Markup {
    let names = subjects.iter().map(|subject| subject.name.as_str()).collect::<Vec<_>>().join(", ");
    let sections: [Section; 8] = [
        ("curves", "Curves", curves(subjects)),
        ("results", "Results", results(args, subjects)),
        ("suite", "Suite", tables::suite(subjects)),
        ("settings", "Settings", tables::settings(subjects)),
        ("audit", "Audit", audit(subjects)),
        ("tokens", "What every token costs", texts(subjects)),
        ("latents", "Where the KL goes", latents(subjects)),
        ("samples", "Samples", samples(args, subjects)),
    ];
    html! {
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
                    h1 { "Latent Thought Models: " (subjects.len()) @if subjects.len() == 1 { " run" } @else { " runs" } }
                    nav aria-label="Contents" {
                        ul { @for (place, name, _) in &sections { li { a href={ "#" (place) } { (name) } } } }
                    }
                }
                main {
                    (tables::overview(subjects))
                    @for subject in subjects {
                        @for note in &subject.notes { p.warning { (note) } }
                        @for trouble in &subject.history.troubles { p.warning { (subject.name) ", " (trouble) } }
                    }
                    @for (place, name, content) in &sections {
                        section id=(place) aria-label=(name) { h2 { (name) } (content) }
                    }
                    p.note { "What was judged and written here is by " code { (command(args)) } ", the seeds are the runs' own, of samples 0." }
                }
            }
        }
    }
}

/// The command that makes this page, without what makes no difference to it.
fn command(args: &Args) -> String {
    let mut words = vec!["ltm report".to_string()];
    words.extend(args.runs.iter().map(|run| quoted(&run.display().to_string())));
    words.extend(args.data.iter().map(|data| format!("--data {}", quoted(&data.display().to_string()))));
    words.push(format!("--limit {} --samples {} --tokens {}", args.limit, args.samples, args.tokens));
    words.extend(args.prompt.iter().map(|prompt| format!("--prompt {}", quoted(prompt))));
    words.join(" ")
}

/// Which line is whose.
fn legend(subjects: &[Subject]) -> Markup {
    html! {
        ul.legend { @for (run, subject) in subjects.iter().enumerate() { li { (PreEscaped(plot::swatch(Look::of(run)))) (subject.name) } } }
    }
}

fn curves(subjects: &[Subject]) -> Markup {
    let tokenizers: BTreeSet<String> =
        subjects.iter().map(|subject| subject.run.config().data.tokenizer.to_string()).collect();
    // Nats per token of different tokens cannot be compared.
    let (loss, unit): (fn(&Point) -> f64, _) = match tokenizers.len() {
        1 => (|p| p.loss, "nats per token"),
        _ => (|p| p.bits_per_byte, "bits per byte"),
    };
    let has_latents = |subject: &Subject| subject.kind().has_latents();
    // Without latents there is no KL, not one of 0.
    let kl = |subject: &Subject, p: &Point| if has_latents(subject) { p.kl } else { f64::NAN };
    let chart = |title: &str, x_name: &str, y_name: &str, at: &dyn Fn(&Subject, &Point) -> [f64; 2]| {
        let series = subjects.iter().enumerate().map(|(run, subject)| Series {
            name: subject.name.clone(),
            look: Look::of(run),
            line: subject.history.steps.iter().map(|point| at(subject, point)).collect(),
            marks: subject.history.validations.iter().map(|point| ring(at(subject, point))).collect(),
        });
        let (x, y) = (Axis::linear(x_name), Axis::linear(y_name));
        figure(&Plot { title: title.into(), x, y, series: series.collect(), notes: Vec::new() })
    };
    let learnt = subjects.iter().any(|subject| subject.history.last.is_some());
    let fixed = subjects.iter().any(|subject| !subject.run.config().losses_are_bounds());
    html! {
        @if learnt {
            (legend(subjects))
            div.charts {
                (chart("Loss against steps", "steps", unit, &|_, p| [p.step, loss(p)]))
                (chart("Loss against tokens", "tokens learnt from", unit, &|_, p| [p.tokens, loss(p)]))
                (chart("NLL against steps", "steps", "nats per token", &|_, p| [p.step, p.nll]))
                (chart("KL against steps", "steps", "nats per token", &|subject, p| [p.step, kl(subject, p)]))
            }
            p.note {
                "Lines are training batches: NLL and KL together are the loss, as it was learnt from. Circles are held-out text: the "
                "bound " code { "elbo" } " with latents, the exact " code { "nll" } " without. "
                @if fixed { "With " code { "fast.noise = fixed" } " the lines are numbers at the very noise that was fitted to: not bounds. " }
                @if tokenizers.len() > 1 { "The runs read different tokens: only bits per byte can be compared. " }
                @if !subjects.iter().all(has_latents) { "Runs without latents have no KL." }
            }
        } @else {
            p.note { "None of the runs has metrics of learning." }
        }
    }
}

/// A validation's mark.
fn ring([x, y]: [f64; 2]) -> Mark {
    Mark { hollow: true, ..Mark::new(x, y) }
}

/// A picture under its title; nothing if it has no point.
fn figure(plot: &Plot) -> Markup {
    html! {
        @if !plot.is_empty() {
            figure {
                figcaption { (plot.title) }
                div role="img" aria-label=(plot.words()) { (PreEscaped(plot.inline())) }
            }
        }
    }
}

fn results(args: &Args, subjects: &[Subject]) -> Markup {
    let judged = subjects.iter().any(|subject| subject.measured.as_ref().is_some_and(|m| !m.results.is_empty()));
    html! {
        @if judged {
            p {
                "The first " (args.limit) " sequences of "
                @match &args.data {
                    Some(path) => code { (path.display()) },
                    None => "what each run held out",
                }
                ", " (DRAWS) " draws each, as many fast steps as in training. "
                @if args.data.is_none() && subjects.len() > 1 { "Runs can be compared where they held out the same text." }
            }
            (tables::results(subjects))
            @for (name, text) in subjects.iter().filter_map(|s| Some((&s.name, s.measured.as_ref()?.text.as_ref()?))) {
                p.note { (name) ": " (text) }
            }
            p.note {
                "A number is a bound on −log p of the text only if it pays for what the posterior knows, at noise that it was not fitted to: "
                code { "elbo" } " and " code { "iwae" } " do, " code { "nll" } " is exact, " code { "fixed" } " is not a bound. "
                code { "prefix" } " is the cost of second halves and can be compared between all models. For " code { "iwae" }
                " the column + KL is what is left beside the mean NLL."
            }
        } @else if args.limit == 0 {
            p.note { "Nothing was judged (" code { "--limit 0" } ")." }
        } @else {
            p.note { "Nothing could be judged; the reasons stand above." }
        }
    }
}

fn audit(subjects: &[Subject]) -> Markup {
    html! {
        @for subject in subjects {
            h3 { (subject.name) }
            @match measured(subject).and_then(|measured| measured.audit.as_ref()) {
                Some((audit, verdict)) => {
                    (tables::audit(&subject.name, audit))
                    ul { @for line in verdict.lines() { li { (line.trim_start_matches("- ")) } } }
                }
                None => (without(subject, "its nll is exact, and there is nothing to audit")),
            }
        }
    }
}

fn measured(subject: &Subject) -> Option<&Measured> {
    subject.measured.as_ref()
}

/// Why a run has no posterior to show.
fn without(subject: &Subject, none: &str) -> Markup {
    html! {
        p.note {
            @if subject.kind().has_latents() { "Not judged." } @else { "This model has no latents: " (none) "." }
        }
    }
}

fn texts(subjects: &[Subject]) -> Markup {
    let most = subjects.iter().filter_map(measured).map(|measured| measured.texts.len()).max().unwrap_or(0);
    let read =
        || subjects.iter().filter(|subject| measured(subject).is_some_and(|measured| !measured.texts.is_empty()));
    let vocabularies: BTreeSet<usize> = read().map(|subject| subject.run.config().data.tokenizer.vocab()).collect();
    html! {
        @if most == 0 { p.note { "No text was read." } }
        @for vocab in vocabularies { (scale(vocab)) }
        @if read().any(|subject| subject.kind().has_latents()) {
            p.note {
                "With latents, a posterior was fitted to each text before its tokens were scored by " (DRAWS) " draws from it, so these "
                "costs are a part of the bound only: the KL comes on top."
            }
        }
        @for i in 0..most {
            h3 { "Text " (i + 1) }
            div.beside {
                @for (run, subject) in subjects.iter().enumerate() {
                    @if let Some(text) = measured(subject).and_then(|measured| measured.texts.get(i)) {
                        article {
                            h4 { (PreEscaped(plot::swatch(Look::of(run)))) (subject.name) }
                            (reading(text, &*tokenizer(subject.run.config().data.tokenizer)))
                        }
                    }
                }
            }
        }
    }
}

fn latents(subjects: &[Subject]) -> Markup {
    // One scale for all runs.
    let kls = |subject: &Subject| -> Option<(usize, Vec<f64>)> {
        let steps = subject.run.config().fast.steps.max(1);
        let (audit, _) = measured(subject)?.audit.as_ref()?;
        let row = audit.iter().find(|row| row.steps == steps)?;
        Some((steps, row.kl_by_latent.clone()))
    };
    let all: Vec<_> = subjects.iter().map(kls).collect();
    let most = all.iter().flatten().flat_map(|(_, kl)| kl).copied().fold(0.0, f64::max);
    html! {
        @if all.iter().any(Option::is_some) {
            p { "The mean KL of every latent vector, in nats per sequence; the darkest cell has " (format!("{most:.2}")) "." }
        }
        @for (subject, kl) in subjects.iter().zip(&all) {
            @match kl {
                Some((steps, kl)) => {
                    p.sum { (subject.name) ": " (format!("{:.2}", kl.iter().sum::<f64>())) " nats in all after T = " (steps) " fast steps" }
                    (tables::latents(&subject.name, kl, subject.run.config().model.latents, most))
                },
                None => { h3 { (subject.name) } (without(subject, "there is no KL to show")) },
            }
        }
    }
}

fn samples(args: &Args, subjects: &[Subject]) -> Markup {
    let most = subjects.iter().filter_map(measured).map(|measured| measured.samples.len()).max().unwrap_or(0);
    html! {
        @if most == 0 {
            p.note { "No run was asked to write, or none could." }
        } @else {
            p {
                @match &args.prompt {
                    Some(_) => "Behind the prompt, which latents are inferred from",
                    None => "From nothing, with latents drawn from the prior where there are any",
                }
                ": at most " (args.tokens) " tokens at temperature 1."
            }
        }
        @for i in 0..most {
            h3 { "Sample " (i + 1) }
            div.beside {
                @for (run, subject) in subjects.iter().enumerate() {
                    @if let Some(text) = measured(subject).and_then(|measured| measured.samples.get(i)) {
                        article {
                            h4 { (PreEscaped(plot::swatch(Look::of(run)))) (subject.name) }
                            p.written dir="auto" {
                                @if let Some(prompt) = &args.prompt { span.prompt { (visible(prompt)) } }
                                (visible(text))
                            }
                        }
                    }
                }
            }
        }
    }
}
