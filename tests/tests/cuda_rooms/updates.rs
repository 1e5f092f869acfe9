//! Updates in place and the cast, which have no cases: several steps on the shim against the CPU in f64.

use crate::bits;
use engine::rng::Stream;
use engine::{Bench, Buffer, DType, Device, Result, Want};
use kernels::cast::Cast;
use kernels::registry::modules;
use lab::verify::{Script, relative_error, scripts};
use tests::shim::{Order, loaded};

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

/// What is wrong with a room's updates.
pub fn check_all(room: &str, device: impl Fn(Order) -> Device) -> std::result::Result<(), String> {
    scripts().iter().filter(|script| script.room == room).try_for_each(|script| check(script, &device))
}

/// All results and gradients of a cast of `n` numbers.
fn cast(device: &Device, n: usize, from: DType, to: DType) -> Result<Vec<Vec<u8>>> {
    let numbers = |dtype, site| {
        let mut x = vec![0.0; n];
        Stream::new(3, site).fill_normal(&mut x, |x| x);
        [Buffer::from_f64(dtype, &[n], &x)]
    };
    let (x, [d_y], d_x) = (numbers(from, 1), numbers(to, 2), numbers(from, 3));
    let bench = Bench { device, op: &Cast { to } };
    let mut all = bench.forward(&x);
    for want in [Want::Write, Want::Add] {
        all.extend(bench.vjp(&[want], &x, &[], &d_y, &d_x));
    }
    all.iter().map(|buffer| Ok(buffer.on_host()?.as_bytes().to_vec())).collect()
}

/// What is wrong with a cast's results and gradients. Rounding is exact, so all bits are the CPU's.
pub fn check_casts(device: impl Fn(Order) -> Device) -> std::result::Result<(), String> {
    for n in [1, 7, 8, 2059] {
        for (from, to) in [(DType::F32, DType::Bf16), (DType::Bf16, DType::F32), (DType::F32, DType::F32)] {
            let exact = cast(&Device::Cpu, n, from, to).expect("the CPU does not fail");
            for order in Order::ALL {
                let ours = cast(&shim("cast", device(order)), n, from, to).map_err(|e| e.to_string())?;
                if ours != exact {
                    return Err(format!("{n} {from} to {to}"));
                }
            }
        }
    }
    Ok(())
}
