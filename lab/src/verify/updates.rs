//! In-place updates, which have no cases: several steps of each on their own test numbers.

use super::cases::{Pass, on_host};
use engine::eager::{apply, stored_as};
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Result, Spec, Update};
use kernels::adamw::{self, AdamW, SquaredNorm};
use kernels::case::{Fill, Input};
use kernels::latents::{LatentDraw, LatentInit, LatentStep, Noise, Renewal, Rule};
use kernels::muon::Muon;
use kernels::ring_attention::RingWrite;
use kernels::sgd::Sgd;

/// An update, with the indices of its inputs and its state.
type Step = (Box<dyn Update>, Vec<usize>, Vec<usize>);

/// Updates that run one after the other on the same buffers.
#[derive(Debug)]
pub struct Script {
    /// The folder of the updates.
    pub room: &'static str,
    /// The buffers of all steps, floats as f64.
    buffers: Vec<Buffer>,
    /// Each step, with the indices of the buffers that it reads and of those that it changes.
    steps: Vec<Step>,
}

impl Script {
    /// Adds a buffer, and returns its index.
    fn push(&mut self, buffer: Buffer) -> usize {
        self.buffers.push(buffer);
        self.buffers.len() - 1
    }

    /// All buffers after all steps, as the only pass. Floats are stored as `float`.
    ///
    /// # Errors
    /// If the device lacks the memory, or has failed.
    pub fn run(&self, device: &Device, float: DType) -> Result<Vec<Pass>> {
        let place = |b| stored_as(float, b).to_device(device);
        let mut buffers = self.buffers.iter().map(place).collect::<Result<Vec<Buffer>>>()?;
        for (update, ins, state) in &self.steps {
            let mut changed: Vec<Buffer> = state.iter().map(|&i| std::mem::take(&mut buffers[i])).collect();
            let read: Vec<&Buffer> = ins.iter().map(|&i| &buffers[i]).collect();
            apply(device, &**update, &read, &mut changed)?;
            state.iter().zip(changed).for_each(|(&i, b)| buffers[i] = b);
        }
        Ok(vec![Pass { what: "state".into(), is_backward: false, buffers: on_host(buffers)? }])
    }
}

fn normals(dims: &[usize], site: u32, std: f64) -> Buffer {
    Input::new(dims, Fill::Normal { mean: 0.0, std }).buffer(DType::F64, Stream::new(3, site))
}

fn ints(x: &[i32]) -> Buffer {
    Buffer::from_slice(&[x.len()], x)
}

/// Two parameters for three steps; more than one block of the norm, and clipping unless gradients are small.
fn slow_learning(std: f64) -> Script {
    let sizes = [8192 + 21, 7];
    let norms = Buffer::from_f64(DType::F64, &[2], &[f64::NAN; 2]);
    let mut script = Script { room: "adamw", buffers: vec![norms], steps: vec![] };
    let parameters = sizes.map(|n| {
        let site = script.buffers.len() as u32;
        let moment = || Buffer::new(Spec::new(DType::F64, &[n]));
        [normals(&[n], site, 1.0), moment(), moment()].map(|buffer| script.push(buffer))
    });
    for t in 1..=3 {
        let grads = sizes.map(|n| script.push(normals(&[n], 100 * t + n as u32, std)));
        for (index, &grad) in grads.iter().enumerate() {
            script.steps.push((Box::new(SquaredNorm { index }), vec![grad], vec![0]));
        }
        let schedule = script.push(Buffer::from_f64(DType::F64, &[2], &[0.25, f64::from(t)]));
        for (grad, parameter) in grads.into_iter().zip(parameters) {
            let rule = adamw::Rule { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
            let step = AdamW { rule, clip: 1.0 };
            script.steps.push((Box::new(step), vec![grad, 0, schedule], parameter.to_vec()));
        }
    }
    script
}

/// Two steps of Muon on a matrix of `blocks` blocks; on a wide one, a block has more numbers than a piece. Its gradient is
/// clipped to a third.
fn orthogonal_learning([rows, cols, blocks]: [usize; 3], std: f64) -> Script {
    let norms = Buffer::from_f64(DType::F64, &[2], &[4.0, 5.0]);
    let momentum = Buffer::new(Spec::new(DType::F64, &[rows, cols]));
    let mut script = Script { room: "muon", buffers: vec![norms], steps: vec![] };
    let state = [normals(&[rows, cols], 1, 1.0), momentum].map(|buffer| script.push(buffer));
    for t in 1..=2 {
        let grad = script.push(normals(&[rows, cols], 10 + t, std));
        let schedule = script.push(Buffer::from_f64(DType::F64, &[2], &[0.25, f64::from(t)]));
        let muon = Muon { blocks, weight_decay: 0.1, clip: 1.0 };
        script.steps.push((Box::new(muon), vec![grad, 0, schedule], state.to_vec()));
    }
    script
}

/// Three steps of stochastic gradient descent.
fn descent(sgd: Sgd) -> Script {
    let n = 1027;
    let norms = Buffer::from_f64(DType::F64, &[2], &[4.0, 5.0]);
    let mut script = Script { room: "sgd", buffers: vec![norms], steps: vec![] };
    let mut state = vec![script.push(normals(&[n], 1, 1.0))];
    if sgd.momentum > 0.0 {
        state.push(script.push(Buffer::new(Spec::new(DType::F64, &[n]))));
    }
    for t in 1..=3 {
        let grad = script.push(normals(&[n], 10 + t, 1.0));
        let schedule = script.push(Buffer::from_f64(DType::F64, &[2], &[0.25, f64::from(t)]));
        script.steps.push((Box::new(sgd), vec![grad, 0, schedule], state.clone()));
    }
    script
}

/// Init, three fast steps and a draw. Samples have several pieces, complete and partial, and some have rows without
/// packs.
fn fast_learning(noise: Noise, is_given: bool, rule: Rule, [b, s, d]: [usize; 3]) -> Script {
    let tensor = || Buffer::from_f64(DType::F64, &[b, s, d], &vec![f64::NAN; b * s * d]);
    let mut buffers: Vec<Buffer> = (0..8).map(|_| tensor()).collect();
    buffers.extend([Buffer::from_f64(DType::F64, &[b], &vec![f64::NAN; b]), ints(&[-1, 6])]);
    let mut script = Script { room: "latents", buffers, steps: vec![] };
    let state: Vec<usize> = (0..10).collect();
    let samples = script.push(ints(&[4, 9, 2][..b]));
    let rates = script.push(Buffer::from_f64(DType::F64, &[3], &[0.5, 0.25, 0.125]));
    let table = if is_given { vec![script.push(normals(&[2, b, s, d], 7, 1.0))] } else { vec![] };
    let init = LatentInit { noise, logvar: -1.5, logvar_std: 0.25 };
    script.steps.push((Box::new(init), [&[samples][..], &table].concat(), state.clone()));
    for t in 0..3 {
        let d_z = script.push(normals(&[b, s, d], 20 + t, 1.0));
        let ins = [&[d_z, rates, samples][..], &table].concat();
        script.steps.push((Box::new(LatentStep { noise, rule }), ins, state.clone()));
    }
    let number = script.push(ints(&[5]));
    let drawn = vec![script.push(tensor()), script.push(tensor()), 8];
    script.steps.push((Box::new(LatentDraw { seed: 17 }), vec![0, 1, samples, number], drawn));
    script
}

/// Five tokens into a ring of three slots.
fn ring(d: usize) -> Script {
    let ring = normals(&[2, 3, 2 * d], 1, 1.0);
    let mut script = Script { room: "ring_attention", buffers: vec![ring], steps: vec![] };
    for t in 0..5 {
        let (qkv, position) = (normals(&[2, 1, 3 * d], 2 + t as u32, 1.0), ints(&[t]));
        let ins = vec![script.push(qkv), script.push(position)];
        script.steps.push((Box::new(RingWrite), ins, vec![0]));
    }
    script
}

/// Every update, with all its options.
pub fn scripts() -> Vec<Script> {
    let mut all = vec![slow_learning(1.0), slow_learning(1e-3)];
    let adamw = Rule::AdamW(adamw::Rule { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 });
    for renewal in [Renewal::Fresh, Renewal::Antithetic, Renewal::Fixed] {
        for is_given in [false, true] {
            let noise = Noise { seed: 17, renewal };
            for rule in [adamw, Rule::Natural { beta: 0.6 }] {
                all.extend([[3, 3, 5], [2, 4, 300]].map(|sizes| fast_learning(noise, is_given, rule, sizes)));
            }
        }
    }
    let matrices = [([26, 640, 2], 1.0), ([93, 9, 3], 1.0), ([7, 7, 1], 0.0)];
    all.extend(matrices.map(|(sizes, std)| orthogonal_learning(sizes, std)));
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        all.push(descent(Sgd { momentum, nesterov, weight_decay: 0.1, clip: 1.0 }));
    }
    all.extend([ring(5), ring(300)]);
    all
}
