//! How fast the op is, beside the peaks of this machine that the same run measures: `cargo bench`. With
//! `-- --against PROGRAM`, an earlier build of this benchmark, both are measured in turns.

use engine::case::{Case, Input};
use engine::{Buffer, DType, Result};
use own_op::{Mean, Softmax};
use roofline::{Effort, ROUNDS, Suite, comparison_text, in_turns};
use std::process::Command;

/// The same softmax in f64, straight from its formula.
fn reference(ins: &[Buffer]) -> Vec<f64> {
    let row = |x: &[f64]| {
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        x.iter().map(|x| x.exp() / sum).collect::<Vec<_>>()
    };
    ins[0].to_f64().chunks(ins[0].shape().last()).flat_map(row).collect()
}

fn main() -> Result<()> {
    let op = Softmax { mean: Mean::Row };
    let case = Case::new("4096 rows", op, vec![Input::normal(&[4096, 512])]);
    let ins = case.buffers(DType::F32, 1);
    let suite = Suite::new("softmax", Effort::quick()).op_against(&case.label, op, ins, reference)?;

    let arguments: Vec<String> = std::env::args().collect();
    if arguments.contains(&"--serve".into()) {
        return suite.serve();
    }
    let Some(other) = arguments.iter().skip_while(|argument| *argument != "--against").nth(1) else {
        println!("{}", suite.run()?);
        return Ok(());
    };
    let serving = [&arguments[0], other].map(|program| {
        let mut command = Command::new(program);
        command.arg("--serve");
        command
    });
    let [now, then] = in_turns(serving, ROUNDS, |_, _| ())?;
    println!("{}", comparison_text(&now.compare_in_turns(&then)?));
    Ok(())
}
