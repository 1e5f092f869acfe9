//! Tests the host shim itself: each device function gives the same numbers as its CPU version, and a kernel that breaks
//! a rule fails.

use engine::cuda::{Arg, Grid, Module};
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Result, Spec};
use half::bf16;
use tests::shim::{Fault, Order, Shim, gpu, loaded};

static KERNELS: Module = Module::new("shim_test", include_str!("shim_test.cu"));

/// Runs an entry point `x → y` on a device.
fn run_on(device: Device, entry: &'static str, grid: Grid, x: &Buffer, out: Spec) -> Result<Vec<f64>> {
    let device = loaded(device, &[&KERNELS]);
    let (x, mut y) = (x.to_device(&device)?, Buffer::new_on(&device, out)?);
    let n = x.len().into();
    gpu(&device).launch(&KERNELS.kernel(entry, x.dtype()), grid, &[(&x).into(), (&mut y).into(), n]);
    y.read_f64()
}

/// Runs an entry point with threads in every order, which must not change a bit.
fn run(entry: &'static str, grid: Grid, x: &Buffer, out: Spec) -> Vec<f64> {
    let mut all = Order::ALL.map(|order| run_on(Shim::device(order), entry, grid, x, out).expect("a sound kernel"));
    let bits = all.each_ref().map(|y| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>());
    assert!(bits[0] == bits[1] && bits[0] == bits[2], "{entry} depends on the order of threads");
    std::mem::take(&mut all[0])
}

fn numbers(n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    Stream::new(1, 1).fill_normal(0, &mut x, |x| x as f32);
    x
}

#[test]
fn rounding_to_bf16() {
    let mut x = numbers(1000);
    // Ties, the largest numbers, infinities and subnormals.
    let tie = 2f32.powi(-8);
    x.extend([1.0 + tie, 1.0 + 3.0 * tie, -1.0 - tie, f32::MAX, f32::MIN, f32::INFINITY, 1e-40, -0.0]);
    let (grid, out) = (Grid::covering(x.len(), 64), Spec::new(DType::Bf16, &[x.len()]));
    let y = run("to_bf16", grid, &Buffer::from_slice(&[x.len()], &x), out);
    let expected: Vec<f64> = x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect();
    assert_eq!(y, expected);
}

#[test]
fn noise_is_the_cpu_s_bit_by_bit() {
    let device = loaded(Shim::device(Order::Forward), &[&KERNELS]);
    let mut y = Buffer::new_on(&device, Spec::new(DType::F64, &[4096])).expect("room");
    let stream = Stream::new(0x0123_4567_89AB_CDEF, 0x4C00_0007).sample(77).step(5);
    let args =
        [Arg::U64(stream.seed), Arg::U32(stream.site), Arg::U32(stream.sample), Arg::U32(stream.step), (&mut y).into()];
    gpu(&device).launch(&KERNELS.kernel("noise", DType::F32), Grid::new(4, 256), &args);
    let mut expected = vec![0.0; 4096];
    stream.fill_normal(0, &mut expected, |x| x);
    assert_eq!(y.read_f64().expect("a sound kernel"), expected);
}

/// c = a·b of [16, 16] and [16, 8] by tensor core, with operands brought by background copy and ldmatrix.
#[test]
fn matrices() {
    let x: Vec<f64> = numbers(16 * 16 + 16 * 8).iter().map(|&x| bf16::from_f32(x).to_f64()).collect();
    let (a, b) = x.split_at(16 * 16);
    let (grid, out) = (Grid::new(1, 32).shared(2 * x.len()), Spec::new(DType::F32, &[16, 8]));
    let y = run("matrices", grid, &Buffer::from_f64(DType::Bf16, &[x.len()], &x), out);
    for (i, y) in y.iter().enumerate() {
        let exact: f64 = (0..16).map(|k| a[i / 8 * 16 + k] * b[k * 8 + i % 8]).sum();
        assert!((y - exact).abs() < 1e-5, "element {i}: {y} and {exact}");
    }
}

#[test]
fn reductions() {
    let x = numbers(96);
    let y = run("reductions", Grid::new(1, 96), &Buffer::from_slice(&[96], &x), Spec::new(DType::F32, &[96 * 3]));
    let sum: f64 = x.iter().map(|&x| f64::from(x)).sum();
    let most = |w: usize| x[32 * w..32 * w + 32].iter().fold(f32::MIN, |m, &x| m.max(x));
    for i in 0..96 {
        assert!((y[3 * i] - sum).abs() < 1e-4);
        assert_eq!(y[3 * i + 1], f64::from(most(i / 32)));
        assert_eq!(y[3 * i + 2], x[32 * (i / 32)..i].iter().filter(|&&x| x > 0.0).count() as f64, "thread {i}");
    }
}

#[test]
fn broken_rules_are_failures() {
    let x = Buffer::from_slice(&[64], &[1.0f32; 64]);
    for (entry, threads, expected) in [
        ("divergent_barriers", 64, "divergent barriers: thread"),
        ("early_return", 64, "thread 5 has returned"),
        ("absent_lane", 64, "waits for lane 3, which has returned"),
        ("reductions", 20, "which the block does not have"),
        ("past_the_end", 64, "byte 256 of an allocation of 256 bytes was written"),
        ("in_front", 64, "byte -1 of an allocation of 256 bytes was written"),
        ("past_shared", 64, "byte 64 of 64 bytes of shared memory written"),
        ("crooked_load", 1, "a pack that is not aligned to 8 bytes"),
        ("crooked_store", 1, "a pack that is not aligned to 16 bytes"),
        ("three_parameters", 64, "argument 2 has 4 bytes, must have 8"),
        ("no_such_entry", 64, "no such kernel"),
    ] {
        let (device, grid) = (Shim::device(Order::Forward), Grid::new(1, threads).shared(64));
        let said = run_on(device, entry, grid, &x, Spec::new(DType::F32, &[64])).expect_err(entry).to_string();
        assert!(said.starts_with(&format!("shim_test {entry}: ")) && said.contains(expected), "{said}");
    }
}

#[test]
fn shared_memory_is_spoilt() {
    let x = Buffer::from_slice(&[64], &[1.0f32; 64]);
    let y = run("unwritten", Grid::new(1, 64).shared(256), &x, Spec::new(DType::F32, &[64]));
    assert!(y.iter().all(|y| y.is_nan()));
}

/// A missing barrier, and a wait for too few of the background copies.
#[test]
fn races_are_found() {
    let x = Buffer::from_f64(DType::Bf16, &[384], &[1.0; 384]);
    let (shared, out) = (Grid::new(1, 32).shared(768), Spec::new(DType::F32, &[16, 8]));
    for (find, replace) in [("copy_wait<0>();", "copy_wait<1>();"), ("__syncthreads();  // copies", "")] {
        let fault = Fault { file: "shim_test", find, replace };
        let wrong = |order| run_on(Shim::faulty(order, fault), "matrices", shared, &x, out).expect("numbers");
        assert!(Order::ALL.map(wrong).iter().flatten().any(|y| *y != 16.0), "{find}");
    }
}
