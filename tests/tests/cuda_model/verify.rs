//! The check of a device against the CPU and the golden numbers.

use crate::shim;
use engine::DType;
use kernels::registry::modules;
use lab::verify::{device, golden, tolerance};
use tests::measured::{ON_SHIM, errors, same_line};
use tests::shim::{Fault, Order, Shim, loaded};

/// A mistake is told with its place, and only there. Blocks of an RTX 40 have less shared memory: attention with wide heads is
/// left out where it does not fit. The rest passes.
#[test]
fn a_smaller_device_with_a_mistake() {
    let fault = Fault { file: "latents", find: "site + t + 1", replace: "site + t" };
    let gpu = loaded(Shim::with_shared(99 << 10, Some(fault)), &modules());
    let mut told = 0;
    let reports = device(&gpu, &[], |_| told += 1).expect("a device that does not fail");
    assert_eq!(told, reports.len());
    assert!(reports.iter().all(|r| r.cases > 0));
    for name in ["rmsnorm", "window_attention", "cast", "adamw in place"] {
        assert!(reports.iter().any(|r| r.op == name), "{name} is not looked at");
    }
    // What AUDIT.md says of the kernels is what they do here, but for the mistake and what was left out.
    let said = include_str!("../../../AUDIT.md");
    for r in reports.iter().filter(|r| r.failure.is_none() && r.left_out == 0) {
        let line = errors(ON_SHIM, r);
        assert!(said.lines().any(|said| same_line(said, &line)), "AUDIT.md does not say: {line}");
    }
    let wrong: Vec<_> = reports.iter().filter(|r| r.failure.is_some()).collect();
    assert_eq!(wrong.iter().map(|r| r.op.as_str()).collect::<Vec<_>>(), ["latents in place"], "{wrong:#?}");
    assert!(wrong[0].failure.as_ref().is_some_and(|said| said.starts_with("latents in place f32, buffer: ")));
    let left_out = reports.iter().filter(|r| r.left_out > 0).map(|r| (r.op.as_str(), r.dtype));
    assert_eq!(left_out.collect::<Vec<_>>(), [("cross_attention", DType::F32), ("window_attention", DType::F32)]);
}

/// A write outside of memory, after which a device does nothing more.
#[test]
fn a_device_that_fails_ends_the_check() {
    let fault = Fault { file: "add", find: "store_pack<N>(y + i, sum);", replace: "store_pack<N>(y + n, sum);" };
    let said = device(&loaded(Shim::faulty(Order::Forward, fault), &modules()), &[], |r| panic!("{r:?}"));
    let said = said.expect_err("a device that fails").to_string();
    assert!(said.starts_with("add f32, add ") && said.ends_with("an allocation of 8 bytes was written"), "{said}");
}

#[test]
fn the_golden_numbers_on_a_device() {
    for dtype in [DType::F32, DType::Bf16] {
        let all = golden(None, dtype, &shim(Order::Forward)).expect("golden numbers");
        let worst = all.iter().map(|c| c.error).fold(0.0, f64::max);
        for c in &all {
            assert!(c.error <= tolerance(dtype), "{} is off by {:.1e} in {dtype}", c.name, c.error);
        }
        assert!(dtype == DType::F32 || worst > 1e-3, "{worst:.1e} is closer than bf16 can be: it was not used");
    }
}
