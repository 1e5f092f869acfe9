//! `ltm data prepare`.

use super::interrupt::{self, Guard};
use super::output::{note, print};
use super::progress::bar;
use super::threads;
use engine::Result;
use ltm::data::formats::{Header, parse_fraction};
use ltm::data::prepare::{SHARD_TOKENS, input_bytes};
use ltm::data::{FormatWords, PrepareOptions, prepare, tokenizer};
use std::path::PathBuf;
use std::process::ExitCode;

/// Turn text into token shards to train on
#[derive(clap::Subcommand)]
pub enum Command {
    Prepare(Prepare),
}

/// Turn text, jsonl or csv into token shards, in parallel and in bounded memory
///
/// Makes a folder of *.bin files with dataset.json beside them, for `ltm train --data DIR`. Nothing is at its place until
/// everything is.
#[derive(clap::Args)]
pub struct Prepare {
    /// Files, read in this order
    #[arg(value_name = "IN", required = true)]
    inputs: Vec<PathBuf>,
    /// New folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How text becomes tokens: bytes, or GPT-2's byte pair encoding
    #[arg(long, value_name = "NAME", default_value = "bytes", value_parser = tokenizer::NAMES)]
    tokenizer: String,
    /// What the files are
    #[arg(long, default_value = "text", value_parser = ["text", "jsonl", "csv"])]
    format: String,
    /// jsonl: the key that holds the text
    #[arg(long, value_name = "KEY")]
    field: Option<String>,
    /// csv: the column that holds the text, by name or by number from 1
    #[arg(long, value_name = "C")]
    column: Option<String>,
    /// csv: the first record names the columns; follows from a column given by name
    #[arg(long)]
    header: bool,
    /// text: what a document is [default: file] [possible values: file, lines, blank-lines]
    #[arg(long, value_name = "HOW")]
    split: Option<String>,
    /// Part of the documents to set apart for validation, e.g. 0.01
    #[arg(long, value_name = "PART", default_value = "0", allow_negative_numbers = true)]
    validation: String,
    /// Most tokens per shard
    #[arg(long, value_name = "N", default_value_t = SHARD_TOKENS)]
    shard_tokens: u32,
}

pub fn run(command: &Command, threads: Option<usize>) -> Result<ExitCode> {
    let Command::Prepare(args) = command;
    let words = FormatWords {
        format: Some(&args.format),
        field: args.field.as_deref(),
        column: args.column.as_deref(),
        header: if args.header { Header::Present } else { Header::Absent },
        split: args.split.as_deref(),
    };
    let guard = Guard::new()?;
    let options = PrepareOptions {
        inputs: args.inputs.clone(),
        out: args.out.clone(),
        format: words.parse()?,
        tokenizer: tokenizer::by_name(&args.tokenizer)?,
        validation: parse_fraction("--validation", &args.validation)?,
        shard_tokens: args.shard_tokens,
        stop: guard.flag(),
    };
    let bar = bar(input_bytes(&args.inputs)?, "{bar:24} {bytes}/{total_bytes}  {msg}  {bytes_per_sec}  ETA {eta}");
    let report = threads::inside(threads.unwrap_or(0), || {
        prepare(&options, &mut |now| {
            bar.set_position(now.input_bytes);
            bar.set_message(format!("{} documents, {} tokens", now.documents, now.tokens));
        })
    });
    bar.finish_and_clear();
    let report = match report {
        Err(error) if guard.asked() => {
            note(error);
            return Ok(ExitCode::from(interrupt::CODE));
        }
        other => other?,
    };
    let manifest = &report.manifest;
    for (name, part) in [("train", &manifest.train), ("validation", &manifest.validation)] {
        if part.documents > 0 || name == "train" {
            note(format_args!(
                "{name}: {} documents, {} tokens for {} bytes of text, {} shards",
                part.documents,
                part.tokens,
                part.bytes,
                part.shards.len()
            ));
        }
    }
    if report.empty_documents > 0 {
        note(format_args!("left out: {} documents without text", report.empty_documents));
    }
    print(args.out.display())?;
    Ok(ExitCode::SUCCESS)
}
