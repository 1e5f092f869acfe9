//! Updates in place and the cast, which have no cases: several steps on the shim against the CPU in f64.

use crate::{bits, relative_error};
use autograd::gradcheck::Bench;
use engine::cuda::Module;
use engine::rng::Stream;
use engine::{Buffer, Context, DType, Device, Spec, Update, Want};
use kernels::adamw::{AdamW, SquaredNorm};
use kernels::cast::Cast;
use kernels::latents::{LatentAdamW, LatentDraw, LatentInit, LatentNatural, Noise, Redraw, Source};
use kernels::registry::modules;
use kernels::ring_attention::RingWrite;
use tests::shim::{Fault, Order, Shim};

/// An update, its inputs and its state, by their places.
type Step = (Box<dyn Update>, Vec<usize>, Vec<usize>);

/// Updates that run one after the other on the same buffers.
struct Script {
    /// What all steps work on, floats as f64.
    buffers: Vec<Buffer>,
    /// Each step, with the numbers of the buffers that it reads and of those that it changes.
    steps: Vec<Step>,
}

impl Script {
    /// The buffers after all steps.
    fn run(&self, device: &Device, float: DType) -> Vec<Buffer> {
        let place = |b: &Buffer| {
            let dtype = if b.dtype() == DType::I32 { DType::I32 } else { float };
            Buffer::from_f64(dtype, b.shape().dims(), &b.to_f64()).to_device(device).expect("room")
        };
        let mut buffers: Vec<Buffer> = self.buffers.iter().map(place).collect();
        for (update, ins, state) in &self.steps {
            let specs = |ids: &[usize]| ids.iter().map(|&i| buffers[i].spec()).collect::<Vec<Spec>>();
            let bytes = update.scratch(device, &specs(ins), &specs(state));
            let mut scratch = Buffer::new_on(device, Spec::new(DType::F32, &[bytes.div_ceil(4)])).expect("room");
            scratch.set_f64(&vec![f64::NAN; scratch.len()]);
            let mut changed: Vec<Buffer> = state.iter().map(|&i| std::mem::take(&mut buffers[i])).collect();
            let read: Vec<&Buffer> = ins.iter().map(|&i| &buffers[i]).collect();
            update.apply(&mut Context { device, scratch: &mut scratch }, &read, &mut changed);
            state.iter().zip(changed).for_each(|(&i, b)| buffers[i] = b);
        }
        buffers.iter().map(|b| b.on_host().into_owned()).collect()
    }

    /// What is wrong on a device with threads in any order.
    fn check(&self, device: impl Fn(Order) -> Device) -> Result<(), String> {
        let exact = self.run(&Device::Cpu, DType::F64);
        let mut first = None;
        for order in Order::ALL {
            let ours = self.run(&device(order), DType::F32);
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
}

fn normals(dims: &[usize], site: u32, std: f64) -> Buffer {
    let mut x = vec![0.0; dims.iter().product()];
    Stream::new(3, site).fill_normal(&mut x, |x| f64::from((std * x) as f32));
    Buffer::from_f64(DType::F64, dims, &x)
}

fn ints(x: &[i32]) -> Buffer {
    Buffer::from_slice(&[x.len()], x)
}

/// Two parameters for three steps; more than one block of the norm, and clipping unless gradients are small.
fn slow_learning(std: f64) -> Script {
    let sizes = [8192 + 21, 7];
    let mut script = Script { buffers: vec![Buffer::from_f64(DType::F64, &[2], &[f64::NAN; 2])], steps: vec![] };
    let parameters: Vec<[usize; 3]> = sizes
        .iter()
        .map(|&n| {
            let first = script.buffers.len();
            script.buffers.push(normals(&[n], first as u32, 1.0));
            script.buffers.extend([0, 1].map(|_| Buffer::new(Spec::new(DType::F64, &[n]))));
            [first, first + 1, first + 2]
        })
        .collect();
    for t in 1..=3 {
        let grads: Vec<usize> =
            sizes.iter().map(|&n| push(&mut script, normals(&[n], 100 * t + n as u32, std))).collect();
        for (index, &grad) in grads.iter().enumerate() {
            script.steps.push((Box::new(SquaredNorm { index }), vec![grad], vec![0]));
        }
        let schedule = push(&mut script, Buffer::from_f64(DType::F64, &[2], &[0.25, f64::from(t)]));
        for (grad, parameter) in grads.into_iter().zip(&parameters) {
            let adamw = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
            script.steps.push((Box::new(adamw), vec![grad, 0, schedule], parameter.to_vec()));
        }
    }
    script
}

fn push(script: &mut Script, buffer: Buffer) -> usize {
    script.buffers.push(buffer);
    script.buffers.len() - 1
}

/// How fast steps move the posterior.
#[derive(Clone, Copy)]
enum Posterior {
    AdamW,
    Natural,
}

/// Start, three fast steps and a draw. Samples of several pieces, whole and cut, and ones whose rows have no packs.
fn fast_learning(noise: Noise, posterior: Posterior, [b, s, d]: [usize; 3]) -> Script {
    let tensor = || Buffer::from_f64(DType::F64, &[b, s, d], &vec![f64::NAN; b * s * d]);
    let mut buffers: Vec<Buffer> = (0..8).map(|_| tensor()).collect();
    buffers.extend([Buffer::from_f64(DType::F64, &[b], &vec![f64::NAN; b]), ints(&[-1, 6])]);
    let mut script = Script { buffers, steps: vec![] };
    let state: Vec<usize> = (0..10).collect();
    let samples = push(&mut script, ints(&[4, 9, 2][..b]));
    let rates = push(&mut script, Buffer::from_f64(DType::F64, &[3], &[0.5, 0.25, 0.125]));
    let weight = push(&mut script, Buffer::from_f64(DType::F64, &[1], &[0.75]));
    let table = match noise.source {
        Source::Philox => vec![],
        Source::Table => vec![push(&mut script, normals(&[2, b, s, d], 7, 1.0))],
    };
    let init = LatentInit { noise, logvar: -1.5, logvar_std: 0.25 };
    script.steps.push((Box::new(init), [&[samples][..], &table].concat(), state.clone()));
    for t in 0..3 {
        let d_z = push(&mut script, normals(&[b, s, d], 20 + t, 1.0));
        let step: Box<dyn Update> = match posterior {
            Posterior::AdamW => {
                Box::new(LatentAdamW { noise, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 })
            }
            Posterior::Natural => Box::new(LatentNatural { noise, beta1: 0.6, beta2: 0.8, damping: 0.25 }),
        };
        script.steps.push((step, [&[d_z, rates, weight, samples][..], &table].concat(), state.clone()));
    }
    let number = push(&mut script, ints(&[5]));
    let drawn = vec![push(&mut script, tensor()), push(&mut script, tensor()), 8];
    script.steps.push((Box::new(LatentDraw { seed: 17 }), vec![0, 1, samples, number], drawn));
    script
}

/// Five tokens into a ring of three slots.
fn ring(d: usize) -> Script {
    let mut script = Script { buffers: vec![normals(&[2, 3, 2 * d], 1, 1.0)], steps: vec![] };
    for t in 0..5 {
        let (qkv, position) = (normals(&[2, 1, 3 * d], 2 + t as u32, 1.0), ints(&[t]));
        let ins = vec![push(&mut script, qkv), push(&mut script, position)];
        script.steps.push((Box::new(RingWrite), ins, vec![0]));
    }
    script
}

fn scripts() -> Vec<(&'static str, Script)> {
    let mut all = vec![("adamw", slow_learning(1.0)), ("adamw", slow_learning(1e-3))];
    for redraw in [Redraw::Fresh, Redraw::Fixed] {
        for source in [Source::Philox, Source::Table] {
            let noise = Noise { seed: 17, redraw, source };
            for posterior in [Posterior::AdamW, Posterior::Natural] {
                all.extend([[3, 3, 5], [2, 4, 300]].map(|sizes| ("latents", fast_learning(noise, posterior, sizes))));
            }
        }
    }
    all.extend([("ring_attention", ring(5)), ("ring_attention", ring(300))]);
    all
}

fn loaded(device: Device, room: &str) -> Device {
    let Device::Cuda(gpu) = &device else { unreachable!("the shim is a GPU") };
    let modules: Vec<&'static Module> = modules().into_iter().filter(|m| m.name == room).collect();
    gpu.load(&modules).unwrap_or_else(|e| panic!("{room}: {e}"));
    device
}

#[test]
fn updates_agree_with_their_cpu_code() {
    for (room, script) in scripts().into_iter().filter(|(room, _)| crate::chosen(room)) {
        script.check(|order| loaded(Shim::device(order), room)).unwrap_or_else(|e| panic!("{room}: {e}"));
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
        let found = scripts().into_iter().filter(|(name, _)| *name == room).find_map(|(_, script)| {
            let attempt = || script.check(|order| loaded(Shim::faulty(order, fault), room));
            crate::or_panic(attempt).err()
        });
        let found = found.unwrap_or_else(|| panic!("nobody noticed {replace:?} in the place of {find:?}"));
        assert!(!found.contains("g++"), "not a mistake that compiles: {found}");
        println!("{room}: {replace:?} is found: {found}");
    }
}

/// Rounding is exact, so all bits are the CPU's.
#[test]
fn casts_round_as_on_the_cpu() {
    for n in [1, 7, 8, 2059] {
        for (from, to) in [(DType::F32, DType::Bf16), (DType::Bf16, DType::F32), (DType::F32, DType::F32)] {
            let numbers = |dtype, site| Buffer::from_f64(dtype, &[n], &normals(&[n], site, 1.0).to_f64());
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
            assert!(run(&loaded(Shim::device(Order::Shuffled), "cast")) == run(&Device::Cpu), "{n} {from} to {to}");
        }
    }
}
