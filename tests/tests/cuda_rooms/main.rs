//! Compares all kernels on the host shim with their CPU code in f64: outputs, gradients for many wants, in-place
//! updates, in f32 and bf16, with threads in several orders, which must not change a bit. Also plants mistakes, which
//! must be found, and tests the shim. The environment variable `ROOM=name` limits the tests to one op's folder.

mod device;
mod shim;

use engine::cuda::{Arg, EXCHANGE, Grid, Module, PRODUCT};
use engine::{Buffer, DType, Device};
use kernels::case::{Case, Fill, Input, Sizes};
use kernels::cast::Cast;
use kernels::cross_entropy::LmHead;
use kernels::registry::{ROOMS, Room, modules};
use lab::verify::{LONG, Pass, SIZES, Script, WIDE, errors, exact, passes, scripts};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::env;
use tests::products;
use tests::shim::{Fault, Order, Shim, gpu, loaded};

/// Largest accepted ‖kernel − f64‖ / ‖f64‖.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 1e-2 } else { 1e-5 }
}

fn on_shim(modules: &[&'static Module], case: &Case, dtype: DType, device: Device) -> engine::Result<Vec<Pass>> {
    passes(case, &loaded(device, modules), dtype)
}

/// What is wrong with the results of `run` for any order of threads: a large error, or bits that depend on the order.
fn compare(
    place: &str,
    exact: &[Pass],
    tolerance: f64,
    run: impl Fn(Order) -> engine::Result<Vec<Pass>>,
) -> Result<(), String> {
    let mut first = None;
    for order in Order::ALL {
        let place = |what: &str| format!("{place}, {order:?}: {what}");
        let ours = run(order).map_err(|e| place(&e.to_string()))?;
        for (pass, i, error) in errors(&ours, exact) {
            if error > tolerance {
                return Err(place(&format!("{} {i} has an error of {error:.1e}", pass.what)));
            }
        }
        let bits = bits(&ours);
        if *first.get_or_insert_with(|| bits.clone()) != bits {
            return Err(place("the bits differ from those of the forward order"));
        }
    }
    Ok(())
}

/// The bytes of all buffers.
fn bits(passes: &[Pass]) -> Vec<Vec<u8>> {
    let buffers = passes.iter().flat_map(|pass| &pass.buffers).filter(|buffer| !buffer.is_empty());
    buffers.map(|buffer| buffer.as_bytes().to_vec()).collect()
}

/// What is wrong with a case on a device with threads in any order.
fn check(room: &Room, case: &Case, dtype: DType, device: impl Fn(Order) -> Device) -> Result<(), String> {
    let place = format!("{} ({}), {dtype}", case.op.name(), case.label);
    compare(&place, &exact(case, dtype), tolerance(dtype), |order| on_shim(room.cuda, case, dtype, device(order)))
}

/// The room's cases at these sizes, in both types.
fn check_at(room: &Room, sizes: &[Sizes], device: impl Fn(Order) -> Device) -> Result<(), String> {
    for case in sizes.iter().flat_map(|s| (room.cases)(s)) {
        for dtype in [DType::F32, DType::Bf16] {
            check(room, &case, dtype, &device)?;
        }
    }
    Ok(())
}

/// The ops with kernels whose names contain `part`, unless `ROOM` excludes them.
fn rooms(part: &str) -> Vec<&'static Room> {
    ROOMS.iter().filter(|room| room.name.contains(part) && chosen(room.name)).collect()
}

fn chosen(room: &str) -> bool {
    env::var("ROOM").map_or(true, |name| name == room)
}

/// What is wrong with a room's updates in place: several steps in f32 against the CPU in f64.
fn check_updates(modules: &[&'static Module], script: &Script, device: impl Fn(Order) -> Device) -> Result<(), String> {
    let exact = script.run(&Device::CPU, DType::F64).expect("the CPU does not fail");
    compare(script.room, &exact, 1e-5, |order| script.run(&loaded(device(order), modules), DType::F32))
}

/// What is wrong with a cast's results and gradients. Rounding is exact, so all bits are the CPU's.
fn check_casts(modules: &[&'static Module], device: impl Fn(Order) -> Device) -> Result<(), String> {
    for n in [1, 7, 8, 2059] {
        for (from, to) in [(DType::F32, DType::Bf16), (DType::Bf16, DType::F32), (DType::F32, DType::F32)] {
            let case = Case::new("", Cast { to }, vec![Input::new(&[n], Fill::NORMAL)]);
            let exact = passes(&case, &Device::CPU, from).expect("the CPU does not fail");
            for order in Order::ALL {
                let ours = on_shim(modules, &case, from, device(order)).map_err(|e| e.to_string())?;
                if bits(&ours) != bits(&exact) {
                    return Err(format!("{n} {from} to {to}, {order:?}: the bits differ from the CPU's"));
                }
            }
        }
    }
    Ok(())
}

/// The sum with numbers of another process, whose bits are exact.
fn check_exchange(device: impl Fn(Order) -> Device) -> Result<(), String> {
    for order in Order::ALL {
        let device = loaded(device(order), &[&EXCHANGE]);
        for (n, dtype) in [(1, DType::F32), (255, DType::F32), (257, DType::F32), (300, DType::Bf16)] {
            let numbers =
                |step: f64| Buffer::from_f64(dtype, &[n], &(0..n).map(|i| i as f64 * step).collect::<Vec<_>>());
            let [x, y] = [numbers(0.25), numbers(-3.0)];
            let sums: Vec<f64> = x.to_f64().iter().zip(y.to_f64()).map(|(x, y)| x + y).collect();
            let [x, y] = [x, y].map(|x| x.to_device(&device).expect("room"));
            let kernel = EXCHANGE.kernel("add_received", dtype);
            gpu(&device).launch(&kernel, Grid::covering(n, 256), &[Arg::from(&x), Arg::from(&y), n.into()]);
            let exact = Buffer::from_f64(dtype, &[n], &sums).to_f64();
            if x.read_f64().map_err(|e| e.to_string())? != exact {
                return Err(format!("{n} {dtype}, {order:?}: other sums"));
            }
        }
    }
    Ok(())
}

/// What is wrong with an op's kernels: at its cases, its updates, its casts, or the engine's own.
fn check_room(name: &str, device: impl Fn(Order) -> Device) -> Result<(), String> {
    if let Some(room) = rooms("").into_iter().find(|room| room.name == name) {
        check_at(room, &SIZES, &device)?;
    }
    let own: Vec<_> = modules().into_iter().filter(|module| module.name == name).collect();
    match name {
        "cast" => check_casts(&own, device),
        "exchange" => check_exchange(device),
        "product" => Order::ALL.into_iter().try_for_each(|order| {
            let device = loaded(device(order), &[&PRODUCT]);
            products::check(&device, |product| product.launch(&**gpu(&device)))
        }),
        _ => {
            let scripts = scripts();
            scripts.iter().filter(|s| s.room == name).try_for_each(|script| check_updates(&own, script, &device))
        }
    }
}

#[test]
fn every_room_agrees_with_its_cpu_code() {
    let names = ROOMS.iter().map(|room| room.name);
    let names: BTreeSet<&str> = names
        .chain(["adamw", "muon", "sgd", "latents", "cast", "exchange", "product"])
        .filter(|name| chosen(name))
        .collect();
    names.par_iter().for_each(|name| check_room(name, Shim::device).unwrap_or_else(|e| panic!("{name}: {e}")));
}

/// The head takes its tokens in chunks.
#[test]
fn more_tokens_than_a_chunk() {
    for room in rooms("cross_entropy") {
        for (case, dtype) in (room.cases)(&LONG).iter().zip([DType::F32, DType::Bf16].into_iter().cycle()) {
            check(room, case, dtype, Shim::device).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// Compares each loss for targets far above all other logits and far below the largest. In one pass the losses of a
/// confident model keep all their digits, and losses above 88 are clipped.
#[test]
fn sure_and_surprised_heads() {
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
        Input::new(&[1, tokens], Fill::Integers { below: 1 }),
        Input::statistic(&[1], Fill::Given(vec![0.625])),
    ];
    let case = Case::new("sharp", LmHead::CrossEntropy, ins);
    for room in rooms("cross_entropy") {
        let exact = exact(&case, DType::F32);
        let ours = on_shim(room.cuda, &case, DType::F32, Shim::device(Order::Forward)).expect("sound kernels");
        for (ours, exact) in ours.iter().zip(&exact).filter(|(ours, _)| !ours.what.starts_with("gradient")) {
            // Outputs come first: loss, nll, lse.
            let (nll, truth) = (ours.buffers[1].to_f64(), exact.buffers[1].to_f64());
            let one_pass = ["[Write, Skip", "[Add, Skip"].iter().any(|wants| ours.what.contains(wants));
            for (i, (nll, &truth)) in nll.iter().zip(&truth).enumerate() {
                let (expected, within) = if one_pass && truth > 88.0 {
                    (88.0, 0.05 * 88.0)
                } else if one_pass {
                    (truth, 2e-6 * truth + 1e-15)
                } else {
                    (truth, 2e-6 * truth.max(0.1))
                };
                assert!((nll - expected).abs() <= within, "{}: nll {i} is {nll}, should be {expected}", ours.what);
            }
        }
    }
}

/// In one pass every block reads the targets' logits while others write their own rows, so nobody may write there, not even
/// the same bits. A NaN whose bits no store gives shows it.
#[test]
fn nobody_writes_to_a_target() {
    let (vocab, slab, nan) = (300, 128, half::bf16::from_bits(0x7f81));
    let head = modules().into_iter().find(|module| module.name == "cross_entropy").expect("the head");
    // By packs of eight tokens, and by single ones.
    for (n, pack) in [(16, 8), (7, 1)] {
        let targets: Vec<i32> = (0..n as i32).map(|token| token * 37 % vocab).collect();
        let mut logits = vec![half::bf16::ONE; vocab as usize * n];
        let places: Vec<usize> = targets.iter().zip(0..).map(|(&target, token)| target as usize * n + token).collect();
        places.iter().for_each(|&place| logits[place] = nan);
        let device = loaded(Shim::device(Order::Forward), &[head]);
        let on_device = |buffer: Buffer| buffer.to_device(&device).expect("room");
        let logits = on_device(Buffer::from_slice(&[vocab as usize, n], &logits));
        let targets = on_device(Buffer::from_slice(&[n], &targets));
        let sums = on_device(Buffer::from_slice(&[3, n], &vec![0.0f32; 3 * n]));
        let grid = Grid::with_blocks([3, 1, 1], 256).shared(4 * 256 * pack);
        let args = [(&logits).into(), (&targets).into(), Arg::I32(vocab), n.into(), Arg::I32(slab), (&sums).into()];
        gpu(&device).launch(&head.kernel("exponentials", DType::Bf16), grid, &args);
        let logits = logits.on_host().expect("sound kernels");
        for (place, bits) in logits.as_bytes().chunks_exact(2).enumerate() {
            let is_kept = bits == nan.to_bits().to_le_bytes();
            assert_eq!(is_kept, places.contains(&place), "{n} tokens: number {place} is {bits:x?}");
        }
    }
}

/// Reported losses keep all their digits for a model in bf16 with logits as large as after training. Logits rounded to
/// bf16 would change them by hundredths of a nat.
#[test]
fn losses_of_large_logits() {
    let (tokens, dim, vocab) = (72, 64, 500);
    let ins = vec![
        Input::new(&[1, tokens, dim], Fill::NORMAL),
        Input::new(&[vocab, dim], Fill::Normal { mean: 0.0, std: 1.25 }),
        Input::new(&[1, tokens], Fill::Integers { below: vocab }),
        Input::statistic(&[1], Fill::Given(vec![1.0])),
    ];
    let case = Case::new("large logits", LmHead::CrossEntropy, ins);
    for room in rooms("cross_entropy") {
        let exact = exact(&case, DType::Bf16);
        let ours = on_shim(room.cuda, &case, DType::Bf16, Shim::device(Order::Forward)).expect("sound kernels");
        let nll = |passes: &[Pass]| passes.last().expect("the result").buffers[1].to_f64();
        for (nll, exact) in nll(&ours).iter().zip(nll(&exact)) {
            assert!((nll - exact).abs() <= 1e-4, "nll is {nll}, should be {exact}");
        }
    }
}

/// Attention is compiled for several widths of heads; the others are among the sizes above. Then more tokens than a
/// block of the cross attention has, and windows of more entries than a ring block handles at once, by packs and by
/// single columns.
#[test]
fn wide_heads() {
    for room in rooms("attention") {
        let wide = [(64, DType::Bf16), (64, DType::F32), (120, DType::Bf16), (128, DType::F32)];
        let wide = wide.map(|(head_dim, dtype)| (70, head_dim, 40, dtype)).into_iter();
        let long = [(260, 16, 40, DType::Bf16), (3, 64, 200, DType::Bf16), (3, 70, 200, DType::F32)];
        for (tokens, head_dim, window, dtype) in wide.chain(long) {
            let sizes = Sizes { tokens, heads: 1, head_dim, window, latents: 19, ..SIZES[0] };
            for case in (room.cases)(&sizes) {
                check(room, &case, dtype, Shim::device).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

/// Rows longer than a warp keeps in registers, by packs and by single numbers.
#[test]
fn wide_rows() {
    rooms("norm").iter().for_each(|room| check_at(room, &WIDE, Shim::device).unwrap_or_else(|e| panic!("{e}")));
}

/// The mistakes of `faults.txt`, with the ops whose tests find them.
fn faults() -> impl Iterator<Item = (&'static str, Fault)> {
    include_str!("faults.txt").split("\n\n").skip(1).map(|block| {
        let (head, _) = block.split_once('\n').expect("a room and a mistake");
        let (room, file) = head.split_once(" in ").unwrap_or((head, head));
        let text =
            |sign| block.lines().filter_map(|line| line.strip_prefix(sign)).collect::<Vec<_>>().join("\n").leak();
        (room, Fault { file, find: text('-'), replace: text('+') })
    })
}

#[test]
fn mistakes_are_found() {
    let chosen: Vec<_> = faults().filter(|(room, _)| chosen(room)).collect();
    let found: Vec<_> = chosen.par_iter().map(|&(room, fault)| check_room(room, |o| Shim::faulty(o, fault))).collect();
    for ((room, fault), found) in chosen.iter().zip(&found) {
        println!("{room}: {:?} in the place of {:?}: {found:?}", fault.replace, fault.find);
    }
    assert!(found.iter().all(Result::is_err), "a mistake was not found: see Ok(()) above");
}
