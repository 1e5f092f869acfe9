//! `ltm data prepare` and `ltm data arithmetic`.

use super::command_line::whole;
use super::interrupt::{self, Guard};
use super::output::{note, print};
use super::place::Place;
use super::progress::bar;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use engine::{Error, Result};
use lab::reasoning::arithmetic::Arithmetic;
use lab::text::encode::Progress;
use lab::text::prepare::{SHARD_TOKENS, input_bytes};
use lab::text::{Column, Format, PrepareOptions, Prepared, TextSplit, named_format, new_folder, prepare, tokenizer};
use ltm::checkpoint::write_atomic;
use ltm::config::{Choice, Tokenizer};
use ltm::data::Split;
use ltm::data::folder::Part;
use ltm::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Prepare training data: token shards of your own text, or word problems
#[derive(clap::Subcommand)]
pub enum Command {
    Prepare(Prepare),
    Arithmetic(Problems),
}

/// Write word problems with two small sums: train.txt for training, test.jsonl for `ltm eval RUN --gsm8k`
///
/// No problem of one file has the kind and the numbers of one in the other, so a model cannot memorise the answers. Single
/// sums, such as 3 + 4, occur in both.
#[derive(clap::Args)]
pub struct Problems {
    /// New folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of training problems
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = whole::<u32>(1..=10_000_000))]
    problems: u32,
    /// Number of test problems
    #[arg(long, alias = "held-out", value_name = "N", default_value_t = 500, value_parser = whole::<u32>(1..=10_000_000))]
    test: u32,
    /// Seed of the problems
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>(0..))]
    seed: u64,
}

fn arithmetic(args: &Problems) -> Result<ExitCode> {
    let source = Arithmetic::new(args.seed, Split::Train);
    let train: String = (0..args.problems).map(|i| source.problem(i).solved() + "\n\n").collect();
    let source = Arithmetic::new(args.seed, Split::Validation);
    let test: String = (0..args.test).map(|i| json::line(&source.problem(i)) + "\n").collect();
    new_folder(&args.out, |folder| {
        write_atomic(&folder.join("train.txt"), train.as_bytes())?;
        write_atomic(&folder.join("test.jsonl"), test.as_bytes())
    })?;
    print(args.out.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Turn text, jsonl or csv into token shards, in parallel and in bounded memory
///
/// Writes a folder with *.bin files and dataset.json, for `ltm train --data DIR`. The folder appears only when it is
/// complete.
#[derive(clap::Args)]
pub struct Prepare {
    /// Files, read in this order
    #[arg(value_name = "IN", required = true)]
    inputs: Vec<PathBuf>,
    /// New folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tokenizer: bytes, or GPT-2's byte pair encoding
    #[arg(long, value_name = "NAME", default_value = "bytes", value_parser = one_of::<Tokenizer>())]
    tokenizer: Tokenizer,
    /// Format of the files
    #[arg(long, default_value = "text", value_parser = ["text", "jsonl", "csv"])]
    format: String,
    /// jsonl: the key of the text
    #[arg(long, value_name = "KEY")]
    field: Option<String>,
    /// csv: the column of the text, by name or by number from 1
    #[arg(long, value_name = "C")]
    column: Option<String>,
    /// csv: the first record names the columns; implied if the column is given by name
    #[arg(long)]
    header: bool,
    /// text: where a document ends [default: file]
    #[arg(long, value_name = "HOW", value_parser = ["file", "lines", "blank-lines"])]
    split: Option<String>,
    /// Skip and count documents that cannot be read, such as damaged lines of jsonl
    #[arg(long)]
    skip_bad: bool,
    /// Fraction of the documents to hold out for validation, e.g. 0.01
    #[arg(long, value_name = "PART", default_value = "0", value_parser = fraction)]
    validation: f64,
}

fn fraction(word: &str) -> Result<f64> {
    let fraction = word.parse().ok().filter(|x| (0.0..1.0).contains(x));
    fraction.ok_or_else(|| Error::usage("must be a number from 0 to below 1, e.g. 0.01"))
}

/// Takes one of the names of a setting's values.
pub fn one_of<C: Choice + Send + Sync>() -> impl TypedValueParser<Value = C> {
    let names = PossibleValuesParser::new(C::ALL.iter().map(|(_, name)| *name));
    names.map(|word| C::ALL.iter().find(|(_, name)| *name == word).expect("one of the names").0)
}

/// The format of documents in the files.
fn format(args: &Prepare) -> Result<Format> {
    match (&*args.format, &args.field, &args.column, args.header, args.split.as_deref()) {
        ("text", None, None, false, Some("lines")) => Ok(Format::Text(TextSplit::Lines)),
        ("text", None, None, false, Some("blank-lines")) => Ok(Format::Text(TextSplit::BlankLines)),
        ("text", None, None, false, _) => Ok(Format::Text(TextSplit::File)),
        ("jsonl", Some(field), None, false, None) => Ok(Format::Jsonl { field: field.clone() }),
        ("csv", None, Some(column), header, None) => {
            let column = column.parse().map_or_else(|_| Column::Name(column.clone()), Column::Number);
            Format::csv(vec![column], header)
        }
        (format, ..) => Err(Error::usage(format!(
            "--format {format}: text takes only --split, jsonl needs only --field, csv needs --column and may have \
             --header"
        ))),
    }
}

pub fn run(command: &Command, place: &Place) -> Result<ExitCode> {
    let args = match command {
        Command::Prepare(args) => args,
        Command::Arithmetic(args) => return arithmetic(args),
    };
    for path in args.inputs.iter().filter(|_| args.format == "text") {
        if let Some((format, flag)) = named_format(path)? {
            return Err(Error::usage(format!(
                "{} looks like {format}: use --format {format} {flag}, or rename the file if it is plain text",
                path.display()
            )));
        }
    }
    let options = PrepareOptions {
        inputs: args.inputs.clone(),
        out: args.out.clone(),
        format: format(args)?,
        tokenizer: tokenizer(args.tokenizer),
        validation: args.validation,
        shard_tokens: SHARD_TOKENS,
    };
    let guard = Guard::new()?;
    let bar = bar(input_bytes(&args.inputs)?, "{bar} {bytes}/{total_bytes}  ETA {eta}  {wide_msg}");
    let mut show = |now: Progress| {
        bar.set_position(now.input_bytes);
        bar.set_message(format!("{} documents, {} tokens", now.documents, now.tokens));
        guard.check()
    };
    let (mut skipped, mut first) = (0_u64, None);
    let mut bad = |error: Error| {
        if !args.skip_bad {
            return Err(error.hint("--skip-bad skips such documents"));
        }
        skipped += 1;
        first.get_or_insert(error);
        Ok(())
    };
    let made = place.inside(0, || prepare(&options, &mut bad, &mut show));
    bar.finish_and_clear();
    if made.is_err() && guard.asked() {
        note("interrupted: nothing was written");
        return Ok(ExitCode::from(interrupt::CODE));
    }
    if let Some(first) = first {
        note(format_args!("skipped: {skipped} documents that cannot be read, the first at {first}"));
    }
    let Prepared { manifest, without_text, empty_files } = made?;
    for split in [Split::Train, Split::Validation] {
        let Part { documents, tokens, bytes, shards } = manifest.part(split);
        if *documents > 0 {
            let (split, shards) = (split.name(), shards.len());
            note(format_args!(
                "{split}: {documents} documents, {tokens} tokens for {bytes} bytes of text, {shards} shards"
            ));
        }
    }
    for (count, what) in [(without_text, "documents without text"), (empty_files, "files without a document")] {
        if count > 0 {
            note(format_args!("skipped: {count} {what}"));
        }
    }
    print(args.out.display())?;
    Ok(ExitCode::SUCCESS)
}
