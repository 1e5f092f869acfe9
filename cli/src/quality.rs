//! `ltm quality`.

use super::eval::warn;
use super::generate::Writing;
use super::output::{Align, note, perplexity, print, short, table};
use super::progress::bar;
use super::transcript::{Transcript, origin};
use super::{device, threads};
use engine::{Device, Error, Result};
use lab::quality::{Judged, REPEATED, Variety};
use ltm::config::Work;
use ltm::data::Source;
use ltm::evaluate::{Evaluator, Protocol, Total};
use ltm::generate::{ROUNDS, Writer};
use ltm::hash::sha256_files;
use ltm::json::Value;
use ltm::run::{Loaded, Run};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Draws per text where the judge has latents.
const DRAWS: usize = 16;

/// Let a model write, and measure what it writes: entropy, repetition, distinct n-grams, and perplexity under another model
///
/// With --prompts every line of a file is gone on with, --samples texts each, and a judge scores the text given its prompt;
/// without, texts begin with nothing. Statistics are of words between blanks. A judge with latents gives an upper bound (elbo). Only
/// numbers of as many texts of the same length mean anything beside each other.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of a training run, whose model writes
    run: PathBuf,
    /// Run whose model judges [default: the writer itself]
    #[arg(long, value_name = "RUN")]
    judge: Option<PathBuf>,
    /// Text file with a prompt a line
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// New file for every text, behind a line that says where they come from [default: RUN/quality.jsonl, or -2, -3, ...]
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    writing: Writing,
}

pub fn run(args: &Args, threads: Option<usize>, device: device::Choice) -> Result<()> {
    let run = Run::open(&args.run)?;
    let judge = Run::open(args.judge.as_ref().unwrap_or(&args.run))?;
    threads::inside(threads.unwrap_or(run.config().train.threads), || {
        device::within(device, |device| {
            let written = write(args, &run, device)?;
            let judged = judged(&judge, &written.texts, device)?;
            show(args, &judge, &written, &judged)
        })
    })
}

/// What a model wrote.
struct Written {
    /// Prompts, empty if there are none, with what the model made of them.
    texts: Vec<(String, String)>,
    /// Where they come from.
    head: Value,
    /// Digest of the model's weights.
    weights: String,
}

/// What the judge says of it.
struct Verdict {
    protocol: Protocol,
    total: Total,
    /// Digest of the judge's weights.
    weights: String,
}

fn write(args: &Args, run: &Run, device: &Device) -> Result<Written> {
    let writing = &args.writing;
    let prompts = args.prompts.as_deref().map(lines).transpose()?;
    let each = writing.samples;
    let mut count = each;
    if let Some(prompts) = &prompts {
        let all = (each as usize).saturating_mul(prompts.len());
        count = u32::try_from(all).ok().filter(|&all| all < ROUNDS).ok_or_else(|| {
            Error::usage(format!(
                "--samples {each} of {} prompts are {all} texts: must be less than {ROUNDS}",
                prompts.len()
            ))
        })?;
    }
    let mut model = run.load(device, Work::Generation)?;
    let tokenizer = lab::text::tokenizer(model.config.data.tokenizer);
    let mut writer = Writer::new(&model.config, &model.params, &mut model.store, tokenizer, writing.options())?;
    warn(&model);
    let head = header(args, run, &model, writer.steps())?;
    let mut transcript = Transcript::create(args.texts.as_deref(), run.path(), "quality")?;
    transcript.keep(&head)?;
    let bar = bar(u64::from(count), "{bar:24} {pos}/{len} texts  ETA {eta}");
    let mut texts = Vec::new();
    for sample in 0..count {
        let prompt = prompts.as_ref().map(|prompts| prompts[(sample / each) as usize].as_str());
        let text = writer.whole(&mut model.store, prompt, sample)?;
        let prompt_or_null = prompt.map_or(Value::Null, Value::from);
        transcript.keep(&Value::object([("prompt", prompt_or_null), ("text", text.as_str().into())]))?;
        texts.push((prompt.unwrap_or_default().to_string(), text));
        bar.inc(1);
    }
    bar.finish_and_clear();
    transcript.done();
    Ok(Written { texts, head, weights: model.weights })
}

/// Everything that the texts depend on.
fn header(args: &Args, run: &Run, model: &Loaded, steps: usize) -> Result<Value> {
    let (writing, prompts) = (&args.writing, args.prompts.as_deref());
    Ok(Value::object(origin(run, model).into_iter().chain([
        ("prompts", prompts.map_or(Value::Null, |path| path.display().to_string().into())),
        ("prompts_sha256", prompts.map(|path| sha256_files(&[path])).transpose()?.map_or(Value::Null, Into::into)),
        ("samples", u64::from(writing.samples).into()),
        ("tokens", writing.tokens.into()),
        ("temperature", writing.temperature.into()),
        ("top_k", writing.top_k.into()),
        ("top_p", writing.top_p.into()),
        ("fast_steps", steps.into()),
        ("seed", writing.seed.into()),
    ])))
}

/// The lines of a file that are not blank.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_string).collect();
    if lines.is_empty() { Err(Error::new(format!("{} holds no prompt", path.display()))) } else { Ok(lines) }
}

/// What the texts cost the judge.
fn judged(judge: &Run, texts: &[(String, String)], device: &Device) -> Result<Verdict> {
    let mut model = judge.load(device, Work::Evaluation)?;
    let Loaded { config, params, store, .. } = &mut model;
    let tokenizer = lab::text::tokenizer(config.data.tokenizer);
    let source = Judged::new(texts, &*tokenizer, config.data.chunking, config.model.seq)?;
    if source.cut() > 0 {
        note(format_args!(
            "note: {} texts are longer than the {} tokens that the judge reads: their beginnings are judged",
            source.cut(),
            config.model.seq
        ));
    }
    let protocol = Protocol::of(config.model.kind)[0];
    let evaluator = Evaluator::new(config, protocol, config.fast.steps, DRAWS, params, store)?;
    config.check_room(store, Work::Evaluation)?;
    let bar = bar(source.samples().unwrap_or(0), "{bar:24} {pos}/{len} texts judged  ETA {eta}");
    let source: Arc<dyn Source> = Arc::new(source);
    let scores = evaluator.score(store, &source, None, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    Ok(Verdict { protocol, total: Total::of(&scores), weights: model.weights })
}

fn show(args: &Args, judge: &Run, written: &Written, verdict: &Verdict) -> Result<()> {
    let Verdict { protocol, total, weights } = verdict;
    let texts: Vec<&str> = written.texts.iter().map(|(_, text)| text.as_str()).collect();
    let variety = Variety::of(&texts);
    let kind = if args.prompts.is_some() { "conditional" } else { "unconditional" };
    if args.json {
        let value = Value::object([
            ("settings", written.head.clone()),
            ("judge", judge.path().display().to_string().into()),
            ("judge_weights_sha256", weights.as_str().into()),
            ("kind", kind.into()),
            ("texts", texts.len().into()),
            ("words", variety.words.into()),
            ("entropy_bits", variety.entropy.into()),
            ("repetition", variety.repetition.into()),
            ("distinct", Value::Array(variety.distinct.iter().map(|&x| x.into()).collect())),
            ("protocol", protocol.name().into()),
            ("perplexity", total.perplexity().into()),
            ("bits_per_byte", total.bits_per_byte().into()),
        ]);
        return print(value.pretty().trim_end());
    }
    print(format_args!(
        "{} {kind} texts of {} (weights {}, seed {}), {} words; judged by {} (weights {}; {}, {})\n",
        texts.len(),
        args.run.display(),
        short(&written.weights),
        args.writing.seed,
        variety.words,
        judge.path().display(),
        short(weights),
        protocol.name(),
        protocol.status()
    ))?;
    let [one, two, three] = variety.distinct;
    let rows = [
        ("entropy of words, bits".to_string(), format!("{:.3}", variety.entropy)),
        (format!("repeated runs of {REPEATED} words"), format!("{:.2} %", 100.0 * variety.repetition)),
        ("distinct-1, -2, -3".into(), format!("{one:.3}, {two:.3}, {three:.3}")),
        ("generative perplexity".into(), perplexity(total.perplexity())),
        ("bits per byte".into(), format!("{:.4}", total.bits_per_byte())),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    print(table(&[("measure", Align::Left), ("value", Align::Right)], &rows))
}
