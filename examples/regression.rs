//! A network of 1, 64, 64 and 1 units learns the function sin 3x: `cargo run --release --bin regression`.

use autograd::prelude::*;

fn main() -> Result<()> {
    let tape = Tape::new(0);
    let x = tape.input("x", &[64, 1]);
    let target = tape.input("target", &[64, 1]);
    let y = x.dense("first", 64).tanh().dense("second", 64).tanh().dense("third", 1);
    let loss = y.squared_error(target);
    let mut learn = tape.minimize(loss, Optimizer::adamw(5e-3))?;

    let stream = Stream::new(1, 0);
    for step in 0..2000 {
        let numbers: Vec<f32> = (0..64).map(|i| stream.step(step).uniform(i) as f32 * 4.0 - 2.0).collect();
        tape.set(x, &numbers);
        tape.set(target, &numbers.iter().map(|x| (3.0 * x).sin()).collect::<Vec<_>>());
        learn.set_rate(5e-3 * (1.0 - f64::from(step) / 2000.0));
        learn.run();
        if step % 400 == 399 {
            println!("step {step:4}  squared error {:.6}", learn.number(loss));
        }
    }

    let mut predict = tape.compute(&[y])?;
    let grid: Vec<f32> = (0..64).map(|i| i as f32 / 16.0 - 2.0).collect();
    tape.set(x, &grid);
    predict.run();
    for (x, y) in grid.iter().zip(predict.get(y)).step_by(9) {
        println!("sin(3 · {x:7.4}) = {:7.4}, learned {y:7.4}", (3.0 * x).sin());
    }
    Ok(())
}
