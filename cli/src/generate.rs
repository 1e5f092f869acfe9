//! `ltm generate`.

use super::checkpoint::Checkpoint;
use super::output::{note, print, warn, write};
use super::place::Place;
use engine::Result;
use ltm::config::Work;
use ltm::generate;
use std::path::PathBuf;

/// Let a trained model write
///
/// With --prompt, latent thoughts are inferred from the prompt, then the text goes on with them held. With --unconditional
/// they are drawn from the prior. Tokens appear as they are drawn. The same seed gives the same text.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("from").required(true))]
pub struct Args {
    /// Folder of a training run
    run: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Text to go on with
    #[arg(long, value_name = "TEXT", group = "from", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prompt: Option<String>,
    /// Begin with nothing
    #[arg(long, group = "from")]
    unconditional: bool,
    #[command(flatten)]
    writing: Writing,
}

/// How to write.
#[derive(clap::Args)]
pub struct Writing {
    /// Most tokens to draw; fewer if the document ends
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub tokens: usize,
    /// Logits are divided by it; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub temperature: f64,
    /// Only the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,
    /// Seed of latents and tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// How many texts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..65_536))]
    pub samples: u32,
    /// Fast steps of inference [default: as in training]
    #[arg(long, value_name = "T")]
    pub steps: Option<usize>,
    /// Infer the latents again from all text so far every R tokens; 0 never
    #[arg(long, value_name = "R", default_value_t = 0)]
    pub refit: usize,
}

impl Writing {
    /// What the writer needs of it.
    pub fn options(&self) -> generate::Writing {
        let Self { tokens, temperature, top_k, top_p, seed, ref stop, steps, refit, .. } = *self;
        generate::Writing { tokens, temperature, top_k, top_p, seed, stop: stop.clone(), steps, refit }
    }
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = args.checkpoint.open(&args.run)?;
    let prompt = args.prompt.as_deref();
    place.inside(run.config.train.threads, || {
        let (mut model, mut writer) = place.within(|device| {
            let mut model = run.load(device, Work::Generation)?;
            let writer = lab::text::writer(&mut model, args.writing.options(), args.writing.samples.into())?;
            Ok((model, writer))
        })?;
        warn(&model.warnings);
        let (begun, seq) = (writer.beginning(prompt)?.len(), model.config.model.seq);
        // Latents are inferred from `seq` pairs of a token and its successor.
        if begun > seq + 1 {
            let tokens = begun - 1;
            note(format_args!(
                "note: the prompt has {tokens} tokens, a training sequence {seq}: only the last of them are read"
            ));
        }
        // Only as much of the prompt is read as latents are inferred from, and the last token drawn not at all.
        let read = begun.min(seq + 1).saturating_add(args.writing.tokens).saturating_sub(1);
        if read > seq {
            note(format_args!(
                "note: prompt and --tokens make up to {read} positions, the model was trained on {seq}: what comes behind \
                 them may be worse"
            ));
        }
        for sample in 0..args.writing.samples {
            if args.writing.samples > 1 {
                print(format_args!("{}--- {} ---", if sample > 0 { "\n" } else { "" }, sample + 1))?;
            }
            write(prompt.unwrap_or_default())?;
            writer.text(&mut model.store, prompt, sample, &mut |text| write(text))?;
            print("")?;
        }
        Ok(())
    })
}
