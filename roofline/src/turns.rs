//! Two programs measured in turns, row by row, so that a change of the machine's speed changes both.
//!
//! Each is a child process that [serves](serve): it writes its conditions and the number of its units of work as one line of
//! JSON, then reads numbers of units, one a line, and answers each with a line of the rows that it measured.

use crate::{Report, Row};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Rounds in which both programs measure every unit once: with ten, one of the ten may point the other way.
pub const ROUNDS: usize = 10;

/// The first line of a child.
#[derive(Serialize, Deserialize)]
struct Opening {
    report: Report,
    units: usize,
}

/// Measures units of work as asked, until the input ends. `report` has no rows.
///
/// # Errors
/// Those of `measure`; if a line is not the number of a unit; if the output has gone away.
pub fn serve(
    report: Report,
    units: usize,
    mut measure: impl FnMut(usize) -> Result<Vec<Row>>,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<()> {
    let mut answer = |value: &dyn Fn() -> serde_json::Result<String>| {
        let line = value().map_err(|e| Error::new(e.to_string()))?;
        let written = writeln!(output, "{line}").and_then(|()| output.flush());
        written.map_err(|e| Error::new(format!("the program that asked for measurements has gone: {e}")))
    };
    let opening = Opening { report, units };
    answer(&|| serde_json::to_string(&opening))?;
    for line in input.lines() {
        let line = line.map_err(|e| Error::new(format!("cannot read which unit to measure: {e}")))?;
        let unit = line.trim().parse::<usize>().ok().filter(|unit| *unit < units);
        let rows = measure(unit.ok_or_else(|| Error::new(format!("{line:?} is no unit; there are {units}")))?)?;
        answer(&|| serde_json::to_string(&rows))?;
    }
    Ok(())
}

/// A program that serves.
struct Program {
    name: String,
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    fn start(mut command: Command) -> Result<(Self, Opening)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| Error::new(format!("cannot start {name}: {e}")))?;
        let (ask, answers) = child.stdin.take().zip(child.stdout.take()).expect("both are piped");
        let mut program = Self { name, child, ask, answers: BufReader::new(answers) };
        let opening = program.read()?;
        Ok((program, opening))
    }

    fn read<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        match read.ok().and_then(|_| serde_json::from_str(&line).ok()) {
            Some(answer) => Ok(answer),
            None => Err(Error::new(format!("{} does not measure in turns with this program", self.name))),
        }
    }

    fn measure(&mut self, unit: usize) -> Result<Vec<Row>> {
        // A child that has ended gives no answer, which is the error.
        let _ = writeln!(self.ask, "{unit}").and_then(|()| self.ask.flush());
        self.read()
    }

    /// Ends the child by ending its input.
    fn end(self) {
        let Self { mut child, ask, .. } = self;
        drop(ask);
        let _ = child.wait();
    }
}

/// Runs two programs, which measure every unit of work in turns, for `rounds` rounds. Calls `seen` with the round, counted
/// from 1, and the unit. Returns their reports in the same order, each row with one pass per round, for
/// [`Report::compare_in_turns`].
///
/// # Errors
/// If a program cannot be started or does not serve, or if the two cannot be compared.
pub fn in_turns(commands: [Command; 2], rounds: usize, mut seen: impl FnMut(usize, usize)) -> Result<[Report; 2]> {
    let [first, second] = commands;
    let (first, second) = (Program::start(first)?, Program::start(second)?);
    let ([a, b], units) = ([first.1.report, second.1.report], first.1.units);
    a.conditions.check(&b.conditions)?;
    if units != second.1.units {
        let (name, other) = (&second.0.name, second.1.units);
        return Err(Error::new(format!("{name} has {other} units of work, this program {units}: choose rows of both")));
    }
    let (mut programs, mut reports) = ([first.0, second.0], [a, b]);
    for round in 0..rounds {
        for unit in 0..units {
            seen(round + 1, unit);
            // Each is the first every other time.
            for turn in 0..2 {
                let i = (turn + round + unit) % 2;
                for row in programs[i].measure(unit)? {
                    let rows = &mut reports[i].rows;
                    match rows.iter_mut().find(|known| known.task.key() == row.task.key()) {
                        Some(known) => known.samples.0.extend(row.samples.0),
                        None => rows.push(row),
                    }
                }
            }
        }
    }
    programs.into_iter().for_each(Program::end);
    // Work that takes too long for every round has no pairs.
    reports.iter_mut().for_each(|report| report.rows.retain(|row| row.samples.0.len() == rounds));
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn units_are_measured_as_asked() {
        let asked = |input: &str| {
            let mut output = Vec::new();
            let measure = |unit: usize| Ok(vec![report(1.0).rows[unit].clone()]);
            let done = serve(report(1.0), 2, measure, input.as_bytes(), &mut output);
            (done.map_err(|e| e.to_string()), String::from_utf8(output).unwrap())
        };
        let (done, said) = asked("1\n0\n1\n");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!((done, lines.len()), (Ok(()), 4));
        let opening: Opening = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((opening.units, opening.report), (2, report(1.0)));
        let rows: Vec<Row> = serde_json::from_str(lines[2]).unwrap();
        assert_eq!(rows, report(1.0).rows[..1]);
        assert_eq!(asked("2\n").0.unwrap_err(), "\"2\" is no unit; there are 2");
    }
}
