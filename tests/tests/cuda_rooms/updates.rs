//! Updates in place and the cast, which have no cases: several steps on the shim against the CPU in f64.

use crate::{bits, chosen, report};
use autograd::gradcheck::Bench;
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Result, Want};
use kernels::cast::Cast;
use kernels::registry::modules;
use lab::verify::{Script, relative_error, scripts};
use rayon::prelude::*;
use tests::shim::{Fault, Order, Shim, loaded};

/// What is wrong on a device with threads in any order.
fn check(script: &Script, device: impl Fn(Order) -> Device) -> std::result::Result<(), String> {
    let exact = script.run(&Device::Cpu, DType::F64).expect("the CPU does not fail");
    let mut first = None;
    for order in Order::ALL {
        let ours = script.run(&shim(script.room, device(order)), DType::F32).map_err(|e| e.to_string())?;
        for (i, (a, b)) in ours.iter().zip(&exact).enumerate() {
            let error = relative_error(&a.to_f64(), &b.to_f64());
            // Written so that NaN fails.
            let close = error <= 1e-5;
            if !close {
                return Err(format!("{order:?}: buffer {i} is off by {error:.1e}"));
            }
        }
        if *first.get_or_insert_with(|| bits(&ours)) != bits(&ours) {
            return Err(format!("{order:?}: other bits than in order"));
        }
    }
    Ok(())
}

/// The device with the kernels of one room.
fn shim(room: &str, device: Device) -> Device {
    loaded(device, &modules().into_iter().filter(|m| m.name == room).collect::<Vec<_>>())
}

#[test]
fn updates_agree_with_their_cpu_code() {
    for script in scripts().iter().filter(|script| chosen(script.room)) {
        check(script, Shim::device).unwrap_or_else(|e| panic!("{}: {e}", script.room));
    }
}

/// Room, what stands there, what stands there by mistake.
const FAULTS: &[[&str; 3]] = &[
    ["adamw", "if (factor < 0) return;", "if (factor < 1) return;"],
    [
        "adamw",
        "schedule[0], (unsigned)schedule[1]);\n        }\n    }\n    __syncthreads();",
        "schedule[0], (unsigned)schedule[1]);\n        }\n    }",
    ],
    ["adamw", "for (int j = i; j < end; j++) sum", "for (int j = i; j < end - 1; j++) sum"],
    ["adamw", "for (; n; n /= 2, x *= x)", "for (; n > 1; n /= 2, x *= x)"],
    ["latents", "rates[min(t, steps - 1)], t + 1);\n    __syncthreads();", "rates[min(t, steps - 1)], t + 1);"],
    ["latents", "power(beta2, t + 1)));\n    }\n    __syncthreads();", "power(beta2, t + 1)));\n    }"],
    ["latents", "c.x[i] < 0.0f ? 0.0f : c.x[i]", "c.x[i]"],
    ["latents", "(1.0 - power(beta1, t + 1))", "(1.0 - power(beta1, t))"],
    ["latents", "fmaf(weight, p.x[i], m.x[i]", "fmaf(-weight, p.x[i], m.x[i]"],
    ["latents", "fmaf(weight, p.x[i], d.x[i])", "fmaf(-weight, p.x[i], d.x[i])"],
    ["latents", "min(t + 1, table_steps - 1)", "min(t, table_steps - 1)"],
    ["latents", "site + t + 1", "site + t"],
    ["ring_attention", "position[0] % slots", "(position[0] + 1) % slots"],
    ["latents", "if (redraw) {", "if (true) {"],
    ["latents", "i < pieces", "i < pieces - 1"],
    ["latents", "&& clock) clock[0]++;", "&& clock) clock[0] += 2;"],
    ["latents", "normals(stream, j / 4, four);", "normals(stream, j, four);"],
    ["latents", "partial[sample * pieces + i]", "partial[i]"],
];

#[test]
fn mistakes_in_updates_are_found() {
    let find = |&[room, find, replace]: &[&'static str; 3]| {
        let fault = Fault { file: room, find, replace };
        let scripts = scripts().into_iter().filter(|script| script.room == room);
        let mut results = scripts.map(|script| check(&script, |order| Shim::faulty(order, fault)));
        (room, fault, results.find(|result| result.is_err()).unwrap_or(Ok(())))
    };
    let faults: Vec<_> = FAULTS.iter().filter(|[room, ..]| chosen(room)).collect();
    report(faults.into_par_iter().map(find).collect());
}

/// All results and gradients of a cast of `n` numbers.
fn cast(device: &Device, n: usize, from: DType, to: DType) -> Result<Vec<Vec<u8>>> {
    let numbers = |dtype, site| {
        let mut x = vec![0.0; n];
        Stream::new(3, site).fill_normal(&mut x, |x| x);
        [Buffer::from_f64(dtype, &[n], &x)]
    };
    let (x, [d_y], d_x) = (numbers(from, 1), numbers(to, 2), numbers(from, 3));
    let op = Cast { to };
    let mut bench = Bench::new(device, &op, &x);
    let mut all = bench.forward(&x);
    for want in [Want::Write, Want::Add] {
        all.extend(bench.vjp(&[want], &x, &[], &d_y, &d_x));
    }
    all.iter().map(|buffer| Ok(buffer.on_host()?.as_bytes().to_vec())).collect()
}

/// What is wrong with a cast's results and gradients. Rounding is exact, so all bits are the CPU's.
fn check_casts(device: impl Fn() -> Device) -> std::result::Result<(), String> {
    for n in [1, 7, 8, 2059] {
        for (from, to) in [(DType::F32, DType::Bf16), (DType::Bf16, DType::F32), (DType::F32, DType::F32)] {
            let ours = cast(&shim("cast", device()), n, from, to).map_err(|e| e.to_string())?;
            if ours != cast(&Device::Cpu, n, from, to).expect("the CPU does not fail") {
                return Err(format!("{n} {from} to {to}"));
            }
        }
    }
    Ok(())
}

#[test]
fn casts_round_as_on_the_cpu() {
    check_casts(|| Shim::device(Order::Shuffled)).unwrap_or_else(|e| panic!("{e}"));
    let faults = [
        ("i < (unsigned)n; i++", "i + 1 < (unsigned)n; i++"),
        ("end <= (unsigned)n)", "end <= (unsigned)n + 4)"),
        ("convert_pack<1>(from + i, want, to + i)", "convert_pack<1>(from + i, WRITE, to + i)"),
    ];
    let found = faults.map(|(find, replace)| {
        let fault = Fault { file: "cast", find, replace };
        ("cast", fault, check_casts(|| Shim::faulty(Order::Forward, fault)))
    });
    report(found.into());
}
