//! Command-line handling shared by all commands: values that begin with a dash, options that have no effect, and errors
//! in one line.

use super::Cli;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, Error, FromArgMatches};
use ltm::shell;
use std::error::Error as _;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};

/// The parsed command line.
pub fn parse() -> Result<Cli, Error> {
    // Paths are kept in files of JSON, which is UTF-8.
    if let Some(word) = std::env::args_os().find(|word| word.to_str().is_none()) {
        let said = format!("{word:?} is not UTF-8: paths and texts must be");
        return Err(Error::raw(ErrorKind::InvalidUtf8, said));
    }
    let mut command = Cli::command();
    command.build();
    let mut command = adapted(command);
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Commands, and groups of them, that use no device.
const NO_DEVICE: &[&str] = &["data", "prepare", "arithmetic", "import", "gpt2", "cuda", "compile"];

/// Commands, and groups of them, that need one thread.
const NO_THREADS: &[&str] = &["data", "arithmetic", "import", "gpt2", "cuda", "plan", "doctor"];

/// Adapts every option of the command, and of those below it.
///
/// A number may be negative (`--top-k -1` is out of range, not unknown), and a text may begin with a dash (`--prompt '- item'`).
/// Global options appear only in the help of commands on which they have an
/// effect.
fn adapted(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let adapt = |arg: Arg| {
        let takes_one = arg.get_action().takes_values() && arg.get_num_args().is_none_or(|n| n.max_values() == 1);
        let is_text = ["prompt", "stop"].contains(&arg.get_id().as_str());
        let idle: &[&str] = match arg.get_id().as_str() {
            "device" => NO_DEVICE,
            "threads" => NO_THREADS,
            _ => &[],
        };
        let arg = if idle.contains(&&*name) { arg.hide(true) } else { arg };
        let arg = if is_text { arg.allow_hyphen_values(true) } else { arg };
        if takes_one { arg.allow_negative_numbers(true) } else { arg }
    };
    command.mut_args(adapt).mut_subcommands(adapted)
}

/// What is wrong with a command line and what would be right, on one line; or the whole help if the command line is
/// empty.
pub fn one_line(mut error: Error) -> String {
    // An option as a value is surely a mistake.
    error.remove(ContextKind::Suggested);
    let text = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return text;
    }
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => &**word,
        _ => "",
    };
    let (arg, value) = (word(ContextKind::InvalidArg), word(ContextKind::InvalidValue));
    if let Some(takes) = error.source().and_then(number_wanted) {
        return format!("error: {arg} takes {takes}: '{value}' is none; --help explains");
    }
    let mut said: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.starts_with("For more")).collect();
    if error.kind() != ErrorKind::MissingRequiredArgument {
        said.truncate(said.iter().position(|line| line.starts_with("Usage:")).unwrap_or(said.len()));
    }
    said.retain(|line| !line.is_empty());
    let tip = if error.kind() == ErrorKind::UnknownArgument { tip(arg) } else { None };
    let tip = tip.map_or_else(String::new, |tip| format!(": {tip}"));
    let said = said.join(" ").replace(" tip:", ";").replace(" Usage:", "; usage:");
    format!("{said}{tip}; --help explains")
}

/// The expected value, in place of Rust's "invalid digit" or "invalid literal".
fn number_wanted(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let whole = error.downcast_ref::<ParseIntError>().map(ParseIntError::kind);
    match whole {
        Some(IntErrorKind::InvalidDigit | IntErrorKind::Empty) => Some("a whole number that is not negative"),
        _ => error.is::<ParseFloatError>().then_some("a number"),
    }
}

/// A suggestion in place of an argument that the command does not take.
fn tip(unknown: &str) -> Option<String> {
    let trains = std::env::args_os().nth(1).is_some_and(|word| word == "train" || word == "demo");
    match unknown.strip_prefix('-') {
        None if trains => Some(format!("`ltm train --data {}` trains on this file", shell::path(unknown.as_ref()))),
        Some("-run") => Some("name the run folder without a flag, as in `ltm eval RUN`".into()),
        Some(name) if name.starts_with(char::is_alphabetic) => {
            Some(format!("write a path that begins with a dash as ./{unknown}"))
        }
        _ => None,
    }
}
