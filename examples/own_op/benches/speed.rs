//! How fast the op is, beside the peaks of this machine that the same run measures: `cargo bench`.

use engine::case::{Case, Input};
use engine::{DType, Result};
use own_op::{Mean, Softmax};
use roofline::{Effort, Suite};

fn main() -> Result<()> {
    let op = Softmax { mean: Mean::Row };
    let case = Case::new("4096 rows", op, vec![Input::normal(&[4096, 512])]);
    let report = Suite::new("softmax", Effort::quick()).op(&case.label, op, case.buffers(DType::F32, 1))?.run()?;
    println!("{report}");
    Ok(())
}
