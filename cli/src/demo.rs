//! `ltm demo`: training, evaluation and generation on the embedded corpus.

use super::eval::BAR;
use super::interrupt::{self, Guard};
use super::output::{print, warn, write};
use super::place::Place;
use super::progress::behind_bar;
use super::settings::Usual;
use super::train;
use engine::{Device, Error, Result};
use lab::eval::{Options, Row, evaluate};
use lab::plan::Plans;
use lab::table::{Table, digits, nats as shown, short, si};
use ltm::config::{Config, ModelKind, Work, parameter_count};
use ltm::corpus::Corpus;
use ltm::evaluate::{Mean, Protocol};
use ltm::generate::Writing;
use ltm::run::{Loaded, Material, NewFolder, REPORT_SEED, Run, Session, stories};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Number of stories for the evaluation.
const STORIES: u64 = 64;

/// Posterior draws per story.
const DRAWS: usize = 16;

/// Train on the embedded corpus, compare the result with the exact entropy, and generate text: a few minutes on two
/// cores
///
/// The corpus is an endless source of small stories whose exact probability is known, so every number can be compared
/// with the best possible. The run folder remains, for `ltm eval` and `ltm generate`.
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
        return Err(Error::usage("the demo trains both kinds of model: remove model.kind"));
    }
    config.train.threads = place.threads(config.train.threads);
    // Before sizes are resolved, because the baseline's sizes depend on its kind.
    let mut baseline = config.clone();
    baseline.model.kind = ModelKind::Ar;
    let [config, baseline] = &[config.resolved()?, baseline.resolved()?];
    let folder = match &args.out {
        Some(out) => NewFolder::at(out)?,
        None => NewFolder::numbered("runs/demo"),
    };
    place.inside(config.train.threads, || {
        let material = lab::text::material(config)?;
        let (session, device) = place
            .within_training(|device| Ok((Session::begin(&folder, config, &material, device)?, device.clone())))?;
        demo(session, baseline, &material, &device)
    })
}

/// Trains the model of `session`, and `baseline` on the same `material`, evaluates both and generates text with the
/// first.
fn demo(mut session: Session, baseline: &Config, material: &Material, device: &Device) -> Result<ExitCode> {
    let started = Instant::now();
    let run = session.run.clone();
    let (config, out) = (&run.config, &run.path);
    let corpus = Corpus::of(config)?;
    let story = corpus.document(REPORT_SEED, 0);
    print(format_args!(
        "The corpus: endless small stories, each with its own persons, things and places, like this one:\n\n  {}\n",
        String::from_utf8_lossy(&story.bytes)
    ))?;
    print(format_args!(
        "1. Training {} steps of {} stories. The decoder sees only {} bytes back, so it must keep a story's facts \
         in\n   its latents, which {} fast steps infer for every story.",
        config.train.steps,
        config.train.batch,
        reach(config),
        config.fast.steps
    ))?;
    let guard = Guard::new()?;
    if !train::steps(&mut session, &guard, false)? {
        return Ok(ExitCode::from(interrupt::CODE));
    }
    drop(session);
    print(format_args!(
        "\n2. Training the baseline on the same stories: a decoder without latents and cross-attention, {} weights against {}.",
        parameter_count(&baseline.model),
        parameter_count(&config.model)
    ))?;
    let baseline_out = out.join("baseline");
    let mut session = Session::begin(&NewFolder::at(&baseline_out)?, baseline, material, device)?;
    if !train::steps(&mut session, &guard, false)? {
        return Ok(ExitCode::from(interrupt::CODE));
    }
    drop((session, guard));

    print(format_args!("\n3. Evaluating both on {STORIES} held-out stories."))?;
    let (rival, exact) = judged(&baseline_out, &[Protocol::Nll], device)?;
    let (mut model, rows) = judged(out, Protocol::of(ModelKind::Ltm), device)?;

    print("\n4. Generating text.\n")?;
    writing(&mut model, &corpus, &story.bytes)?;

    print(format_args!("Results\n\n{}\n", lab::eval::text(&rows)))?;
    // The first protocol of each gives its cost: nll, elbo.
    let models = [
        ("the baseline, exactly", &rival, &*baseline_out, &*exact[0].sequence_nats),
        ("this model, by elbo, at most", &model, out, &rows[0].sequence_nats),
    ];
    print(format_args!(
        "{}\n{READING}\n\nThe demo took {:.0} seconds; the run is in {}",
        rivals(models, &corpus, device)?,
        started.elapsed().as_secs_f64(),
        out.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The model in the folder at `path`, and its cost of the stories.
fn judged(path: &Path, protocols: &[Protocol], device: &Device) -> Result<(Loaded, Vec<Row>)> {
    let mut model = Run::open(path)?.load(device, Work::Evaluation)?;
    warn(&model.warnings);
    let source = stories(&model.config, REPORT_SEED, STORIES)?;
    let steps = model.config.fast.steps;
    let options = Options { protocols: protocols.to_vec(), steps, samples: DRAWS, limit: None };
    let rows = behind_bar(BAR, |show| evaluate(&mut model, &source, &options, show));
    Ok((model, rows?))
}

/// The number of bytes back that the decoder sees through all layers.
fn reach(config: &Config) -> usize {
    config.model.layers * (config.model.window - 1) + 1
}

/// Generates one unconditional text, and one that continues a story.
fn writing(model: &mut Loaded, corpus: &Corpus, story: &[u8]) -> Result<()> {
    let options = Writing { tokens: Some(model.config.model.seq), temperature: 0.7, ..Writing::default() };
    let mut writer = lab::text::writer(model, options, 1)?;
    let prompt = String::from_utf8_lossy(&story[..half(story)]).into_owned();
    let going_on = format!("Continuation of the first half of the story above, after the bar:\n  {prompt}|");
    for (words, prompt) in [("With latents drawn from the prior:\n  ", None), (&going_on, Some(&*prompt))] {
        write(words)?;
        let mut text = prompt.unwrap_or_default().to_string();
        writer.text(&mut model.store, prompt, 0, &mut |piece| {
            text.push_str(piece);
            write(piece)
        })?;
        let count = corpus.consistency(text.as_bytes());
        print(format_args!("\n  (repeats a fact {} times, {} of them correctly)\n", count.repeats, count.kept))?;
    }
    Ok(())
}

/// The end of a sentence that is nearest to the middle.
fn half(story: &[u8]) -> usize {
    let ends = story.iter().enumerate().filter(|&(_, &byte)| byte == b'.').map(|(i, _)| i + 1);
    ends.min_by_key(|end| end.abs_diff(story.len() / 2)).unwrap_or(story.len() / 2)
}

/// A table of the cost for models without latents and for both models, with the cost of training. The baseline is the
/// first of `models`: name, model, run and nats of each story.
fn rivals(models: [(&str, &Loaded, &Path, &[f64]); 2], corpus: &Corpus, device: &Device) -> Result<String> {
    let config = &models[1].1.config;
    let reach = reach(config);
    let known = |who: String, cost: &dyn Fn(&[u8]) -> Option<f64>| {
        let documents = (0..STORIES as u32).map(|i| corpus.document(REPORT_SEED, i));
        let nats: f64 = documents.map(|document| cost(&document.bytes).unwrap_or(f64::NAN)).sum();
        [who, digits(nats / STORIES as f64, 2), String::new(), String::new(), String::new(), String::new()]
    };
    let mut rows = vec![
        known("the stories' source, the least possible".into(), &|text| corpus.log_prob(text).map(|x| -x)),
        known(format!("an ideal reader without latents, {reach} bytes back"), &|text| {
            corpus.windowed_nats(text, reach)
        }),
    ];
    for (i, (who, model, run, nats)) in models.into_iter().enumerate() {
        let flops = Plans::new(&model.config, device)?.flops_per_token();
        let (targets, seconds) = Run::open(run)?.effort()?;
        let less = if i == 0 { String::new() } else { shown(Mean::of_differences(nats, models[0].3)) };
        let speed = si(targets as f64 / seconds, "");
        let weights = short(&model.weights).into();
        rows.push([who.into(), digits(Mean::of(nats).mean, 2), less, weights, si(flops, ""), speed]);
    }
    let table = Table::of(&rows)
        .left("model", |row| &row[0])
        .right("nats/story", |row| &row[1])
        .right("minus the baseline", |row| &row[2])
        .left("weights", |row| &row[3])
        .right("training FLOP/token", |row| &row[4])
        .right("tokens/s", |row| &row[5]);
    let how = format!("seed {}, T = {} fast steps, S = {DRAWS} draws", config.train.seed, config.fast.steps);
    let paired = "± is one standard error over stories, paired by story; other seeds may differ by more.";
    Ok(format!("{table}\n{how}; {paired}\n"))
}

const READING: &str = "How to read this
- nats/sequence is the cost of a story (1 nat = 1.44 bits): the better the prediction, the lower the cost.
- The exact cost is that of the stories for their source itself; no valid number can be lower on average.
- NLL is the cost of the text given its latents; KL is the cost of the latents. Only the sum is the cost of the text.
- elbo adds both at fresh noise, so it is a bound: the true cost of the text under the model is at most that.
- iwae is a tighter bound from the same draws.
- prefix infers the latents from the first half of a story and scores only the second half.
- fixed scores with the noise that the latents were fitted to, as the public reference code does. It can fall below the
  exact cost, so it is not a valid perplexity.
- The ideal reader knows the source, but not the facts that it no longer sees.
- A repeated fact is correct if it has the same value as before; a model without memory would guess one in 16.";
