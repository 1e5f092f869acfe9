//! `ltm demo`: training, evaluation and generation on the embedded corpus.

use super::eval::BAR;
use super::interrupt::{self, Guard};
use super::output::{print, warn};
use super::place::Place;
use super::progress::behind_bar;
use super::settings::Usual;
use super::train;
use engine::{Device, Error, Result};
use lab::eval::{Options, Row, evaluate};
use lab::ledger::{self, Ledger, half};
use lab::plan::Plans;
use lab::table::{Table, digits, nats as shown, or_dash, short, si, visible};
use ltm::config::{Config, ModelKind, Work, parameter_count};
use ltm::corpus::Corpus;
use ltm::evaluate::{Mean, Protocol};
use ltm::generate::Writing;
use ltm::run::{Loaded, Material, NewFolder, REPORT_SEED, Run, Session, stories};
use ltm::shell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Number of stories for the evaluation.
const STORIES: u64 = 64;

/// Posterior draws per story.
const DRAWS: usize = 16;

/// Fast steps in evaluation. Training makes do with fewer, but the bound falls until here (docs/results.md).
const STEPS: usize = 32;

/// Columns of running text.
const COLUMNS: usize = 98;

/// Train on the embedded corpus, with latents and without, and show what the latents remember: a few minutes on two
/// cores
///
/// The corpus is an endless source of stories whose exact probability is known, so every number can be compared with
/// the best possible. The run folder remains, for `ltm eval`, `ltm audit` and `ltm generate`; the baselines are in it.
#[derive(clap::Args)]
pub struct Args {
    /// New folder for the run [default: runs/demo, or with a number appended if that exists]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    settings: Usual,
}

pub fn run(args: &Args, place: &Place) -> Result<ExitCode> {
    let mut config = Config::preset("demo")?;
    args.settings.apply(&mut config)?;
    if !config.data.paths.is_empty() {
        return Err(Error::usage("the demo uses the embedded corpus: `ltm train --data` trains on your own text"));
    }
    if config.model.kind != ModelKind::Ltm {
        return Err(Error::usage("the demo trains a model with latents and both baselines: remove model.kind"));
    }
    config.train.threads = place.threads(config.train.threads);
    // Before sizes are resolved, because a baseline's sizes depend on its kind.
    let baseline = |kind| {
        let mut baseline = config.of_kind(kind);
        baseline.train.sample_every = 0;
        baseline.resolved()
    };
    let baselines = [baseline(ModelKind::ArLatent)?, baseline(ModelKind::Ar)?];
    let config = &config.resolved()?;
    let folder = match &args.out {
        Some(out) => NewFolder::at(out)?,
        None => NewFolder::numbered("runs/demo"),
    };
    place.inside(config.train.threads, || {
        let material = lab::text::material(config)?;
        let (session, device) = place.within_training(config.train.precision, |device| {
            Ok((Session::begin(&folder, config, &material, device)?, device.clone()))
        })?;
        demo(session, &baselines, &material, &device)
    })
}

/// Trains the model of `session`, and `baselines` on the same `material`, evaluates them, generates text with the first,
/// and shows what each remembers.
fn demo(mut session: Session, baselines: &[Config; 2], material: &Material, device: &Device) -> Result<ExitCode> {
    let started = Instant::now();
    let run = session.run.clone();
    let (config, out) = (&run.config, &run.path);
    let (corpus, reach) = (Corpus::of(config)?, config.model.reach());
    let story = corpus.document(REPORT_SEED, 0).bytes;
    print("The corpus is an endless source of stories, each with its own persons, things and places:\n")?;
    print(indented(&String::from_utf8_lossy(&story)))?;
    say(format!(
        "The task is to predict every next byte. The facts of a story come back, but the decoder sees only {reach} bytes \
         back: only a memory, the latents, can tell it a fact that is out of sight."
    ))?;
    say(format!(
        "1. Training {} steps of {} stories. {} fast steps infer the latents of every story.",
        config.train.steps, config.train.batch, config.fast.steps
    ))?;
    let guard = Guard::new()?;
    if !train::steps(&mut session, &guard, false)? {
        return Ok(ExitCode::from(interrupt::CODE));
    }
    drop(session);
    let [constant, none] = baselines;
    say(format!(
        "2. Training two baselines on the same stories in the same order. ar-latent is the same decoder, but its latents \
         are learned once and are the same for every story. ar has no latents, and no layers that read them. They have {} \
         and {} weights, this model {}.",
        parameter_count(&constant.model),
        parameter_count(&none.model),
        parameter_count(&config.model)
    ))?;
    let folder = |config: &Config| out.join(config.model.kind.to_string());
    for config in baselines {
        let mut session = Session::begin(&NewFolder::at(&folder(config))?, config, material, device)?;
        if !train::steps(&mut session, &guard, false)? {
            return Ok(ExitCode::from(interrupt::CODE));
        }
    }
    drop(guard);

    say(format!("3. Evaluating all three on {STORIES} unseen stories. {STEPS} fast steps infer the latents of each."))?;
    let mut model = Judged::new(out, device)?;
    let protocols = protocols(&mut model)?;
    let [mut constant, mut none] = [Judged::new(&folder(constant), device)?, Judged::new(&folder(none), device)?];
    let [constant_half, none_half] = [second_half(&mut constant.model)?, second_half(&mut none.model)?];

    say("4. Generating text, at temperature 1.")?;
    writing(&mut model.model, &corpus, &story)?;

    say("5. What a story costs: the fewer nats (1 nat = 1.44 bits), the better it is predicted.")?;
    let halves = format!("For the baselines, prefix is {constant_half} (ar-latent) and {none_half} (ar).");
    print(format_args!("\n{protocols}\n{halves}\n\n{}", rivals(&model, [&constant, &none], device)?))?;

    say("6. What the latents remember.")?;
    let models = [("this model", &model.ledger), ("ar-latent", &constant.ledger)];
    for (caption, table) in ledger::main_tables(&models) {
        say(format!("{caption}:"))?;
        print(table)?;
    }
    let [this, constant_path, none_path] = [&model, &constant, &none].map(|judged| shell::path(&judged.path));
    say(format!(
        "`ltm audit {this} --steps {STEPS} --against {constant_path} {none_path}` shows more: every kind of fact, and how \
         many bits of it can be read from the latents."
    ))?;
    let kept = ledger::sentence(&model.ledger, Some(("without inferred latents", &constant.ledger)));
    say(kept.unwrap_or("It kept no facts, because its own stories repeat none yet: train for more steps.".into()))?;
    let seconds = started.elapsed().as_secs_f64();
    print(format_args!("\nThe demo took {seconds:.0} seconds; the run is in {}", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A trained model, and its ledger of the stories.
struct Judged {
    path: PathBuf,
    model: Loaded,
    ledger: Ledger,
}

impl Judged {
    /// The model of the run in the folder at `path`.
    fn new(path: &Path, device: &Device) -> Result<Self> {
        let mut model = Run::open(path)?.load(device, Work::Evaluation)?;
        warn(&model.warnings);
        let source = stories(&model.config, REPORT_SEED, STORIES)?;
        // The probe takes longer than all the rest.
        let mut options =
            ledger::Options { steps: STEPS, probe: 0, ..ledger::Options::new(&model.config, STORIES, DRAWS) };
        if !model.config.model.kind.reads_latents() {
            // Its stories are not shown.
            options.stories = 0;
        }
        let ledger = behind_bar("{bar} {percent}% of a ledger  ETA {eta}", |show| {
            Ledger::new(&mut model, &source, &options, show)
        })?;
        Ok(Self { path: path.into(), model, ledger })
    }
}

/// A table of the stories' cost by every protocol.
fn protocols(judged: &mut Judged) -> Result<String> {
    let Judged { model, ledger, .. } = judged;
    let source = stories(&model.config, REPORT_SEED, STORIES)?;
    let protocols = vec![Protocol::Prefix, Protocol::Fixed];
    let options = Options { protocols, steps: STEPS, samples: DRAWS, limit: None };
    let kind = model.config.model.kind;
    // The ledger has fitted the same stories by the same draws.
    let mut rows = vec![Row::of(Protocol::Elbo, kind, &ledger.scores), Row::of(Protocol::Iwae, kind, &ledger.iwae)];
    rows.extend(behind_bar(BAR, |show| evaluate(model, &source, &options, show))?);
    let table = Table::of(&rows)
        .left("protocol", |row| row.figures.protocol.name())
        .left("kind of number", |row| &row.figures.status)
        .right("nats/story", |row| shown(row.total.per_sequence()))
        .right("= NLL", |row| or_dash(row.per_sequence(row.figures.nll).map(|nats| digits(nats, 2))))
        .right("+ KL", |row| or_dash(row.per_sequence(row.figures.kl).map(|nats| digits(nats, 2))))
        .right("above the source", |row| row.above().map_or("(half a story)".into(), shown));
    Ok(format!("{table}\n{}", wrapped(READING, "")))
}

/// The stories' cost by protocol `prefix` for a baseline.
fn second_half(model: &mut Loaded) -> Result<String> {
    let source = stories(&model.config, REPORT_SEED, STORIES)?;
    let options = Options { protocols: vec![Protocol::Prefix], steps: 1, samples: 1, limit: None };
    let rows = evaluate(model, &source, &options, |_, _| ())?;
    Ok(shown(rows[0].total.per_sequence()))
}

/// Generates one unconditional text, and one that continues a story.
fn writing(model: &mut Loaded, corpus: &Corpus, story: &[u8]) -> Result<()> {
    let mut writer = lab::text::writer(model, Writing { steps: Some(STEPS), ..Writing::default() }, 1)?;
    let prompt = String::from_utf8_lossy(&story[..half(story)]).into_owned();
    let going_on = "Continuation of the first half of the story above, after the bar:";
    for (words, prompt, bar) in [("With latents drawn from the prior:", None, ""), (going_on, Some(&*prompt), "|")] {
        let rest = writer.whole(&mut model.store, prompt, 0)?;
        let prompt = prompt.unwrap_or_default();
        let [all, before] = [&*format!("{prompt}{rest}"), prompt].map(|text| corpus.consistency(text.as_bytes()));
        let (repeats, kept) = (all.repeats - before.repeats, all.kept - before.kept);
        say(words)?;
        print(indented(&format!("{prompt}{bar}{rest}")))?;
        print(format_args!("  (it repeats a fact {repeats} times, {kept} of them correctly)"))?;
    }
    Ok(())
}

/// A table of the stories' cost for their source, for the best reader without memory, for the baselines and for `model`,
/// and a sentence on the difference from the better baseline.
fn rivals(model: &Judged, baselines: [&Judged; 2], device: &Device) -> Result<String> {
    let nats = |judged: &Judged| judged.ledger.nats().per_sequence().mean;
    let better = if nats(baselines[0]) <= nats(baselines[1]) { baselines[0] } else { baselines[1] };
    let less = |judged: &Judged| judged.ledger.nats().less_per_sequence(&better.ledger.nats());
    let mut rows = Vec::new();
    if let Some(stories) = &model.ledger.stories {
        let known =
            [("the source itself, exactly", &stories.truth), ("the best reader without memory", &stories.floor)];
        rows.extend(known.map(|(who, tally)| {
            let mut cells = [(); 6].map(|()| String::new());
            (cells[0], cells[1]) = (who.into(), digits(tally.of(|_| true).per_sequence().mean, 2));
            cells
        }));
    }
    let named = baselines.map(|baseline| (format!("{}, exactly", baseline.model.config.model.kind), baseline));
    for (who, judged) in named.into_iter().chain([("this model, by elbo, at most".into(), model)]) {
        let flops = Plans::new(&judged.model.config, device)?.flops_per_token();
        let (targets, seconds) = Run::open(&judged.path)?.effort()?;
        let minus = if std::ptr::eq(judged, better) { String::new() } else { shown(less(judged)) };
        let (weights, speed) = (short(&judged.model.weights).into(), si(targets as f64 / seconds, ""));
        rows.push([who, digits(nats(judged), 2), minus, weights, si(flops, ""), speed]);
    }
    let config = &model.model.config;
    let name = better.model.config.model.kind;
    let table = Table::of(&rows)
        .left("model", |row| &row[0])
        .right("nats/story", |row| &row[1])
        .right(format!("minus {name}"), |row| &row[2])
        .left("weights", |row| &row[3])
        .right("FLOP/token", |row| &row[4])
        .right("tokens/s", |row| &row[5]);
    let words = format!(
        "{} The reader without memory knows the source, but sees only {} bytes back: nothing without memory costs less in \
         expectation. ± is one standard error over stories, paired; other seeds may differ by more. FLOP/token and tokens/s \
         are those of training, with seed {} and T = {} fast steps.",
        compared(less(model), &name.to_string()),
        config.model.reach(),
        config.train.seed,
        config.fast.steps
    );
    Ok(format!("{table}\n{}", wrapped(&words, "")))
}

/// Whether the model is better than the better baseline, in words.
fn compared(difference: Mean, than: &str) -> String {
    let Mean { mean, error } = difference;
    let (nats, errors) = (shown(Mean { mean: mean.abs(), error }), digits((mean / error).abs(), 1));
    let verdict = match mean.abs() > 2.0 * error {
        true if mean < 0.0 => "a clear gain",
        true => "no gain",
        // Also if the error is not known.
        false => "too little to tell",
    };
    let side = if mean < 0.0 { "less" } else { "more" };
    format!(
        "A story costs this model {nats} nats {side} than {than}, the better baseline: {errors} standard errors, {verdict}."
    )
}

/// Prints a paragraph after an empty line.
fn say(text: impl AsRef<str>) -> Result<()> {
    print(format_args!("\n{}", wrapped(text.as_ref(), "")))
}

/// Text that was read or generated, in indented lines.
fn indented(text: &str) -> String {
    wrapped(&visible(text), "  ")
}

/// Lines of at most [`COLUMNS`] columns, each after `indent`; only a word that is longer than a line is broken.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![indent.to_string()];
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for part in letters.chunks(COLUMNS - indent.len()) {
            let line = lines.last_mut().expect("a line");
            let length = line.chars().count();
            if length > indent.len() && length + 1 + part.len() > COLUMNS {
                lines.push(indent.chars().chain(part.iter().copied()).collect());
            } else {
                let space = (length > indent.len()).then_some(&' ');
                line.extend(space.into_iter().chain(part));
            }
        }
    }
    lines.join("\n")
}

const READING: &str = "NLL is the cost of the text given its latents, KL that of the latents: only the sum is the text's cost. \
                       elbo and iwae are bounds: the exact cost under the model is at most that. fixed is not a bound: it \
                       scores the noise that the latents were fitted to. prefix scores second halves; their latents know \
                       the first only.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_beyond_two_errors_is_a_gain() {
        for (mean, error, words) in [
            (-23.0, 1.0, "23.00 ± 1.00 nats less than ar, the better baseline: 23.0 standard errors, a clear gain."),
            (-1.5, 1.0, "1.50 ± 1.00 nats less than ar, the better baseline: 1.5 standard errors, too little to tell."),
            (3.0, 1.0, "3.00 ± 1.00 nats more than ar, the better baseline: 3.0 standard errors, no gain."),
            (-3.0, f64::NAN, "too little to tell."),
        ] {
            let said = compared(Mean { mean, error }, "ar");
            assert!(said.ends_with(words), "{said}");
        }
    }

    #[test]
    fn no_line_is_too_wide_and_no_word_is_lost() {
        let text = "word ".repeat(100) + &"x".repeat(220) + " end";
        let lines = indented(&text);
        assert!(lines.lines().all(|line| line.starts_with("  ") && line.len() <= COLUMNS), "{lines}");
        assert_eq!(lines.replace([' ', '\n'], ""), text.replace(' ', ""));
        assert_eq!(wrapped("one two", ""), "one two");
        assert_eq!(wrapped("", ""), "");
    }
}
