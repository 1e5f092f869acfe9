//! `ltm eval RUN --gsm8k FILE`: how often a model solves word problems.

use super::command_line::{real, whole};
use super::eval;
use super::interrupt::{self, Guard};
use super::output::{command, note, print};
use super::progress::bar;
use engine::Result;
use lab::reasoning::{Bound, Options, Outcome, Pass, Solved, solve};
use lab::table::{Table, digits, plus_minus, short};
use ltm::generate::Writing;
use ltm::json;
use ltm::run::{Loaded, Run};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Word problems.
#[derive(clap::Args)]
#[command(next_help_heading = "Word problems")]
pub struct GsmArgs {
    /// Test the model on the word problems in this file (one JSON object per line, with question and answer) and report
    /// pass@k from --samples texts per problem. The prompt is "Question: ...\nAnswer:"; the answer is the number after
    /// the first ####, with nothing else on the line. After Ctrl-C (exit code 130) the same command continues
    #[arg(long, value_name = "FILE")]
    pub gsm8k: Option<PathBuf>,
    /// Number of solved examples before every problem, the first ones of --examples
    #[arg(long, value_name = "N", default_value_t = 0, requires = "gsm8k", value_parser = whole::<usize>(0..))]
    shots: usize,
    /// File with the examples; problems used as examples are not asked [default: the first problems of FILE]
    #[arg(long, value_name = "FILE", requires = "gsm8k")]
    examples: Option<PathBuf>,
    /// The k of pass@k: at least one of k texts must be right; pass@1 is always reported too [default: 5, or --samples
    /// if that is less]
    #[arg(long, value_name = "K", requires = "gsm8k", value_parser = whole::<usize>(0..))]
    k: Option<usize>,
    /// Most tokens per answer
    #[arg(long, value_name = "N", default_value_t = 256, requires = "gsm8k", value_parser = whole::<usize>(1..))]
    tokens: usize,
    /// Temperature that divides the logits; 0 always takes the most likely token
    #[arg(long, value_name = "X", default_value_t = 0.8, requires = "gsm8k", value_parser = real)]
    temperature: f64,
    /// Sample only from the most likely tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, requires = "gsm8k", value_parser = real)]
    top_p: f64,
    /// Seed of latents and tokens
    #[arg(long, value_name = "N", default_value_t = 0, requires = "gsm8k", value_parser = whole::<u64>(0..))]
    seed: u64,
    /// File for the generated texts, after a line that records their origin; texts that it already has from this
    /// evaluation are reused [default: RUN/gsm8k-SHOTS-shot.jsonl, or -2, ...]
    #[arg(long, value_name = "FILE", requires = "gsm8k")]
    transcripts: Option<PathBuf>,
}

/// Runs the problems of `file`.
pub fn run(file: &Path, all: &eval::Args, run: &Run, model: &mut Loaded) -> Result<ExitCode> {
    let args = &all.problems;
    let options = Options {
        file: file.into(),
        shots: args.shots,
        examples: args.examples.clone(),
        limit: all.limit,
        samples: all.samples,
        k: args.k.unwrap_or(all.samples.min(5)),
        writing: Writing {
            tokens: Some(args.tokens),
            temperature: args.temperature,
            top_p: args.top_p,
            seed: args.seed,
            stop: vec!["\n\n".into()],
            steps: all.steps,
            ..Writing::default()
        },
    };
    let (bar, guard) = (bar(1, "{bar} {pos}/{len} texts  ETA {eta}  {wide_msg}"), Guard::new()?);
    let label = format!("pass@{}", options.k);
    let outcome = solve(run, model, options, &command(), args.transcripts.as_deref(), |done, all, pass| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(format!("{label} {} %", digits(100.0 * pass, 1)));
        !guard.asked()
    })?;
    bar.finish_and_clear();
    let solved = match outcome {
        Outcome::Done(solved) => solved,
        Outcome::Stopped(file) => {
            note(format_args!("interrupted: the texts so far are in {}; the same command continues", file.display()));
            return Ok(ExitCode::from(interrupt::CODE));
        }
    };
    let Solved { transcript, kept, .. } = &*solved;
    let before = if *kept > 0 { format!("; {kept} of them were there already") } else { String::new() };
    note(format_args!("all texts are in {}{before}", transcript.display()));
    if all.json {
        print(json::pretty(&solved).trim_end())?
    } else {
        print(text(&solved))?
    }
    Ok(ExitCode::SUCCESS)
}

fn text(solved: &Solved) -> String {
    let Solved { settings, answered, results, .. } = solved;
    let (origin, options) = (&settings.origin, &settings.options);
    let count = settings.problems;
    let bound = |side, share| format!("at {side} {} % (95 % confidence)", digits(100.0 * share, 1));
    let share = |pass: &Pass| match pass.bound {
        Some(Bound::AtMost(share)) => format!("0 of {count}: {}", bound("most", share)),
        Some(Bound::AtLeast(share)) => format!("{count} of {count}: {}", bound("least", share)),
        None => format!("{} %", plus_minus(100.0 * pass.pass, 100.0 * pass.standard_error, 2)),
    };
    let table = Table::of(results).left("", |pass| format!("pass@{}", pass.k)).right("solved", share);
    let cut = settings.cut().map_or_else(String::new, |cut| format!("; {cut}"));
    format!(
        "{} after step {}, weights {}, seed {}: {count} problems of {}, {} examples in front, {} texts each at temperature {}; {:.1} % of \
         the texts give an answer{cut}\n\n{table}",
        origin.run.display(),
        origin.step,
        short(&origin.weights_sha256),
        options.writing.seed,
        options.file.display(),
        options.shots,
        options.samples,
        options.writing.temperature,
        100.0 * answered
    )
}
