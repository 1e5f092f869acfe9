//! `ltm generate`.

use super::checkpoint::Checkpoint;
use super::command_line::{real, whole};
use super::output::{note, print, show, warn};
use super::place::Place;
use super::progress::bar;
use engine::{Error, Result, file};
use lab::table::{number, visible};
use ltm::config::Work;
use ltm::generate::{self, Shown, Writer};
use ltm::run::Loaded;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Instant;

/// Generate text with a trained model
///
/// With --prompt the latents are inferred from the prompt and then fixed while the text continues. With --unconditional
/// they are drawn from the prior. Tokens are printed as they are drawn. The same seed gives the same text.
///
/// Models of masked diffusion (mdlm, sedd, md4) fill a gap instead: behind --prompt, before --suffix, between both, or
/// without either. A terminal shows how it fills in. A model of documents draws the length of the document from those it
/// was trained on, if --tokens is not given.
///
/// If the prompt comes from a file or from standard input, a final line break is ignored.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("from").required(true))]
pub struct Args {
    /// Folder of a training run
    run: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Prompt; - reads it from standard input
    #[arg(long, value_name = "TEXT", group = "from", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prompt: Option<String>,
    /// Text file with the prompt
    #[arg(long, value_name = "FILE", group = "from")]
    prompt_file: Option<PathBuf>,
    /// Generate without a prompt
    #[arg(long, group = "from")]
    unconditional: bool,
    /// Text after the gap that masked diffusion fills; the end of the document, if the model is one of documents. An end
    /// token or --stop leaves out the rest of the gap
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    suffix: Option<String>,
    #[command(flatten)]
    writing: Writing,
}

impl Args {
    /// The prompt, if there is one.
    fn prompt(&self) -> Result<Option<String>> {
        let text = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) if text != "-" => return Ok(Some(text.clone())),
            (Some(_), _) => {
                let (name, mut bytes) = ("standard input", Vec::new());
                let read = io::stdin().read_to_end(&mut bytes);
                read.map_err(|error| Error::new(format!("cannot read {name}: {error}")))?;
                file::decoded(&bytes, name)?
            }
            (None, Some(path)) => file::text(path)?,
            (None, None) => return Ok(None),
        };
        // Editors end a file with a line break that is not part of the prompt.
        let line = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
        Ok(Some(line.unwrap_or(&text).to_string()))
    }
}

/// Sampling options.
#[derive(clap::Args)]
pub struct Writing {
    /// Most tokens to draw; fewer if the document ends. Of masked diffusion, the length of the gap [default: as many as fit
    /// beside the prompt into the positions of training, but at least a quarter of these]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..))]
    pub tokens: Option<usize>,
    /// Temperature that divides the logits; 0 always takes the most likely token
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = real)]
    pub temperature: f64,
    /// Sample only from the K most likely tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = whole::<usize>(0..))]
    pub top_k: usize,
    /// Sample only from the most likely tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = real)]
    pub top_p: f64,
    /// Sample only from tokens at least P times as likely as the most likely one; from 0 (all tokens) to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = real)]
    pub min_p: f64,
    /// Repetition penalty for tokens that occur in the prompt or the text: divides positive logits and multiplies
    /// negative ones; from 0.01 to 100, 1 changes nothing
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = real)]
    pub repetition_penalty: f64,
    /// Seed of latents and tokens
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>(0..))]
    pub seed: u64,
    /// Stop before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Number of texts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32>(1..=65_535))]
    pub samples: u32,
    /// Latent models: fast steps of inference [default: as in training]. Masked diffusion: steps that reveal tokens, each at
    /// most one call of the network; 0, the default, reveals one token at a time in random order, the distribution whose
    /// bound `ltm eval` prints, of sedd as `normalised`
    #[arg(long, value_name = "T", value_parser = whole::<usize>(0..))]
    pub steps: Option<usize>,
    /// Infer the latents again from all text so far every R tokens; 0 never
    #[arg(long, value_name = "R", default_value_t = 0, value_parser = whole::<usize>(0..))]
    pub refit: usize,
}

impl Writing {
    /// The same as options of the writer.
    pub fn options(&self) -> generate::Writing {
        let Self { tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, steps, refit, .. } = *self;
        let stop = self.stop.clone();
        generate::Writing {
            tokens,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            seed,
            stop,
            steps,
            refit,
            suffix: None,
        }
    }
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = args.checkpoint.open(&args.run)?;
    let prompt = args.prompt()?;
    let prompt = prompt.as_deref();
    place.inside(run.config.train.threads, || {
        let (mut model, mut writer) = place.within(|device| {
            let mut model = run.load(device, Work::Generation)?;
            let writing = generate::Writing { suffix: args.suffix.clone(), ..args.writing.options() };
            let writer = lab::text::writer(&mut model, writing, args.writing.samples.into())?;
            Ok((model, writer))
        })?;
        warn(&model.warnings);
        let (begun, seq) = (writer.beginning(prompt)?.len(), model.config.model.seq);
        // Latents are inferred from `seq` pairs of a token and its successor.
        if begun > seq + 1 {
            let tokens = begun - 1;
            note(format_args!(
                "note: the prompt has {tokens} tokens, but a training sequence has {seq}: only the last ones are read"
            ));
        }
        // The last token drawn is not read.
        if begun.min(seq + 1).saturating_add(writer.most(begun)) > seq + 1 {
            note(format_args!("note: the model was trained on {seq} positions; longer text may get worse"));
        }
        let (started, mut tokens) = (Instant::now(), 0);
        for sample in 0..args.writing.samples {
            if args.writing.samples > 1 {
                print(format_args!("{}--- {} ---", if sample > 0 { "\n" } else { "" }, sample + 1))?;
            }
            tokens += text(&mut writer, &mut model, prompt, args.suffix.as_deref(), sample)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        note(format_args!("{tokens} tokens in {seconds:.1} s, {} tokens/s", number(tokens as f64 / seconds)));
        Ok(())
    })
}

/// Prints a text between its prompt and its suffix; a terminal first shows how masked diffusion fills it in. Returns the
/// number of tokens.
fn text(
    writer: &mut Writer,
    model: &mut Loaded,
    prompt: Option<&str>,
    suffix: Option<&str>,
    sample: u32,
) -> Result<usize> {
    let (before, after) = (prompt.unwrap_or_default(), suffix.unwrap_or_default());
    let fills = model.config.model.kind.method().is_some() && io::stdout().is_terminal();
    let draft = fills.then(|| bar(0, "{msg}"));
    if draft.is_none() {
        show(before)?;
    }
    let tokens = writer.text(&mut model.store, prompt, sample, &mut |shown| match (shown, &draft) {
        (Shown::Draft(text), Some(draft)) => {
            draft.set_message(visible(&format!("{before}{text}{after}")));
            Ok(())
        }
        (Shown::Draft(_), None) => Ok(()),
        (Shown::Piece(piece), Some(draft)) if !draft.is_finished() => {
            draft.finish_and_clear();
            show(before)?;
            show(piece)
        }
        (Shown::Piece(piece), _) => show(piece),
    })?;
    show(after)?;
    print("")?;
    Ok(tokens)
}
