//! The measured work: the ops' cases at a configuration's sizes, in the passes that training uses.

use crate::plan::Plans;
use autograd::Phase;
use engine::rng::Stream;
use engine::{Buffer, Context, Cost, DType, Device, Pass, Result, Spec, Want};
use kernels::case::{Case, Input, Sizes};
use kernels::registry::ROOMS;
use ltm::config::Config;
use std::sync::Arc;

/// An op's case in one pass.
#[derive(Clone, Debug)]
pub struct Work {
    /// The op's folder.
    pub room: &'static str,
    /// Op and case, e.g. `linear: gate and up`.
    pub case: String,
    /// The pass, with the inputs whose gradients are computed, e.g. `backward to x`; `+x` is added to its buffer.
    pub name: String,
    /// FLOPs and least bytes.
    pub cost: Cost,
    inputs: Arc<Case>,
    /// The want for each input; empty for the forward pass.
    wants: Vec<Want>,
    is_fused: bool,
}

impl Work {
    fn new(room: &'static str, case: &Arc<Case>, pass: Pass, dtype: DType) -> Self {
        let (kind, wants): (&str, &[Want]) = match pass {
            Pass::Forward => ("forward", &[]),
            Pass::Vjp(wants) => ("backward to ", wants),
            Pass::Fused(wants) => ("fused to ", wants),
        };
        let wanted = case.op.arguments().iter().zip(wants).filter(|(_, want)| want.is_wanted());
        let wanted = wanted.map(|(name, want)| if *want == Want::Add { format!("+{name}") } else { name.to_string() });
        Self {
            room,
            case: format!("{}: {}", case.op.name(), case.label),
            name: format!("{kind}{}", wanted.collect::<Vec<_>>().join(", ")),
            cost: case.op.cost(&case.specs(dtype), pass),
            inputs: case.clone(),
            wants: wants.to_vec(),
            is_fused: matches!(pass, Pass::Fused(_)),
        }
    }

    /// The op's name.
    pub fn op(&self) -> &'static str {
        self.inputs.op.name()
    }

    /// The pass.
    pub fn pass(&self) -> Pass<'_> {
        match &self.wants[..] {
            [] => Pass::Forward,
            wants if self.is_fused => Pass::Fused(wants),
            wants => Pass::Vjp(wants),
        }
    }
}

/// All work at a resolved configuration's sizes: each case forward, and in the backward and fused passes that the plans
/// of training use.
///
/// # Errors
/// If the configuration contradicts itself.
pub fn works(config: &Config, dtype: DType) -> Result<Vec<Work>> {
    let m = &config.model;
    let sizes = Sizes {
        batch: config.train.batch,
        tokens: m.seq,
        heads: m.heads,
        head_dim: m.head_dim(),
        window: m.window,
        latents: m.latents,
        ffn: m.ffn_hidden(),
        vocab: m.vocab,
    };
    let plans = Plans::new(config, &Device::CPU)?;
    let asked: Vec<(&str, Pass, Cost)> =
        plans.all().flat_map(|(_, plan)| Phase::ALL.into_iter().flat_map(|phase| plan.passes(phase))).collect();
    let mut all: Vec<Work> = Vec::new();
    for room in ROOMS {
        let cases: Vec<Arc<Case>> = (room.cases)(&sizes).into_iter().map(Arc::new).collect();
        // An instruction belongs to a case if it has the same cost. A folder whose cases have different sizes (`slice`)
        // takes all.
        let costs_same = |case: &Case, pass: Pass, cost: Cost| case.op.cost(&case.specs(DType::F32), pass) == cost;
        let of_op = |case: &Arc<Case>| {
            let name = case.op.name();
            asked.iter().filter(move |(op, ..)| *op == name)
        };
        let exact = cases.iter().any(|case| of_op(case).any(|&(_, pass, cost)| costs_same(case, pass, cost)));
        for case in &cases {
            let asked = of_op(case).filter(|&&(_, pass, cost)| !exact || costs_same(case, pass, cost));
            for pass in std::iter::once(Pass::Forward).chain(asked.map(|&(_, pass, _)| pass)) {
                let work = Work::new(room.name, case, pass, dtype);
                if !all.iter().any(|known| (&known.case, &known.name) == (&work.case, &work.name)) {
                    all.push(work);
                }
            }
        }
    }
    Ok(all)
}

/// No op has more inputs or outputs than this.
const MOST: usize = 8;

static EMPTY: Buffer = Buffer::empty();

/// A case with the buffers of its passes, on a device.
#[derive(Debug)]
pub struct Bench<'a> {
    work: &'a Work,
    device: Device,
    ins: Vec<Buffer>,
    outs: Vec<Buffer>,
    d_out: Buffer,
    d_ins: Vec<Buffer>,
    scratch: Buffer,
}

impl<'a> Bench<'a> {
    /// Draws the inputs, and runs forward once to compute what the VJP reads.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn new(work: &'a Work, dtype: DType, device: &Device) -> Result<Self> {
        let (case, op) = (&work.inputs, &work.inputs.op);
        let specs = case.specs(dtype);
        let new = |spec: Spec| Buffer::new_on(device, spec);
        let ins = case.buffers(dtype, 1).iter().map(|b| b.to_device(device)).collect::<Result<_>>()?;
        let outs = op.infer(&specs)?.iter().map(|out| new(out.spec)).collect::<Result<Vec<_>>>()?;
        let result = outs[0].spec();
        let d_out = Input::normal(result.shape.dims()).buffer(result.dtype, Stream::new(2, 0));
        let d_ins = specs.iter().enumerate().map(|(i, &spec)| match work.wants.get(i) {
            Some(want) if want.is_wanted() => new(spec),
            _ => Ok(Buffer::empty()),
        });
        let scratch = [Pass::Forward, work.pass()].map(|pass| op.scratch(device, &specs, pass));
        let mut bench = Self {
            work,
            device: device.clone(),
            ins,
            outs,
            d_out: d_out.to_device(device)?,
            d_ins: d_ins.collect::<Result<_>>()?,
            scratch: Buffer::with_capacity_on(device, scratch[0].max(scratch[1]))?,
        };
        bench.pass(Pass::Forward);
        Ok(bench)
    }

    /// Runs the work.
    pub fn run(&mut self) {
        self.pass(self.work.pass());
    }

    fn pass(&mut self, pass: Pass) {
        let Self { work, device, ins, outs, d_out, d_ins, scratch } = self;
        let op = &work.inputs.op;
        let mut cx = Context { device, scratch };
        let (all, count) = (lend(ins, u16::MAX), ins.len());
        match pass {
            Pass::Forward => op.forward(&mut cx, &all[..count], outs),
            Pass::Fused(wants) => op.forward_vjp(&mut cx, wants, &all[..count], outs, d_ins),
            Pass::Vjp(wants) => {
                let reads = op.reads(wants);
                let (lent_ins, lent_outs) = (lend(ins, reads.ins), lend(outs, reads.outs));
                op.vjp(&mut cx, wants, &lent_ins[..count], &lent_outs[..outs.len()], d_out, d_ins);
            }
        }
    }
}

/// The buffers that are read, and empty buffers in place of the others.
fn lend(buffers: &[Buffer], read: u16) -> [&Buffer; MOST] {
    std::array::from_fn(|i| match buffers.get(i) {
        Some(buffer) if read & 1 << i != 0 => buffer,
        _ => &EMPTY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::preset("tiny").unwrap();
        config.set_all("model.dim=24 model.heads=2 model.seq=40 model.window=8 train.batch=1").unwrap();
        config.resolved().unwrap()
    }

    #[test]
    fn every_room_is_there_with_the_gradients_that_training_wants() {
        let works = works(&config(), DType::F32).unwrap();
        for room in ROOMS {
            assert!(works.iter().any(|w| w.room == room.name && w.name == "forward"), "{}", room.name);
        }
        let passes =
            |case: &str| -> Vec<&str> { works.iter().filter(|w| w.case == case).map(|w| w.name.as_str()).collect() };
        assert_eq!(passes("linear: gate and up"), ["forward", "backward to x", "backward to x, w"]);
        assert_eq!(passes("linear: logits of one token"), ["forward"], "no part of training");
        assert_eq!(
            passes("lm_head: all tokens"),
            ["forward", "fused to hidden", "fused to hidden, table"],
            "the head never runs backward alone"
        );
        assert!(passes("slice: first layer").len() > 1, "a case of other sizes than the plan's");
    }

    #[test]
    fn a_bench_computes_what_its_cost_says() {
        for work in works(&config(), DType::F32).unwrap() {
            let mut bench = Bench::new(&work, DType::F32, &Device::CPU).unwrap();
            bench.d_ins.iter_mut().filter(|d| !d.is_empty()).for_each(Buffer::clear);
            bench.run();
            for (d, want) in bench.d_ins.iter().zip(&work.wants) {
                assert_eq!(d.is_empty(), !want.is_wanted(), "{work:?}");
                assert!(d.is_empty() || d.to_f64().iter().any(|x| *x != 0.0), "{work:?} computes nothing");
            }
        }
    }
}
