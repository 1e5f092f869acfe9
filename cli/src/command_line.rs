//! Command-line handling shared by all commands: values that begin with a dash, options that have no effect, and errors
//! in one line.

use super::Cli;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, Error, FromArgMatches};
use ltm::shell;
use std::ops::{Bound, RangeBounds};
use std::path::Path;

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
        let is_text = ["prompt", "stop", "suffix"].contains(&arg.get_id().as_str());
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
    let mut said: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.starts_with("For more")).collect();
    if error.kind() != ErrorKind::MissingRequiredArgument {
        said.truncate(said.iter().position(|line| line.starts_with("Usage:")).unwrap_or(said.len()));
    }
    said.retain(|line| !line.is_empty());
    let tip = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(unknown)) if error.kind() == ErrorKind::UnknownArgument => tip(unknown),
        _ => None,
    };
    let tip = tip.map_or_else(String::new, |tip| format!(": {tip}"));
    let said = said.join(" ").replace(" tip:", ";").replace(" Usage:", "; usage:");
    format!("{said}{tip}; --help explains")
}

/// Takes a whole number within `range`.
pub fn whole<T: TryFrom<u64>>(
    range: impl RangeBounds<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync {
    let ends = (range.start_bound().cloned(), range.end_bound().cloned());
    let least = if let Bound::Included(least) = ends.0 { least } else { 0 };
    move |text| {
        let number = text.parse().ok().filter(|number| ends.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match ends.1 {
            Bound::Included(most) => format!("must be a whole number from {least} to {most}"),
            _ => format!("must be a whole number, {least} or more"),
        })
    }
}

/// Takes a number; what uses it checks its range.
pub fn real(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "must be a number".into())
}

/// A suggestion in place of an argument that the command does not take.
fn tip(unknown: &str) -> Option<String> {
    let known = Cli::command();
    let command = std::env::args().skip(1).find(|word| known.find_subcommand(word).is_some()).unwrap_or_default();
    let path = Path::new(unknown);
    let said = match (unknown.strip_prefix('-'), &*command) {
        (Some("-run"), _) => "the run folder is an argument without a flag, as in `ltm eval RUN`".into(),
        (Some(_), _) => {
            // Of a path that begins with a dash, only the first letter is reported.
            let word = std::env::args().find(|word| word.starts_with(unknown) && Path::new(word).exists())?;
            format!("a path that begins with a dash is written {}", shell::path(Path::new(&word)))
        }
        (None, "train" | "demo" | "plan" | "bench") if unknown.contains('=') => {
            format!("`--set {}` changes a setting", shell::word(unknown))
        }
        (None, "train") if path.join("config.json").exists() => {
            format!("`ltm train --resume {}` continues this run", shell::path(path))
        }
        (None, "train") if path.exists() => format!("`ltm train --data {}` trains on it", shell::path(path)),
        (None, "train" | "eval" | "audit" | "report") => "--data names a text".into(),
        (None, "generate") => "--prompt takes the text, in quotes if it has blanks".into(),
        _ => return None,
    };
    Some(said)
}
