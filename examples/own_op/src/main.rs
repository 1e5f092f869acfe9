//! Prints what the check finds in the wrong gradient.

fn main() {
    match gradtest::gradients(own_op::cases(own_op::Mean::Everything)) {
        Ok(reports) => println!("nothing found in {} cases", reports.len()),
        Err(failure) => println!("{failure}"),
    }
}
