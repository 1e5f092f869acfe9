//! The model against the golden file of an independent implementation.

use engine::{DType, Device};
use lab::verify::{golden, tolerance};
use std::path::Path;

fn check(dtype: DType) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden_tiny.safetensors");
    let all = golden(Some(&path), dtype, &Device::Cpu).unwrap();
    assert!(all.len() > 60, "only {} quantities compared", all.len());
    let off: Vec<String> = all
        .iter()
        .filter(|c| c.error.is_nan() || c.error >= tolerance(dtype))
        .map(|c| format!("{} {:.1e}", c.name, c.error))
        .collect();
    assert!(off.is_empty(), "{off:#?}");
}

#[test]
fn golden_numbers() {
    check(DType::F64);
    check(DType::F32);
}
