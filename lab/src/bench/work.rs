//! What is measured: the rooms' cases at a configuration's sizes, in the passes that training asks for.

use crate::plan::Plans;
use autograd::Phase;
use engine::rng::Stream;
use engine::{Buffer, Context, Cost, DType, Device, Op, Pass, Result, Spec, Want};
use kernels::case::{Case, Fill, Input, Sizes};
use kernels::registry::ROOMS;
use ltm::config::Config;

/// A [`Pass`] that owns its wants; without any it is the forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPass {
    /// What is wanted of each input.
    pub wants: Vec<Want>,
    /// Whether forward and VJP are one.
    is_fused: bool,
}

impl OwnedPass {
    fn of(pass: Pass) -> Self {
        let (wants, is_fused): (&[Want], bool) = match pass {
            Pass::Forward => (&[], false),
            Pass::Vjp(wants) => (wants, false),
            Pass::Fused(wants) => (wants, true),
        };
        Self { wants: wants.to_vec(), is_fused }
    }

    /// The same, borrowed.
    pub fn get(&self) -> Pass<'_> {
        match &self.wants[..] {
            [] => Pass::Forward,
            wants if self.is_fused => Pass::Fused(wants),
            wants => Pass::Vjp(wants),
        }
    }

    /// `forward`, or the gradients with their inputs' names; `+x` is added to what is there.
    fn name(&self, arguments: &[&str]) -> String {
        let (what, wants) = match self.get() {
            Pass::Forward => return "forward".into(),
            Pass::Vjp(wants) => ("backward", wants),
            Pass::Fused(wants) => ("both in one", wants),
        };
        let names = arguments.iter().zip(wants).filter(|(_, w)| w.is_wanted());
        let names = names.map(|(name, w)| if *w == Want::Add { format!("+{name}") } else { name.to_string() });
        format!("{what} to {}", names.collect::<Vec<_>>().join(", "))
    }
}

/// An op's case in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The op's room.
    pub room: &'static str,
    /// Op and case, e.g. `linear: gate and up`.
    pub case: String,
    /// The pass, with the inputs whose gradients are computed, e.g. `backward to x`.
    pub name: String,
    /// The pass.
    pub pass: OwnedPass,
    /// FLOPs and least bytes.
    pub cost: Cost,
    /// Place among the room's cases.
    index: usize,
}

impl Work {
    /// The op's name.
    pub fn op(&self) -> &str {
        self.case.split_once(':').map_or(&self.case, |(op, _)| op)
    }
}

/// The sizes that a configuration gives its ops.
pub fn sizes(config: &Config) -> Sizes {
    let m = &config.model;
    Sizes {
        batch: config.train.batch,
        tokens: m.seq,
        heads: m.heads,
        head_dim: m.head_dim(),
        window: m.window,
        latents: m.latents,
        ffn: m.ffn_hidden(),
        vocab: m.vocab,
    }
}

/// Everything there is to measure at a resolved configuration's sizes: each case forward, and in the backward and fused
/// passes that the plans of training ask its op for.
///
/// # Errors
/// If the configuration contradicts itself.
pub fn works(config: &Config, dtype: DType) -> Result<Vec<Work>> {
    let asked = asked(config)?;
    let sizes = sizes(config);
    let mut all = Vec::new();
    for room in ROOMS {
        let cases = (room.cases)(&sizes);
        // An instruction is a case's if it costs the same. A room whose cases have sizes of their own (`slice`) takes all.
        let fits =
            |case: &Case, pass: &OwnedPass, cost: Cost| case.op.cost(&case.specs(DType::F32), pass.get()) == cost;
        let same = |case: &Case, a: &Asked| a.op == case.op.name() && fits(case, &a.pass, a.cost);
        let exact = cases.iter().any(|case| asked.iter().any(|a| same(case, a)));
        for (index, case) in cases.iter().enumerate() {
            let mut passes = vec![OwnedPass::of(Pass::Forward)];
            for a in asked.iter().filter(|a| a.op == case.op.name() && (!exact || same(case, a))) {
                if !passes.contains(&a.pass) {
                    passes.push(a.pass.clone());
                }
            }
            all.extend(passes.into_iter().map(|pass| Work {
                room: room.name,
                case: format!("{}: {}", case.op.name(), case.label),
                name: pass.name(case.op.arguments()),
                cost: case.op.cost(&case.specs(dtype), pass.get()),
                pass,
                index,
            }));
        }
    }
    Ok(all)
}

/// What a plan asks an op for.
struct Asked {
    op: &'static str,
    pass: OwnedPass,
    cost: Cost,
}

/// What the plans of training ask for.
fn asked(config: &Config) -> Result<Vec<Asked>> {
    let plans = Plans::new(config, &Device::Cpu)?;
    let passes = plans.all().flat_map(|(_, plan)| Phase::ALL.into_iter().flat_map(|phase| plan.passes(phase)));
    Ok(passes.map(|(op, pass, cost)| Asked { op, pass: OwnedPass::of(pass), cost }).collect())
}

/// No op has more inputs or outputs than this.
const MOST: usize = 8;

static EMPTY: Buffer = Buffer::empty();

/// A case with everything that its passes need, on a device.
#[derive(Debug)]
pub struct Bench {
    op: Box<dyn Op>,
    device: Device,
    ins: Vec<Buffer>,
    outs: Vec<Buffer>,
    d_out: Buffer,
    d_ins: Vec<Buffer>,
    scratch: Buffer,
}

impl Bench {
    /// Draws the inputs, and runs forward once so that what the VJP reads is there.
    ///
    /// # Errors
    /// If the device has no room.
    ///
    /// # Panics
    /// If the work is none of [`works`] at this configuration.
    pub fn new(work: &Work, config: &Config, dtype: DType, device: &Device) -> Result<Self> {
        let room = ROOMS.iter().find(|room| room.name == work.room).expect("a room of the registry");
        let case = (room.cases)(&sizes(config)).swap_remove(work.index);
        let specs = case.specs(dtype);
        let ins: Result<Vec<Buffer>> = case.buffers(dtype, 1).iter().map(|b| b.to_device(device)).collect();
        let op = case.op;
        let new = |spec: &Spec| Buffer::new_on(device, *spec);
        let outs: Result<Vec<Buffer>> = op.infer(&specs)?.iter().map(|out| new(&out.spec)).collect();
        let outs = outs?;
        let (result, wants) = (outs[0].spec(), &work.pass.wants);
        let d_out = Input::new(result.shape.dims(), Fill::NORMAL).buffer(result.dtype, Stream::new(2, 0));
        let d_ins = specs.iter().enumerate().map(|(i, spec)| match wants.get(i) {
            Some(want) if want.is_wanted() => new(spec),
            _ => Ok(Buffer::empty()),
        });
        let passes = [Pass::Forward, work.pass.get()];
        let scratch = passes.iter().map(|&pass| op.scratch(device, &specs, pass)).max().unwrap_or(0);
        let mut bench = Self {
            ins: ins?,
            outs,
            d_out: d_out.to_device(device)?,
            d_ins: d_ins.collect::<Result<_>>()?,
            scratch: Buffer::with_capacity_on(device, scratch)?,
            device: device.clone(),
            op,
        };
        bench.run(Pass::Forward);
        Ok(bench)
    }

    /// Runs a pass: forward, or the one that this was made for.
    pub fn run(&mut self, pass: Pass) {
        let Self { op, device, ins, outs, d_out, d_ins, scratch } = self;
        let mut cx = Context { device, scratch };
        let (all, count) = (lend(ins, u16::MAX), ins.len());
        match pass {
            Pass::Forward => op.forward(&mut cx, &all[..count], outs),
            Pass::Fused(wants) => op.forward_vjp(&mut cx, wants, &all[..count], outs, d_ins),
            Pass::Vjp(wants) => {
                let reads = op.reads(wants);
                let (lent_ins, lent_outs) = (lend(ins, reads.ins), lend(outs, reads.outs));
                op.vjp(&mut cx, wants, &lent_ins[..ins.len()], &lent_outs[..outs.len()], d_out, d_ins);
            }
        }
    }
}

/// The buffers that are read, and empty ones in the place of the others.
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
        for (key, value) in [("model.dim", "24"), ("model.heads", "2"), ("model.seq", "40"), ("model.window", "8")] {
            config.set(key, value).unwrap();
        }
        config.train.batch = 1;
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
            ["forward", "both in one to hidden", "both in one to hidden, table"],
            "the head never runs backward alone"
        );
        assert!(passes("slice: first layer").len() > 1, "a case of other sizes than the plan's");
    }

    #[test]
    fn a_bench_computes_what_its_cost_says() {
        let config = config();
        for work in works(&config, DType::F32).unwrap() {
            let mut bench = Bench::new(&work, &config, DType::F32, &Device::Cpu).unwrap();
            bench.d_ins.iter_mut().filter(|d| !d.is_empty()).for_each(Buffer::clear);
            bench.run(work.pass.get());
            for (d, want) in bench.d_ins.iter().zip(&work.pass.wants) {
                assert_eq!(d.is_empty(), !want.is_wanted(), "{work:?}");
                assert!(d.is_empty() || d.to_f64().iter().any(|x| *x != 0.0), "{work:?} computes nothing");
            }
        }
    }
}
