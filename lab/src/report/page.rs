use super::curves::{curves, signed};
use super::tables::{by_text, prose};
use super::tokens::{reading, scale};
use super::{DRAWS, Entry, Measured, Options, Seen, tables};
use crate::audit;
use crate::eval::IWAE;
use crate::ledger::{self, Ledger};
use crate::plot;
use crate::table::visible;
use crate::text::tokenizer;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeSet;

/// Allows only content of the file itself, and no scripts.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// Largest number of samples shown per run.
const MOST_SAMPLES: usize = 12;
/// With more runs than this their audits are folded.
const AUDITS: usize = 3;

/// The page of these runs, made by `command`.
pub fn page(options: &Options, entries: &[Entry], command: &str) -> String {
    let names = entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ");
    // Anchor, heading, and content.
    let mut sections = vec![
        ("curves", "Curves", curves(entries)),
        ("settings", "Settings", tables::settings(entries)),
        ("results", "Results", results(options, entries)),
        ("suite", "Suite", tables::suite(entries)),
        ("audit", "Audit", audits(entries)),
        ("ledger", "Ledger", ledgers(entries)),
        ("tokens", "The cost of every token", readings(entries)),
        ("samples", "Samples", samples(options, entries)),
    ];
    if entries.iter().all(|entry| entry.suite.is_empty()) {
        sections.retain(|(place, ..)| *place != "suite");
    }
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
                // Without an icon here, a browser would request one.
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
                    @for note in entries.iter().flat_map(Entry::missing) { p.warning { (prose(note)) } }
                    @for seen in troubles(entries) { p.warning { (trouble(&seen)) } }
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

/// Problems during training. Troubles of the same kind form one group over all runs; a skipped step has a reason of its
/// own run.
fn troubles(entries: &[Entry]) -> Vec<Vec<(&Entry, &Seen)>> {
    let mut groups: Vec<Vec<(&Entry, &Seen)>> = Vec::new();
    for (entry, seen) in entries.iter().flat_map(|entry| entry.history.troubles.iter().map(move |seen| (entry, seen))) {
        let is_same = |group: &&mut Vec<(&Entry, &Seen)>| seen.trouble.is_some() && group[0].1.trouble == seen.trouble;
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push((entry, seen)),
            None => groups.push(vec![(entry, seen)]),
        }
    }
    groups
}

/// The message of a group's first run, and the steps of the others.
fn trouble(group: &[(&Entry, &Seen)]) -> Markup {
    let times = |Seen { steps, .. }: &Seen| match steps[..] {
        [_, .., last] => format!(" ({} times, the last time at step {last})", steps.len()),
        _ => String::new(),
    };
    let (entry, seen) = group[0];
    html! {
        (entry.name) ", step " (seen.steps[0])
        @if seen.trouble.is_none() { " was skipped" }
        ": " (prose(&seen.message)) (times(seen))
        @for (i, (entry, seen)) in group[1..].iter().enumerate() {
            @if i == 0 { ". The same: " } @else { "; " }
            (entry.name) ", step " (seen.steps[0]) (times(seen))
        }
    }
}

fn measured(entries: &[Entry]) -> impl Iterator<Item = (usize, &Entry, &Measured)> {
    entries.iter().enumerate().filter_map(|(run, entry)| Some((run, entry, entry.measured.as_ref()?)))
}

fn results(options: &Options, entries: &[Entry]) -> Markup {
    let texts = measured(entries).filter_map(|(_, entry, measured)| Some((entry, measured.text.as_ref()?.to_string())));
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
            @for (names, text) in by_text(texts) { p.note { (names) ": " (prose(&text)) } }
            @let has_masks = entries.iter().any(|entry| entry.run.config.model.kind.method().is_some());
            p.note {
                "A number is a bound on −log p of the text only if it includes the KL and is measured at noise that the posterior was not "
                "fitted to: " code { "elbo" } " and " code { "iwae" } " are bounds, " code { "nll" } " is exact, " code { "fixed" }
                " is not a bound. " code { "prefix" } " is the cost of the second halves, given the first, and exists for all kinds of models. "
                (IWAE) "."
            }
            @if has_masks {
                p.note {
                    "Masked diffusion has no latents: the bound is the mean cost of masks, over all masks. " code { "bound" }
                    " is an estimate of it by draws of masks; under + KL stands what a document pays for its length. "
                    code { "normalised" } " is the same of SEDD's scores divided by their sum, which it generates from. "
                    code { "orders" } ", only on request, is a tighter bound by random orders of the tokens. "
                    code { "paper" } " is the public code's estimator, which leaves out a part of the masks: not a bound."
                }
            }
        } @else if options.limit == 0 {
            p.note { "There was no evaluation: 0 sequences were asked for." }
        } @else {
            p.note { "The evaluation failed; the reasons are above." }
        }
    }
}

/// The audit's rows, and the row with the T of training.
fn audited(entry: &Entry) -> Option<(&[audit::Row], &audit::Row)> {
    let rows = entry.measured.as_ref().map(|measured| &measured.audit[..]).filter(|rows| !rows.is_empty())?;
    Some((rows, audit::as_trained(rows, &entry.run.config)))
}

fn audits(entries: &[Entry]) -> Markup {
    // One scale of KL for all runs.
    let all = entries.iter().filter_map(audited).flat_map(|(_, trained)| &trained.kl_by_latent);
    let most = all.copied().fold(0.0, f64::max);
    // Sentences that all audits share are printed once.
    let paragraphs = |entry: &Entry| audited(entry).map(|(rows, _)| audit::paragraphs(rows, &entry.run.config));
    let all: Vec<[String; 6]> = entries.iter().filter_map(paragraphs).collect();
    let is_shared = |text: &String| all.len() > 1 && all.iter().all(|other| other.contains(text));
    html! {
        p { "Nats per sequence after T fast steps, ± one standard error over sequences." }
        @for text in all.iter().take(1).flatten().filter(|text| is_shared(text)) { p { (prose(text)) } }
        @for entry in entries {
            details open[entries.len() <= AUDITS] {
                summary { (entry.name) }
                @if let Some((rows, trained)) = audited(entry) {
                    @for (caption, table) in audit::tables(rows) { (tables::html_table(caption, &table.columns)) }
                    (tables::latents(trained, entry.run.config.model.latents, most))
                    ul { @for text in paragraphs(entry).iter().flatten().filter(|text| !is_shared(text)) { li { (prose(text)) } } }
                } @else if entry.infers() {
                    p.note { "Not evaluated." }
                } @else if entry.run.config.model.kind.method().is_some() {
                    p.note { "This model fills in masks: `ltm audit` says which of its numbers are bounds." }
                } @else {
                    p.note { "This model infers no latents: its NLL is exact, so there is nothing to audit." }
                }
            }
        }
    }
}

/// The ledgers, side by side for runs that read the same text.
fn ledgers(entries: &[Entry]) -> Markup {
    let all = measured(entries).filter_map(|(_, entry, measured)| {
        Some((entry, measured.ledger.as_ref()?, measured.text.as_ref()?.name.as_str()))
    });
    let mut groups: Vec<Vec<(&Entry, &Ledger, &str)>> = Vec::new();
    for run in all {
        let is_same = |group: &&mut Vec<(&Entry, &Ledger, &str)>| {
            group[0].2 == run.2 && ledger::check_same_text(&group[0].0.run, &run.0.run).is_ok()
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    html! {
        @if groups.is_empty() { p.note { "No text was read." } }
        @for group in groups {
            @let models: Vec<ledger::Named> = group.iter().map(|(entry, ledger, _)| (&*entry.name, *ledger)).collect();
            @let baseline = group.iter().position(|(entry, ..)| !entry.infers()).map(|i| models[i]);
            @for (entry, ledger, _) in group.iter().filter(|(entry, ..)| entry.infers()) {
                @if let Some(sentence) = ledger::sentence(ledger, baseline) { p { (entry.name) ": " (sentence) } }
            }
            @for (caption, table) in ledger::tables(&models) { (tables::html_table(&caption, &table.columns)) }
        }
    }
}

fn readings(entries: &[Entry]) -> Markup {
    let read = || measured(entries).filter(|(_, _, measured)| !measured.readings.is_empty());
    let vocabularies: BTreeSet<usize> = read().map(|(_, entry, _)| entry.run.config.data.tokenizer.vocab()).collect();
    html! {
        @if read().next().is_none() { p.note { "No text was read." } }
        @for vocab in vocabularies { (scale(vocab)) }
        @if read().any(|(_, entry, _)| entry.infers()) {
            p.note {
                "Where latents are inferred, a posterior was fitted to each text, and " (DRAWS) " draws from it scored the tokens. So these costs are only part "
                "of the bound: the KL is added."
            }
        }
        (beside("Text", entries, |entry, measured, i| {
            let text = measured.readings.get(i)?;
            Some(reading(text, &*tokenizer(entry.run.config.data.tokenizer)))
        }))
    }
}

/// The items number 0, 1, … of every run, side by side, until no run has any.
fn beside(title: &str, entries: &[Entry], of: impl Fn(&Entry, &Measured, usize) -> Option<Markup>) -> Markup {
    let all = |i| {
        let parts = measured(entries).filter_map(|(run, entry, measured)| Some((run, of(entry, measured, i)?)));
        parts.collect::<Vec<_>>()
    };
    html! {
        @for (i, parts) in (0..).map(all).take_while(|parts| !parts.is_empty()).enumerate() {
            h3 { (title) " " (i + 1) }
            div.beside { @for (run, part) in parts { article { h4 { (signed(run, entries)) } (part) } } }
        }
    }
}

fn samples(options: &Options, entries: &[Entry]) -> Markup {
    html! {
        @if measured(entries).all(|(_, _, measured)| measured.samples.is_empty()) {
            p.note { "No texts were generated." }
        } @else {
            p {
                @if options.prompt.is_some() {
                    "After the prompt, with latents inferred from it"
                } @else {
                    "Without a prompt, with latents (if any) drawn from the prior"
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
                    summary { (signed(run, entries)) ": samples during training, the latest first" }
                    @for (step, text) in samples.iter().rev().step_by(samples.len().div_ceil(MOST_SAMPLES)) {
                        h4 { "After step " (step) }
                        p.written dir="auto" { (visible(text)) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::History;
    use super::*;
    use ltm::config::Config;
    use ltm::run::{Choice, Run, Trouble};

    #[test]
    fn the_same_trouble_of_several_runs_is_told_once() {
        let seen =
            |trouble, message: &str, steps: &[u64]| Seen { trouble, message: message.into(), steps: steps.to_vec() };
        let ignored = |steps: &[u64]| seen(Some(Trouble::LatentsIgnored), "no `KL`", steps);
        let skipped = |reason| seen(None, reason, &[7]);
        let runs = [vec![skipped("a"), ignored(&[10])], vec![ignored(&[10, 20])], vec![skipped("b"), ignored(&[30])]];
        let entry = |(name, troubles): (&str, Vec<Seen>)| Entry {
            name: name.into(),
            run: Run { path: name.into(), config: Config::preset("demo").unwrap(), choice: Choice::default() },
            is_imported: false,
            history: History { troubles, ..History::default() },
            suite: Vec::new(),
            measured: None,
            notes: Vec::new(),
        };
        let entries: Vec<Entry> = ["x", "y", "z"].into_iter().zip(runs).map(entry).collect();
        let told: Vec<String> = troubles(&entries).iter().map(|group| trouble(group).into_string()).collect();
        let ignored =
            "x, step 10: no <code>KL</code>. The same: y, step 10 (2 times, the last time at step 20); z, step 30";
        assert_eq!(told, ["x, step 7 was skipped: a", ignored, "z, step 7 was skipped: b"]);
    }
}
