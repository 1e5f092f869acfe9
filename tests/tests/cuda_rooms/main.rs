//! Every room's kernels, run by the host shim, against the room's CPU code in f64: outputs, gradients for many wants, in f32
//! and bf16, with threads in several orders, which must not change a bit. And the same with mistakes put in, which must be
//! found. `ROOM=name` in the environment limits both to one room.

mod faults;
mod updates;

use autograd::gradcheck::Bench;
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Want};
use kernels::case::{Case, Sizes};
use kernels::registry::{ROOMS, Room};
use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tests::shim::{Order, Shim};

/// Ones, tails everywhere, full packs and blocks and more than a chunk of tokens.
const SIZES: [Sizes; 3] = [
    Sizes { batch: 1, tokens: 1, heads: 1, head_dim: 2, window: 1, latents: 1, ffn: 1, vocab: 2 },
    Sizes { batch: 2, tokens: 37, heads: 3, head_dim: 10, window: 11, latents: 19, ffn: 45, vocab: 101 },
    Sizes { batch: 2, tokens: 130, heads: 2, head_dim: 32, window: 48, latents: 8, ffn: 96, vocab: 258 },
];

/// Largest accepted ‖kernel − f64‖ / ‖f64‖.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 1e-2 } else { 1e-5 }
}

/// Outputs and gradients of one pass.
struct Results {
    what: String,
    buffers: Vec<Buffer>,
}

/// `Write` for each input alone, for all, and `Add` for all.
fn all_wants(case: &Case) -> Vec<Vec<Want>> {
    let n = case.ins.len();
    let of = |want: Want, chosen: &dyn Fn(usize) -> bool| -> Vec<Want> {
        (0..n).map(|i| if case.op.differentiable(i) && chosen(i) { want } else { Want::Skip }).collect()
    };
    let mut all: Vec<_> = (0..n).map(|i| of(Want::Write, &|j| j == i)).collect();
    all.extend([of(Want::Write, &|_| true), of(Want::Add, &|_| true)]);
    all.retain(|wants| wants.iter().any(|w| w.is_wanted()));
    all.dedup();
    all
}

/// Everything that the op can compute: in `dtype`, or in f64 on numbers that `dtype` can hold.
fn run(case: &Case, device: &Device, dtype: DType, precision: Precision) -> Vec<Results> {
    let given = |b: Buffer| match precision {
        Precision::Exact if b.dtype() != DType::I32 => Buffer::from_f64(DType::F64, b.shape().dims(), &b.to_f64()),
        _ => b,
    };
    let op = case.op.as_ref();
    let stored = case.buffers(dtype, 7);
    let into: Vec<Buffer> =
        stored.iter().map(|b| given(Buffer::from_f64(b.dtype(), b.shape().dims(), &vec![0.5; b.len()]))).collect();
    let result = op.infer(&case.specs(dtype)).expect("the case's shapes")[0].spec;
    let mut weights = vec![0.0; result.shape.numel()];
    Stream::new(3, 99).fill_normal(&mut weights, |x| x);
    let d_out = given(Buffer::from_f64(result.dtype, result.shape.dims(), &weights));
    let ins: Vec<Buffer> = stored.into_iter().map(given).collect();
    let mut bench = Bench::on(device, op, &ins);
    let outs = bench.forward(&ins);
    let mut results = Vec::new();
    for wants in all_wants(case) {
        let buffers = bench.vjp(&wants, &ins, &outs, &d_out, &into);
        results.push(Results { what: format!("gradient for {wants:?}"), buffers });
        if op.fuses() {
            let (mut buffers, d_ins) = bench.forward_vjp(&wants, &ins, &into);
            buffers.extend(d_ins);
            results.push(Results { what: format!("fused pass for {wants:?}"), buffers });
        }
    }
    results.push(Results { what: "result".into(), buffers: outs });
    results
}

/// What [`run`] computes in.
#[derive(Clone, Copy)]
enum Precision {
    /// The type of the tensors.
    Stored,
    /// f64.
    Exact,
}

fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let size = norm(&mut b.iter().copied());
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / if size > 0.0 { size } else { 1.0 }
}

/// What is wrong with `case` on a device with threads in any order, if anything.
fn check(case: &Case, dtype: DType, device: impl Fn(Order) -> Device) -> Result<(), String> {
    let exact = run(case, &Device::Cpu, dtype, Precision::Exact);
    let mut first: Option<Vec<Vec<Vec<u8>>>> = None;
    for order in Order::ALL {
        let device = device(order);
        let place = |what: &str| format!("{} ({}), {dtype}, {order:?}: {what}", case.op.name(), case.label);
        let ours = or_panic(|| Ok(run(case, &device, dtype, Precision::Stored))).map_err(|e| place(&e))?;
        for (ours, exact) in ours.iter().zip(&exact) {
            for (i, (a, b)) in ours.buffers.iter().zip(&exact.buffers).enumerate().filter(|(_, (a, _))| !a.is_empty()) {
                let error = relative_error(&a.to_f64(), &b.to_f64());
                // Written so that NaN fails.
                let close = error <= tolerance(dtype);
                if !close {
                    return Err(place(&format!("{} {i} is off by {error:.1e}", ours.what)));
                }
            }
        }
        let first = first.get_or_insert_with(|| ours.iter().map(|r| bits(&r.buffers)).collect());
        for (ours, first) in ours.iter().zip(first.iter()) {
            if bits(&ours.buffers) != *first {
                return Err(place(&format!("{} has other bits than in order", ours.what)));
            }
        }
    }
    Ok(())
}

fn bits(buffers: &[Buffer]) -> Vec<Vec<u8>> {
    buffers.iter().filter(|b| !b.is_empty()).map(|b| b.as_bytes().to_vec()).collect()
}

/// The error of an attempt, or the message with which it panicked.
fn or_panic<R>(attempt: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    let message = |e: Box<dyn Any + Send>| e.downcast_ref::<String>().map_or("panicked", |s| s).to_string();
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|e| Err(message(e)))
}

fn loaded(device: Device, room: &Room) -> Device {
    let Device::Cuda(gpu) = &device else { unreachable!("the shim is a GPU") };
    gpu.load(room.cuda.expect("kernels")).unwrap_or_else(|e| panic!("{}: {e}", room.name));
    device
}

fn check_room(room: &Room, device: impl Fn(Order) -> Device) -> Result<(), String> {
    for case in SIZES.iter().flat_map(|s| (room.cases)(s)) {
        for dtype in [DType::F32, DType::Bf16] {
            check(&case, dtype, |order| loaded(device(order), room))?;
        }
    }
    Ok(())
}

fn chosen(room: &str) -> bool {
    env::var("ROOM").map_or(true, |name| name == room)
}

#[test]
fn every_room_agrees_with_its_cpu_code() {
    for room in ROOMS.iter().filter(|room| room.cuda.is_some() && chosen(room.name)) {
        check_room(room, Shim::device).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Attention is compiled for several widths of heads; the others are among the sizes above.
#[test]
fn wide_heads() {
    for room in ROOMS.iter().filter(|room| room.name.contains("attention") && chosen(room.name)) {
        for (head_dim, dtype) in [(64, DType::Bf16), (64, DType::F32), (120, DType::Bf16), (128, DType::F32)] {
            let s = Sizes { tokens: 70, heads: 1, head_dim, window: 40, latents: 19, ..SIZES[0] };
            for case in (room.cases)(&s) {
                check(&case, dtype, |order| loaded(Shim::device(order), room)).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

#[test]
fn mistakes_are_found() {
    for (name, fault) in faults::all().filter(|(name, _)| chosen(name)) {
        let room = ROOMS.iter().find(|room| room.name == name).expect("a registered room");
        let found = check_room(room, |order| Shim::faulty(order, fault));
        let found = found.expect_err(&format!("nobody noticed {:?} in the place of {:?}", fault.replace, fault.find));
        assert!(!found.contains("g++"), "not a mistake that compiles: {found}");
        println!("{name}: {:?} is found: {found}", fault.replace);
    }
}
