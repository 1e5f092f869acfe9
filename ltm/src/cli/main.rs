//! The program `ltm`.

fn main() {}
