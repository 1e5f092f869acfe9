//! The program `ltm`: trains, evaluates and uses Latent Thought Models from a terminal.
//!
//! One file per command. Errors are one line on standard error. The exit code is 2 for an invalid command line, 3 for a
//! benchmark that is slower than the one it was compared with, 1 for
//! other errors, and 130 for interrupted work that the same command continues.

#![forbid(unsafe_code)]

mod audit;
mod bench;
mod checkpoint;
mod command_line;
mod cuda;
mod data;
mod demo;
mod doctor;
mod eval;
mod generate;
mod gsm8k;
mod import;
mod interrupt;
mod output;
mod place;
mod plan;
mod progress;
mod quality;
mod ranks;
mod replay;
mod report;
mod runs;
mod serve;
mod settings;
mod sweep;
mod train;
mod verify;

use clap::{Parser, Subcommand};
use engine::{ErrorKind, Result, simd};
use place::Place;
use std::process::ExitCode;

const AT_THE_END: &str = "All training settings: ltm help settings\n\n\
     Exit codes: 0 success; 1 error; 2 invalid command line; 3 slower than what it was compared\n\
     with (bench); 130 interrupted, with a checkpoint saved";

/// Latent Thought Models: train, evaluate with valid bounds, and generate text, on the CPU or a GPU.
///
/// A first look, in a few minutes and without any data: ltm demo
///
/// On your own text:
///   ltm train --data book.txt
///   ltm eval runs/tiny
///   ltm generate runs/tiny --prompt "It was"
#[derive(Parser)]
#[command(name = "ltm", version, arg_required_else_help = true, verbatim_doc_comment, after_help = AT_THE_END)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Train(train::Args),
    Sweep(sweep::Args),
    Replay(replay::Args),
    Eval(eval::Args),
    Audit(audit::Args),
    Generate(generate::Args),
    Serve(serve::Args),
    Quality(quality::Args),
    Report(report::Args),
    #[command(subcommand)]
    Data(data::Command),
    #[command(subcommand)]
    Import(import::Command),
    Verify(verify::Args),
    Plan(plan::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    #[command(subcommand)]
    Cuda(cuda::Command),
    /// Every setting
    #[command(hide = true, override_help = settings::all())]
    Settings,
}

fn main() -> ExitCode {
    let cli = match command_line::parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help and version were requested. Ignore a reader that has gone away.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            output::note(command_line::one_line(error));
            return ExitCode::from(2);
        }
    };
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            output::note(format_args!("error: {}", cli.place.explained(&error)));
            ExitCode::from(if error.kind == ErrorKind::Usage { 2 } else { 1 })
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    interrupt::outlive_file_limits()?;
    simd::level_from_env()?;
    let place = &cli.place;
    let done = |()| ExitCode::SUCCESS;
    match &cli.command {
        Command::Demo(args) => demo::run(args, place),
        Command::Train(args) => train::run(args, place),
        Command::Sweep(args) => sweep::run(args, place),
        Command::Replay(args) => replay::run(args, place).map(done),
        Command::Eval(args) => eval::run(args, place),
        Command::Audit(args) => audit::run(args, place).map(done),
        Command::Generate(args) => generate::run(args, place).map(done),
        Command::Serve(args) => serve::run(args, place).map(done),
        Command::Quality(args) => quality::run(args, place).map(done),
        Command::Report(args) => report::run(args, place).map(done),
        Command::Data(command) => data::run(command, place),
        Command::Import(command) => import::run(command).map(done),
        Command::Verify(args) => verify::run(args, place).map(done),
        Command::Plan(args) => plan::run(args, place).map(done),
        Command::Bench(args) => bench::run(args, place),
        Command::Doctor(_) => doctor::run(place).map(done),
        Command::Cuda(command) => cuda::run(command, place).map(done),
        Command::Settings => output::print(settings::all().trim_end()).map(done),
    }
}
