//! Prints what the check finds in the gradient that is wrong.

fn main() {
    match gradtest::gradients(own_op::cases(own_op::Mean::Everything)) {
        Ok(summary) => println!("nothing found: {summary:?}"),
        Err(failure) => println!("{failure}"),
    }
}
