//! `ltm verify` on a device, which the host shim stands in for: a sound one passes, and one with a mistake in a kernel does
//! not.

use engine::{DType, Device};
use kernels::registry::modules;
use lab::verify::{DeviceReport, device, golden, tolerance};
use tests::shim::{Fault, Order, Shim};

fn loaded(device: Device) -> Device {
    let Device::Cuda(gpu) = &device else { unreachable!("the shim is a GPU") };
    gpu.load(&modules()).expect("kernels");
    device
}

/// The reports that found something wrong.
fn off(gpu: &Device) -> Vec<DeviceReport> {
    let mut told = 0;
    let reports = device(gpu, &[], |_| told += 1);
    assert_eq!(told, reports.len());
    assert!(reports.iter().all(|r| r.cases > 0));
    for name in ["rmsnorm", "window_attention", "cast", "adamw in place", "latents in place"] {
        assert!(reports.iter().any(|r| r.op == name), "{name} is not looked at");
    }
    reports.into_iter().filter(|r| r.failure.is_some()).collect()
}

#[test]
fn a_sound_device_passes() {
    let found = off(&loaded(Shim::device(Order::Forward)));
    assert!(found.is_empty(), "{found:#?}");
}

/// Blocks of an RTX 40 have less shared memory: attention with wide heads is left out where it cannot be, and the rest passes.
#[test]
fn a_smaller_device_passes() {
    let gpu = loaded(Shim::with_shared(99 << 10));
    let reports = device(&gpu, &[], |_| ());
    assert!(reports.iter().all(|r| r.failure.is_none()), "{reports:#?}");
    let left_out = |r: &&DeviceReport| r.left_out > 0;
    let found: Vec<_> = reports.iter().filter(left_out).map(|r| (r.op.as_str(), r.dtype)).collect();
    assert_eq!(found, [("cross_attention", DType::F32), ("window_attention", DType::F32)]);
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let fault = Fault { file: "latents", find: "site + t + 1", replace: "site + t" };
    let found = off(&loaded(Shim::faulty(Order::Forward, fault)));
    assert_eq!(found.iter().map(|r| r.op.as_str()).collect::<Vec<_>>(), ["latents in place"]);

    // Writes one row too many, which the shim does not let pass: the rest is looked at all the same.
    let fault = Fault { file: "rmsnorm", find: "if (row >= rows) return;", replace: "if (row > rows) return;" };
    let found = off(&loaded(Shim::faulty(Order::Forward, fault)));
    assert!(!found.is_empty() && found.iter().all(|r| r.op == "rmsnorm"), "{found:?}");
    assert!(found[0].failure.as_ref().is_some_and(|said| said.contains("was written")), "{found:?}");
}

#[test]
fn the_golden_numbers_on_a_device() {
    for dtype in [DType::F32, DType::Bf16] {
        let all = golden(None, dtype, &loaded(Shim::device(Order::Forward))).expect("golden numbers");
        let worst = all.iter().map(|c| c.error).fold(0.0, |a: f64, b| if b <= a { a } else { b });
        println!("{dtype}: {worst:.1e} at worst");
        for c in &all {
            // Written so that NaN fails.
            let close = c.error <= tolerance(dtype);
            assert!(close, "{} is off by {:.1e} in {dtype}", c.name, c.error);
        }
        assert!(dtype == DType::F32 || worst > 1e-3, "{worst:.1e} is closer than bf16 can be: it was not used");
    }
    let small = golden(None, DType::F32, &loaded(Shim::small(10_000))).expect_err("no room").to_string();
    assert!(small.contains("of device memory are needed"), "{small}");
}
