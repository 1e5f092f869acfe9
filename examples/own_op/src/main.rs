//! Prints what the check finds in the gradient that is wrong.

fn main() {
    match gradtest::gradients(own_op::cases(own_op::Mean::Everything)) {
        Ok(reports) => println!("nothing found in {} cases", reports.len()),
        Err(failure) => println!("{failure}"),
    }
}
