use super::Entry;
use super::curves::{end, window};
use super::tokens::shade;
use crate::audit;
use crate::eval::{self, Row, TRAINING_TEXT, bounded};
use crate::plan::Plans;
use crate::suite::{self, CAPTION, KNOWN, Known, known, others};
use crate::table::{Column, Table, digits, or_dash, perplexity, plus_minus, short, si};
use engine::Device;
use ltm::config::{SETTINGS, parameter_count};
use maud::{Markup, html};
use std::collections::BTreeSet;

/// A table whose first column names its rows. It scrolls if it is wider than the page.
pub fn html_table(caption: &str, columns: &[Column]) -> Markup {
    shaded_table(caption, columns, &|_, _| None)
}

/// The same, with shades for some cells.
fn shaded_table(caption: &str, columns: &[Column], shade_of: &dyn Fn(usize, usize) -> Option<usize>) -> Markup {
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let class = |column: &Column, shade: Option<usize>| {
        let number = column.is_number.then_some("n");
        shade.map_or(number.map(str::to_string), |shade| Some(format!("n s{shade}")))
    };
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for column in columns { th scope="col" class=[class(column, None)] { (column.name) } } } }
                tbody {
                    @for row in 0..rows {
                        tr {
                            @for (i, column) in columns.iter().enumerate() {
                                @if i == 0 {
                                    th scope="row" class=[class(column, None)] { (column.cells[row]) }
                                } @else {
                                    td class=[class(column, shade_of(row, i))] { (column.cells[row]) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Every text once, after the names of its runs, in the original order.
pub fn by_text<'a>(said: impl Iterator<Item = (&'a Entry, String)>) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for (entry, text) in said {
        match texts.iter_mut().find(|(_, known)| *known == text) {
            Some((names, _)) => *names += &format!(", {}", entry.name),
            None => texts.push((entry.name.clone(), text)),
        }
    }
    texts
}

/// Text with the parts between backticks as code.
pub fn prose(text: &str) -> Markup {
    html! {
        @for (i, part) in text.split('`').enumerate() { @if i % 2 == 1 { code { (part) } } @else { (part) } }
    }
}

fn data(entry: &Entry) -> String {
    match &entry.run.config.data.paths[..] {
        [] if entry.is_imported => "imported".into(),
        [] => "embedded corpus".into(),
        paths => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" + "),
    }
}

/// The runs, their progress, and their cost.
pub fn overview(entries: &[Entry]) -> Markup {
    let last = |entry: &Entry| entry.history.steps.last().copied();
    let step = |entry: &Entry| {
        let measured = entry.measured.as_ref().and_then(|measured| Some(measured.step? as f64));
        measured.or(last(entry).map(|last| last.step))
    };
    let latents = |entry: &Entry| {
        let model = &entry.run.config.model;
        if model.kind.reads_latents() { format!("{} × {}", model.layers, model.latents) } else { "none".into() }
    };
    // The training of imported weights is unknown.
    let flops = |entry: &Entry| Some(Plans::new(&entry.run.config, &Device::CPU).ok()?.flops_per_token());
    let speed = |entry: &Entry| last(entry).map(|last| last.tokens / last.seconds);
    let digest = |entry: &Entry| Some(short(entry.measured.as_ref()?.weights.as_ref()?).to_string());
    let table = Table::of(entries)
        .left("run", |entry| &entry.name)
        .left("model", |entry| entry.run.config.model.kind)
        .right("weights", |entry| si(parameter_count(&entry.run.config.model) as f64, ""))
        .right("latents", latents)
        .right("step", |entry| or_dash(step(entry)))
        .right("training tokens", |entry| or_dash(last(entry).map(|last| si(last.tokens, ""))))
        .right("FLOPs/token", |entry| or_dash(last(entry).and_then(|_| flops(entry)).map(|flops| si(flops, ""))))
        .right("tokens/s", |entry| or_dash(speed(entry).map(|speed| si(speed, ""))))
        .right("training loss", |entry| or_dash(end(entry).map(|end| digits(end.cost.loss, 4))))
        .right("validation loss", |entry| {
            or_dash(entry.history.validations.last().map(|last| digits(last.cost.loss, 4)))
        })
        .left("digest", |entry| or_dash(digest(entry)));
    let mut caption = format!(
        "Losses are in nats per token: of training the mean of the last {}, of validation the last; FLOPs and speed are \
         those of training",
        window(entries)
    );
    // Paths are long, so paths that all runs share get no column.
    let same_data = entries.iter().all(|entry| data(entry) == data(&entries[0]));
    let table = if same_data { table } else { table.left("data", data) };
    if same_data {
        caption += &format!("; data: {}", data(&entries[0]));
    }
    html_table(&caption, &table.columns)
}

/// The settings in which the runs differ, and all of them.
pub fn settings(entries: &[Entry]) -> Markup {
    let rows = SETTINGS.iter().map(|setting| {
        let value = |entry: &Entry| setting.value(&entry.run.config);
        let plain = |entry: &Entry| value(entry).as_str().map_or_else(|| value(entry).to_string(), str::to_string);
        let is_used = |entry: &Entry| match setting.name {
            "model.latents" => entry.run.config.model.kind.reads_latents(),
            name => entry.infers() || !name.starts_with("fast."),
        };
        let used = |entry: &Entry| is_used(entry).then(|| plain(entry));
        (setting.name, entries.iter().map(used).collect::<Vec<_>>())
    });
    let differ = |values: &[Option<String>]| values.iter().flatten().collect::<BTreeSet<_>>().len() > 1;
    let (differing, same): (Vec<_>, Vec<_>) = rows.partition(|(_, values)| differ(values));
    let same: Vec<_> = same.iter().filter_map(|(name, values)| Some((name, values.iter().flatten().next()?))).collect();
    // The larger number, runs or settings, goes down the page.
    let columns = if entries.len() > differing.len() {
        let runs: Vec<(usize, &Entry)> = entries.iter().enumerate().collect();
        let table = Table::of(&runs).left("run", |(_, entry)| &entry.name);
        differing
            .iter()
            .fold(table, |table, (name, values)| table.left(*name, |(i, _)| or_dash(values[*i].as_ref())))
            .columns
    } else {
        let table = Table::of(&differing).left("setting", |row| row.0);
        let runs = entries.iter().enumerate();
        runs.fold(table, |table, (i, entry)| table.left(&entry.name, move |row| or_dash(row.1[i].as_ref()))).columns
    };
    let common = Table::of(&same).left("setting", |row| row.0).left("value", |row| row.1);
    html! {
        @if !differing.is_empty() {
            (html_table("Settings that differ", &columns))
        } @else if entries.len() > 1 {
            p { "The runs do not differ in any setting." }
        }
        details {
            summary { @if entries.len() > 1 { "Common settings" } @else { "All settings" } }
            (html_table("The same in all runs", &common.columns))
        }
    }
}

/// The result of every protocol for every run, side by side.
pub fn results(entries: &[Entry]) -> Markup {
    let rows = entries.iter().filter_map(|entry| Some((entry.name.as_str(), entry.measured.as_ref()?)));
    let mut rows: Vec<(&str, &Row)> =
        rows.flat_map(|(name, measured)| measured.results.iter().map(move |row| (name, row))).collect();
    rows.sort_by_key(|(_, row)| row.figures.protocol);
    let table = eval::columns(Table::of(&rows).left("run", |(name, _)| name), |(_, row)| row);
    html_table("± is one standard error over sequences", &table.columns)
}

/// The results of `ltm eval --suite` in the run folders.
pub fn suite<'a>(entries: &'a [Entry]) -> Markup {
    let rows = entries.iter().flat_map(|entry| entry.suite.iter().map(move |result| (entry, result)));
    let rows: Vec<(&Entry, &suite::Entry)> = rows.collect();
    let title = |result: &suite::Entry| {
        let title = known(&result.set).map_or(result.set.as_str(), |known| known.title);
        if result.data_learnt { format!("{title}, {TRAINING_TEXT}") } else { title.into() }
    };
    let kind = |entry: &Entry| entry.run.config.model.kind;
    let shown =
        |entry: &Entry, result: &suite::Entry, x| bounded(result.figures.protocol.is_bound(kind(entry)), perplexity(x));
    let table = Table::of(&rows)
        .left("run", |(entry, _)| &entry.name)
        .left("set", |(_, result)| title(result))
        .left("protocol", |(_, result)| result.figures.protocol.name())
        .left("kind of number", |(entry, result)| result.figures.protocol.status(kind(entry)))
        .right("T", |(_, result)| or_dash(result.fast_steps))
        .right("S", |(_, result)| result.samples)
        .right("nats/token", |(_, result)| plus_minus(result.nats_per_token, result.nats_per_token_error, 4))
        .right("perplexity", |(entry, result)| shown(entry, result, result.figures.perplexity))
        .right("per GPT-2 token", |(entry, result)| {
            or_dash(result.perplexity_per_gpt2_token.map(|x| shown(entry, result, x)))
        })
        .right("published", |(_, result)| or_dash(known(&result.set).map(|known| known.published)))
        .right("bits/byte", |(_, result)| digits(result.figures.bits_per_byte, 4))
        .right("documents", |(_, result)| result.documents)
        .right("after step", |(_, result)| result.step)
        .left("weights", |(_, result)| short(&result.weights_sha256))
        .right("seed", |(_, result)| result.seed);
    let missing = |entry: &'a Entry| {
        let has = |known: &Known| entry.suite.iter().any(|result| result.set == known.name);
        let missing: Vec<&str> = KNOWN.iter().filter(|known| !has(known)).map(|known| known.title).collect();
        (!missing.is_empty()).then(|| (entry, missing.join(", ")))
    };
    let commands: BTreeSet<&str> = rows.iter().map(|(_, result)| result.command.as_str()).collect();
    html! {
        (html_table("± is one standard error over sequences", &table.columns))
        p.note {
            "Published figures are perplexities per GPT-2 token. Those of the paper's models S, M and L are computed as " code { "fixed" }
            " as far as the public code shows, so they are not bounds. That of an autoregressive model of 76 M parameters (AR) is exact."
        }
        (html_table(CAPTION, &others(|_| true).columns))
        @for (names, missing) in by_text(entries.iter().filter_map(missing)) { p.note { (names) ": MISSING: " (missing) } }
        @for command in commands { p.note { "By " code { (command) } } }
    }
}

/// The KL of every latent in an audit's row, one row per layer. Darker cells are nearer to `most`.
pub fn latents(row: &audit::Row, per_layer: usize, most: f64) -> Markup {
    let layers: Vec<(usize, &[f64])> = (1..).zip(row.kl_by_latent.chunks(per_layer)).collect();
    let shade_of = |row: usize, column: usize| Some(shade(*layers[row].1.get(column - 1)?, most));
    let caption =
        format!("KL by layer and latent at T = {}; the darkest cell of all runs has {most:.2} nats", row.steps);
    shaded_table(&caption, &audit::latents(&layers).columns, &shade_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backticks_make_code() {
        for (text, html) in
            [("no `a<b>`: `c`", "no <code>a&lt;b&gt;</code>: <code>c</code>"), ("plain", "plain"), ("", "")]
        {
            assert_eq!(prose(text).into_string(), html);
        }
    }
}
