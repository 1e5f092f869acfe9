//! The model against the golden file of an independent implementation.

use engine::{DType, Device};
use lab::verify::{golden, tolerance};
use std::path::Path;

#[test]
fn golden_numbers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden_tiny.safetensors");
    for dtype in [DType::F64, DType::F32] {
        let all = golden(Some(&path), dtype, &Device::Cpu).unwrap();
        assert!(all.len() > 60, "only {} quantities compared", all.len());
        for c in all {
            assert!(c.error < tolerance(dtype), "{} is off by {:.1e} in {dtype}", c.name, c.error);
        }
    }
}
