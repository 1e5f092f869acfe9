//! Records a formula, takes its gradient and checks it against central differences.

use autograd::prelude::*;

fn main() -> Result<()> {
    let tape = Tape::on(Device::CPU, DType::F64, 0);
    let x = tape.constant(&[2, 3], &[0.1, -0.2, 0.3, 0.4, 0.5, -0.6]);
    let w = tape.parameter("w", &[1, 3], Init::Given(vec![1.0, -2.0, 0.5]));
    let loss = x.linear(w).gelu().sum();
    let mut program = tape.gradients(loss)?;
    program.run();
    println!("gradient: {:?}", program.gradient(w)); // [0.07315931739541175, -0.21790600097832505, 0.31859892075354507]
    println!("{}", tape.check(loss)?); // 4 checked, worst relative difference 1.7e-12
    Ok(())
}
