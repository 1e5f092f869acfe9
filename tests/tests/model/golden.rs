//! The model against the golden file of an independent implementation.

use engine::{DType, Device, Products};
use lab::verify::golden;

#[test]
fn golden_numbers() {
    // With products that round to bf16, all is stored in f32.
    let rounds = Device::CPU.with(Products::Bf16);
    for (products, stored, device) in [
        (DType::F64, DType::F64, &Device::CPU),
        (DType::F32, DType::F32, &Device::CPU),
        (DType::Bf16, DType::F32, &rounds),
    ] {
        let all = golden(None, stored, device).unwrap();
        assert!(all.len() > 140, "only {} quantities compared", all.len());
        let off: Vec<_> = all.iter().filter(|c| !c.is_good(products)).collect();
        assert!(off.is_empty(), "{products}: {off:#?}");
    }
}
