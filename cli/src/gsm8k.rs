//! `ltm eval RUN --gsm8k FILE`: how often a model solves word problems.

use super::output::{Align, print, short, table};
use super::progress::bar;
use super::transcript::{Transcript, origin};
use engine::{Error, Result};
use lab::reasoning::{self, Problem};
use ltm::evaluate::Mean;
use ltm::generate::{ROUNDS, Sampling, Writer, Writing};
use ltm::hash::sha256_files;
use ltm::json::Value;
use ltm::run::{Loaded, Run};
use std::path::{Path, PathBuf};

/// Word problems.
#[derive(clap::Args)]
#[command(next_help_heading = "Word problems")]
pub struct GsmArgs {
    /// Let the model solve the problems of this file, one JSON object a line with question and answer, and count: pass@k
    /// from --samples texts a problem. The prompt is "Question: ...\nAnswer:"; the answer is the number behind the first ####
    #[arg(long, value_name = "FILE")]
    pub gsm8k: Option<PathBuf>,
    /// Solved examples in front of every problem: the first of --examples
    #[arg(long, value_name = "N", default_value_t = 0, requires = "gsm8k")]
    shots: usize,
    /// Where examples are taken from; what is an example is not asked [default: the file's own first problems]
    #[arg(long, value_name = "FILE", requires = "gsm8k")]
    examples: Option<PathBuf>,
    /// Texts of which one must be right, for pass@k; pass@1 is always told
    #[arg(long, value_name = "K", default_value_t = 5, requires = "gsm8k")]
    k: usize,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 256, requires = "gsm8k")]
    tokens: usize,
    /// Logits are divided by it; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.8, allow_negative_numbers = true, requires = "gsm8k")]
    temperature: f64,
    /// Only the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true, requires = "gsm8k")]
    top_p: f64,
    /// Seed of latents and tokens
    #[arg(long, value_name = "N", default_value_t = 0, requires = "gsm8k")]
    seed: u64,
    /// New file for every text with its prompt and verdict, behind a line that says where they come from [default: RUN/gsm8k-SHOTS-shot.jsonl, or -2, -3, ...]
    #[arg(long, value_name = "FILE", requires = "gsm8k")]
    transcripts: Option<PathBuf>,
}

/// What else the command line says.
pub struct Request<'a> {
    pub file: &'a Path,
    /// Texts for each problem.
    pub samples: usize,
    /// Only the first problems.
    pub limit: Option<u64>,
    pub steps: Option<usize>,
    pub json: bool,
}

/// What became of one problem.
struct Outcome {
    right: usize,
    answered: usize,
}

pub fn run(args: &GsmArgs, request: &Request, run: &Run, model: &mut Loaded) -> Result<()> {
    let (n, k) = (request.samples, args.k);
    if k == 0 || k > n {
        return Err(Error::usage(format!(
            "--k {k}: must be from 1 to --samples {n}, as pass@k is told from that many texts"
        )));
    }
    if args.tokens == 0 {
        return Err(Error::usage("--tokens 0: must be at least 1"));
    }
    let (examples, problems) = problems(args, request)?;
    let texts = n.saturating_mul(problems.len());
    if texts >= ROUNDS as usize {
        return Err(Error::usage(format!(
            "--samples {n} of {} problems are {texts} texts: must be less than {ROUNDS}; --limit asks fewer problems",
            problems.len()
        )));
    }
    let sampling = Sampling { temperature: args.temperature, top_k: 0, top_p: args.top_p, seed: args.seed };
    let stop = vec!["\n\n".into()];
    let writing = Writing { tokens: args.tokens, sampling, stop, steps: request.steps, refit: 0 };
    let tokenizer = lab::text::tokenizer(model.config.data.tokenizer);
    let mut writer = Writer::new(&model.config, &model.params, &mut model.store, tokenizer, writing)?;
    let head = header(args, request, run, model, problems.len())?;
    let name = format!("gsm8k-{}-shot", args.shots);
    let mut transcript = Transcript::create(args.transcripts.as_deref(), run.path(), &name)?;
    transcript.keep(&head)?;

    let bar = bar(problems.len() as u64, "{bar:24} {pos}/{len} problems  {msg}  ETA {eta}");
    let mut outcomes = Vec::new();
    for (i, problem) in problems.iter().enumerate() {
        let prompt = reasoning::prompt(&examples, problem);
        let expected = reasoning::number(&problem.answer);
        let mut outcome = Outcome { right: 0, answered: 0 };
        for sample in 0..n {
            let text = writer
                .whole(&mut model.store, Some(&prompt), (i * n + sample) as u32)
                .map_err(|e| e.at(format_args!("problem {}", i + 1)))?;
            let answer = reasoning::number(&text);
            let right = answer == expected;
            outcome.right += usize::from(right);
            outcome.answered += usize::from(answer.is_some());
            transcript.keep(&Value::object([
                ("problem", i.into()),
                ("sample", sample.into()),
                ("prompt", prompt.as_str().into()),
                ("text", text.as_str().into()),
                ("answer", answer.map_or(Value::Null, |answer| answer.as_str().into())),
                ("expected", expected.as_deref().map_or(Value::Null, Value::from)),
                ("right", right.into()),
            ]))?;
        }
        outcomes.push(outcome);
        bar.set_message(format!("pass@{k} {:.1} %", 100.0 * pass(&outcomes, k, n).mean));
        bar.inc(1);
    }
    bar.finish_and_clear();
    transcript.done();
    show(args, request, run, model, &head, &outcomes)
}

/// Examples, and what is asked.
fn problems(args: &GsmArgs, request: &Request) -> Result<(Vec<Problem>, Vec<Problem>)> {
    let mut problems = reasoning::read(request.file)?;
    let mut examples = match &args.examples {
        Some(path) => reasoning::read(path)?,
        None => problems.drain(..args.shots.min(problems.len())).collect(),
    };
    if examples.len() < args.shots {
        return Err(Error::usage(format!(
            "--shots {}: there are only {} problems to take examples from",
            args.shots,
            examples.len()
        )));
    }
    examples.truncate(args.shots);
    // Whatever file they come from: a problem whose answer stands in its own prompt is none.
    problems.retain(|problem| !examples.contains(problem));
    problems.truncate(request.limit.map_or(usize::MAX, |limit| limit as usize));
    if problems.is_empty() {
        return Err(Error::usage(format!(
            "{} has no problem left to ask behind {} examples",
            request.file.display(),
            args.shots
        )));
    }
    Ok((examples, problems))
}

/// Where the numbers come from.
fn header(args: &GsmArgs, request: &Request, run: &Run, model: &Loaded, problems: usize) -> Result<Value> {
    let examples = args.examples.as_deref();
    Ok(Value::object(origin(run, model).into_iter().chain([
        ("file", request.file.display().to_string().into()),
        ("file_sha256", sha256_files(&[request.file])?.into()),
        ("examples", examples.map_or(Value::Null, |path| path.display().to_string().into())),
        ("examples_sha256", examples.map(|path| sha256_files(&[path])).transpose()?.map_or(Value::Null, Into::into)),
        ("problems", problems.into()),
        ("shots", args.shots.into()),
        ("samples", request.samples.into()),
        ("tokens", args.tokens.into()),
        ("temperature", args.temperature.into()),
        ("top_p", args.top_p.into()),
        ("seed", args.seed.into()),
    ])))
}

/// Mean of pass@k over problems, and its standard error over them.
fn pass(outcomes: &[Outcome], k: usize, n: usize) -> Mean {
    let each: Vec<f64> = outcomes.iter().map(|outcome| reasoning::pass_at(k, n, outcome.right)).collect();
    Mean::of(&each)
}

fn show(
    args: &GsmArgs,
    request: &Request,
    run: &Run,
    model: &Loaded,
    head: &Value,
    outcomes: &[Outcome],
) -> Result<()> {
    let n = request.samples;
    let mut ks = vec![1, args.k];
    ks.dedup();
    let passes: Vec<(usize, Mean)> = ks.into_iter().map(|k| (k, pass(outcomes, k, n))).collect();
    let answered = outcomes.iter().map(|o| o.answered).sum::<usize>() as f64 / (n * outcomes.len()) as f64;
    if request.json {
        let results = passes.iter().map(|(k, Mean { mean, error })| {
            let error = if error.is_finite() { (*error).into() } else { Value::Null };
            Value::object([("k", (*k).into()), ("pass", (*mean).into()), ("standard_error", error)])
        });
        let results = Value::Array(results.collect());
        return print(
            Value::object([("settings", head.clone()), ("answered", answered.into()), ("results", results)])
                .pretty()
                .trim_end(),
        );
    }
    print(format_args!(
        "{} after step {}, weights {}, seed {}: {} problems of {}, {} examples in front, {n} texts each at temperature {}; {:.1} % of \
         the texts give an answer\n",
        run.path().display(),
        model.step,
        short(&model.weights),
        args.seed,
        outcomes.len(),
        request.file.display(),
        args.shots,
        args.temperature,
        100.0 * answered
    ))?;
    let rows = passes.iter().map(|(k, Mean { mean, error })| {
        let error = if error.is_finite() { format!(" ± {:.2}", 100.0 * error) } else { String::new() };
        vec![format!("pass@{k}"), format!("{:.2}{error} %", 100.0 * mean)]
    });
    print(table(&[("", Align::Left), ("solved", Align::Right)], &rows.collect::<Vec<_>>()))
}
