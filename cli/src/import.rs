//! `ltm import`.

use super::output::{note, print};
use crate::data::one_of;
use engine::Result;
use lab::import;
use ltm::config::{Tokenizer, parameter_count};
use std::path::PathBuf;

/// Make a run folder from weights trained elsewhere, for evaluation and generation
#[derive(clap::Subcommand)]
pub enum Command {
    Gpt2(Gpt2),
}

/// GPT-2 in Hugging Face's format: a folder with config.json and model.safetensors, or several weight files and their
/// index
///
/// The run folder works like any other: `ltm eval RUN --data FILE`, `ltm generate RUN --prompt TEXT`. Weights may be
/// F32, F16 or BF16. They cannot be trained further.
#[derive(clap::Args)]
pub struct Gpt2 {
    /// Folder with config.json and model.safetensors, or model.safetensors.index.json and the files that it names
    folder: PathBuf,
    /// New run folder to make
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// The model's tokenizer
    #[arg(long, value_name = "NAME", default_value = "gpt2-plain", value_parser = one_of::<Tokenizer>())]
    tokenizer: Tokenizer,
}

pub fn run(command: &Command) -> Result<()> {
    let Command::Gpt2(args) = command;
    let run = import::gpt2(&args.folder, args.tokenizer, &args.out)?;
    let m = &run.config.model;
    note(format_args!(
        "GPT-2 with {} layers of width {}, {} heads, {} positions, {} parameters",
        m.layers,
        m.dim,
        m.heads,
        m.max_seq,
        parameter_count(m)
    ));
    print(args.out.display())
}
