//! The model against the golden file of an independent implementation.

use engine::{DType, Device};
use lab::verify::{golden, tolerance};

#[test]
fn golden_numbers() {
    for dtype in [DType::F64, DType::F32] {
        let all = golden(None, dtype, &Device::CPU).unwrap();
        assert!(all.len() > 60, "only {} quantities compared", all.len());
        let off: Vec<_> = all.iter().filter(|c| c.error >= tolerance(dtype)).collect();
        assert!(off.is_empty(), "{dtype}: {off:#?}");
    }
}
