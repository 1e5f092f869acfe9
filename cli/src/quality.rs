//! `ltm quality`.

use super::checkpoint::Checkpoint;
use super::generate::Writing;
use super::output::{command, note, print, warn};
use super::place::Place;
use super::progress::behind_bar;
use super::runs;
use engine::Result;
use lab::quality::{Options, Quality, REPEATED, check_judge, judge, write};
use lab::table::{Table, digits, perplexity, short};
use ltm::config::Work;
use ltm::json;
use std::path::PathBuf;

/// Default number of tokens per text.
const TOKENS: usize = 256;

/// Generate texts and measure them: entropy, repetition, distinct n-grams, and perplexity under another model
///
/// With --prompts the model generates --samples texts for every line of a file, and a judge model scores each text
/// given its prompt. Without it, texts have no prompt. Statistics count words separated by spaces. A judge with latents
/// gives an upper bound (elbo). Numbers are comparable only for the same number of texts of the same length, so
/// --tokens defaults to 256 for every model.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the training run whose model generates
    run: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Run whose newest checkpoint is the judge [default: the same run]
    #[arg(long, value_name = "RUN")]
    judge: Option<PathBuf>,
    /// Text file with one prompt per line
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// New file for the texts, after a line that records their origin [default: RUN/quality.jsonl, or -2, -3, ...]
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    writing: Writing,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = args.checkpoint.open(&args.run)?;
    let judged_by = args.judge.as_deref().map_or_else(|| Ok(run.clone()), runs::open)?;
    check_judge(&judged_by)?;
    place.inside(run.config.train.threads, || {
        place.within(|device| {
            let mut model = run.load(device, Work::Generation)?;
            warn(&model.warnings);
            let prompts = args.prompts.clone();
            let mut writing = args.writing.options();
            // Not as many as fit, because only texts of the same length are comparable. Masked diffusion does not begin a
            // document without knowing its length, and draws that.
            writing.tokens = writing.tokens.or(model.lengths.is_none().then_some(TOKENS));
            let options = Options { prompts, samples: args.writing.samples, writing };
            let written = behind_bar("{bar} {pos}/{len} texts  ETA {eta}", |show| {
                write(&run, &mut model, options, &command(), args.texts.as_deref(), show)
            })?;
            note(format_args!("all texts are in {}", written.file.display()));
            drop(model);
            let mut model = judged_by.load(device, Work::Evaluation)?;
            let quality = behind_bar("{bar} {pos}/{len} texts scored  ETA {eta}", |show| {
                judge(&judged_by, &mut model, &written, show)
            })?;
            if quality.cut > 0 {
                let (seq, cut) = (model.config.model.seq, quality.cut);
                note(format_args!(
                    "note: {cut} texts are longer than the {seq} tokens that the judge reads: only their beginnings \
                     are scored"
                ));
            }
            if args.json { print(json::pretty(&quality).trim_end()) } else { print(text(&quality)) }
        })
    })
}

fn text(quality: &Quality) -> String {
    let Quality { variety, settings, protocol, .. } = quality;
    let [one, two, three] = variety.distinct;
    let rows = [
        ("entropy of words, bits".to_string(), digits(variety.entropy_bits, 3)),
        (format!("repeated sequences of {REPEATED} words"), format!("{:.2} %", 100.0 * variety.repetition)),
        ("distinct-1, -2, -3".into(), format!("{one:.3}, {two:.3}, {three:.3}")),
        ("generative perplexity".into(), perplexity(quality.perplexity)),
        ("bits per byte".into(), digits(quality.bits_per_byte, 4)),
    ];
    let table = Table::of(&rows).left("measure", |row| &row.0).right("value", |row| &row.1);
    format!(
        "{} {} texts of {} (weights {}, seed {}), {} words; scored by {} (weights {}; {}, {})\n\n{table}",
        quality.texts,
        quality.kind,
        settings.origin.run.display(),
        short(&settings.origin.weights_sha256),
        settings.options.writing.seed,
        variety.words,
        quality.judge.display(),
        short(&quality.judge_weights_sha256),
        protocol.name(),
        quality.status
    )
}
