//! Every room's kernels, run by the host shim, against the room's CPU code in f64: outputs, gradients for many wants, in f32
//! and bf16, with threads in several orders, which must not change a bit. And the same with mistakes put in, which must be
//! found. `ROOM=name` in the environment limits both to one room.

mod faults;
mod updates;

use engine::{Buffer, DType, Device};
use kernels::case::{Case, Fill, Input, Sizes};
use kernels::cross_entropy::LmHead;
use kernels::registry::{ROOMS, Room};
use lab::verify::{self, Arithmetic, errors, passes};
use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tests::shim::{Order, Shim};

/// Largest accepted ‖kernel − f64‖ / ‖f64‖.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 1e-2 } else { 1e-5 }
}

/// What is wrong with `case` on a device with threads in any order, if anything.
fn check(case: &Case, dtype: DType, device: impl Fn(Order) -> Device) -> Result<(), String> {
    let exact = passes(case, &Device::Cpu, dtype, Arithmetic::Exact);
    let mut first: Option<Vec<Vec<Vec<u8>>>> = None;
    for order in Order::ALL {
        let device = device(order);
        let place = |what: &str| format!("{} ({}), {dtype}, {order:?}: {what}", case.op.name(), case.label);
        let ours = or_panic(|| Ok(passes(case, &device, dtype, Arithmetic::Stored))).map_err(|e| place(&e))?;
        for (pass, i, error) in errors(&ours, &exact) {
            // Written so that NaN fails.
            let close = error <= tolerance(dtype);
            if !close {
                return Err(place(&format!("{} {i} is off by {error:.1e}", pass.what)));
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
    for case in verify::SIZES.iter().flat_map(|s| (room.cases)(s)) {
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

/// The head takes its tokens in chunks.
#[test]
fn more_tokens_than_a_chunk() {
    for room in ROOMS.iter().filter(|room| room.name == "cross_entropy" && chosen(room.name)) {
        for (case, dtype) in (room.cases)(&verify::LONG).iter().zip([DType::F32, DType::Bf16]) {
            check(case, dtype, |order| loaded(Shim::device(order), room)).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// Losses number by number, of targets far above all other logits and far below the largest. In one pass a sure model's have
/// all their digits, and those beyond 88 are cut off.
#[test]
fn sure_and_surprised_heads() {
    let room = ROOMS.iter().find(|room| room.name == "cross_entropy").expect("the head");
    if !chosen(room.name) {
        return;
    }
    // The table is the identity, so that the hidden states are the logits; all targets are the first entry.
    let logits: [[f64; 5]; 8] = [
        [40.0, 0.0, 0.5, -1.0, -30.0],
        [0.0, -20.0, -40.0, -90.0, -300.0],
        [50.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [5e4, 5e4, 0.0, 0.0, 0.0],
        [-30.0, 40.0, 39.0, 0.0, 0.0],
        [-45.0, 40.0, 0.0, 0.0, 0.0],
        [0.0, 100.0, 0.0, 0.0, 0.0],
    ];
    let (tokens, vocab) = (logits.len(), logits[0].len());
    let identity = (0..vocab * vocab).map(|i| if i % (vocab + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let ins = vec![
        Input::new(&[1, tokens, vocab], Fill::Given(logits.concat())),
        Input::new(&[vocab, vocab], Fill::Given(identity)),
        Input::new(&[1, tokens], Fill::Tokens { below: 1 }),
        Input::statistic(&[1], Fill::Given(vec![0.625])),
    ];
    let case = Case::new("sharp", LmHead, ins);
    let exact = passes(&case, &Device::Cpu, DType::F32, Arithmetic::Exact);
    let ours = passes(&case, &loaded(Shim::device(Order::Forward), room), DType::F32, Arithmetic::Stored);
    for (ours, exact) in ours.iter().zip(&exact).filter(|(ours, _)| !ours.what.starts_with("gradient")) {
        // Outputs come first: loss, nll, lse.
        let (nll, truth) = (ours.buffers[1].to_f64(), exact.buffers[1].to_f64());
        let one_pass = ["[Write, Skip", "[Add, Skip"].iter().any(|wants| ours.what.contains(wants));
        for (i, (nll, &truth)) in nll.iter().zip(&truth).enumerate() {
            let (expected, within) = match one_pass {
                true if truth > 88.0 => (88.0, 0.05 * 88.0),
                true => (truth, 2e-6 * truth + 1e-15),
                false => (truth, 2e-6 * truth.max(0.1)),
            };
            assert!((nll - expected).abs() <= within, "{}: nll {i} is {nll}, should be {expected}", ours.what);
        }
    }
}

/// The losses that are reported of a model have all their digits where it is stored as bf16 and its logits are as large as
/// training makes them: rounded to bf16 those would be off by some hundredths of a nat.
#[test]
fn losses_of_large_logits() {
    let room = ROOMS.iter().find(|room| room.name == "cross_entropy").expect("the head");
    if !chosen(room.name) {
        return;
    }
    let (tokens, dim, vocab) = (72, 64, 500);
    let ins = vec![
        Input::new(&[1, tokens, dim], Fill::NORMAL),
        Input::new(&[vocab, dim], Fill::Normal { mean: 0.0, std: 1.25 }),
        Input::new(&[1, tokens], Fill::Tokens { below: vocab }),
        Input::statistic(&[1], Fill::Given(vec![1.0])),
    ];
    let case = Case::new("large logits", LmHead, ins);
    let exact = passes(&case, &Device::Cpu, DType::Bf16, Arithmetic::Exact);
    let ours = passes(&case, &loaded(Shim::device(Order::Forward), room), DType::Bf16, Arithmetic::Stored);
    let nll = |passes: &[verify::Pass]| passes.last().expect("the result").buffers[1].to_f64();
    for (nll, exact) in nll(&ours).iter().zip(nll(&exact)) {
        assert!((nll - exact).abs() <= 1e-4, "nll is {nll}, should be {exact}");
    }
}

/// Attention is compiled for several widths of heads; the others are among the sizes above. Then more tokens than a block of the
/// cross attention has, and windows of more entries than the ring's blocks look at in one go, by packs and by single columns.
#[test]
fn wide_heads() {
    for room in ROOMS.iter().filter(|room| room.name.contains("attention") && chosen(room.name)) {
        let wide = [(64, DType::Bf16), (64, DType::F32), (120, DType::Bf16), (128, DType::F32)];
        let wide = wide.map(|(head_dim, dtype)| (70, head_dim, 40, dtype)).into_iter();
        let long = [(260, 16, 40, DType::Bf16), (3, 64, 200, DType::Bf16), (3, 70, 200, DType::F32)];
        for (tokens, head_dim, window, dtype) in wide.chain(long) {
            let s = Sizes { tokens, heads: 1, head_dim, window, latents: 19, ..verify::SIZES[0] };
            for case in (room.cases)(&s) {
                check(&case, dtype, |order| loaded(Shim::device(order), room)).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

/// Rows that are longer than what a warp keeps of them, by packs and by single numbers.
#[test]
fn wide_rows() {
    for room in ROOMS.iter().filter(|room| room.name.contains("norm") && chosen(room.name)) {
        for case in verify::WIDE.iter().flat_map(|s| (room.cases)(s)) {
            for dtype in [DType::F32, DType::Bf16] {
                check(&case, dtype, |order| loaded(Shim::device(order), room)).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

#[test]
fn mistakes_are_found() {
    let mut unnoticed = Vec::new();
    for (name, fault) in faults::all().filter(|(name, _)| chosen(name)) {
        let room = ROOMS.iter().find(|room| room.name == name).expect("a registered room");
        let Err(found) = check_room(room, |order| Shim::faulty(order, fault)) else {
            unnoticed.push(format!("{name}: {:?} in the place of {:?}", fault.replace, fault.find));
            continue;
        };
        // Neither one that the compiler finds, nor one that was never made.
        assert!(!found.contains("g++"), "not a mistake that compiles: {found}");
        println!("{name}: {:?} is found: {found}", fault.replace);
    }
    assert!(unnoticed.is_empty(), "nobody noticed\n{}", unnoticed.join("\n"));
}
