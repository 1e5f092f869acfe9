//! Updates in place and the cast, which have no cases: several steps on the shim against the CPU in f64.

use crate::bits;
use autograd::gradcheck::Bench;
use engine::cuda::Module;
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Want};
use kernels::cast::Cast;
use kernels::registry::modules;
use lab::verify::{Script, relative_error, scripts};
use tests::shim::{Fault, Order, Shim};

/// What is wrong on a device with threads in any order.
fn check(script: &Script, device: impl Fn(Order) -> Device) -> Result<(), String> {
    let exact = script.run(&Device::Cpu, DType::F64);
    let mut first = None;
    for order in Order::ALL {
        let ours = script.run(&device(order), DType::F32);
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

fn loaded(device: Device, room: &str) -> Device {
    let Device::Cuda(gpu) = &device else { unreachable!("the shim is a GPU") };
    let modules: Vec<&'static Module> = modules().into_iter().filter(|m| m.name == room).collect();
    gpu.load(&modules).unwrap_or_else(|e| panic!("{room}: {e}"));
    device
}

#[test]
fn updates_agree_with_their_cpu_code() {
    for script in scripts().iter().filter(|script| crate::chosen(script.room)) {
        check(script, |order| loaded(Shim::device(order), script.room))
            .unwrap_or_else(|e| panic!("{}: {e}", script.room));
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
    for &[room, find, replace] in FAULTS.iter().filter(|[room, ..]| crate::chosen(room)) {
        let fault = Fault { file: room, find, replace };
        let found = scripts().iter().filter(|script| script.room == room).find_map(|script| {
            let attempt = || check(script, |order| loaded(Shim::faulty(order, fault), room));
            crate::or_panic(attempt).err()
        });
        let found = found.unwrap_or_else(|| panic!("nobody noticed {replace:?} in the place of {find:?}"));
        // Neither one that the compiler finds, nor one that was never made.
        assert!(!found.contains("g++"), "not a mistake that compiles: {found}");
        println!("{room}: {replace:?} is found: {found}");
    }
}

/// What is wrong with a cast's results and gradients, if anything. Rounding is exact, so all bits are the CPU's.
fn check_casts(device: impl Fn() -> Device) -> Result<(), String> {
    for n in [1, 7, 8, 2059] {
        for (from, to) in [(DType::F32, DType::Bf16), (DType::Bf16, DType::F32), (DType::F32, DType::F32)] {
            let numbers = |dtype, site| {
                let mut x = vec![0.0; n];
                Stream::new(3, site).fill_normal(&mut x, |x| x);
                Buffer::from_f64(dtype, &[n], &x)
            };
            let (x, d_y, d_x) = (numbers(from, 1), numbers(to, 2), numbers(from, 3));
            let run = |device: &Device| {
                let op = Cast { to };
                let mut bench = Bench::on(device, &op, std::slice::from_ref(&x));
                let mut all = bench.forward(std::slice::from_ref(&x));
                for want in [Want::Write, Want::Add] {
                    all.extend(bench.vjp(&[want], std::slice::from_ref(&x), &[], &d_y, std::slice::from_ref(&d_x)));
                }
                bits(&all)
            };
            if crate::or_panic(|| Ok(run(&device())))? != run(&Device::Cpu) {
                return Err(format!("{n} {from} to {to}"));
            }
        }
    }
    Ok(())
}

#[test]
fn casts_round_as_on_the_cpu() {
    check_casts(|| loaded(Shim::device(Order::Shuffled), "cast")).unwrap_or_else(|e| panic!("{e}"));
    for (find, replace) in [
        ("i < (unsigned)n; i++", "i + 1 < (unsigned)n; i++"),
        ("end <= (unsigned)n)", "end <= (unsigned)n + 4)"),
        ("convert_pack<1>(from + i, want, to + i)", "convert_pack<1>(from + i, WRITE, to + i)"),
    ] {
        let fault = Fault { file: "cast", find, replace };
        let found = check_casts(|| loaded(Shim::faulty(Order::Forward, fault), "cast"));
        let found = found.expect_err(&format!("nobody noticed {replace:?} in the place of {find:?}"));
        assert!(!found.contains("g++"), "not a mistake that compiles: {found}");
    }
}
