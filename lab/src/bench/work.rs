//! The measured work: the ops' cases at a configuration's sizes, in the passes that training uses.

use crate::plan::Plans;
use autograd::Phase;
use engine::{Buffer, Cost, DType, Device, Pass, Result, Want};
use kernels::case::{Case, Sizes};
use kernels::registry::ROOMS;
use ltm::config::Config;
use roofline::{Call, Recorder, Task, check};
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
    dtype: DType,
    /// Whether training runs the op.
    pub trains: bool,
    /// The want for each input; empty for the forward pass.
    wants: Vec<Want>,
    is_fused: bool,
}

impl Work {
    fn new(room: &'static str, case: &Arc<Case>, pass: Pass, dtype: DType, trains: bool) -> Self {
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
            dtype,
            trains,
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

    /// The row, with hot caches.
    pub fn task(&self) -> Task {
        Task::new(self.room, self.case.as_str(), self.name.as_str(), self.cost)
    }

    /// The inputs.
    fn ins(&self) -> Vec<Buffer> {
        self.inputs.buffers(self.dtype, 1)
    }

    /// The pass with inputs, ready to run.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn call(&self, device: &Device) -> Result<Call<'_>> {
        Call::new(&*self.inputs.op, self.pass(), &self.ins(), device)
    }

    /// Compares what the pass computes with the op in f64 on the CPU.
    ///
    /// # Errors
    /// If they differ, or the device fails.
    pub fn check(&self, device: &Device) -> Result<bool> {
        check(&*self.inputs.op, self.pass(), &self.ins(), device)
    }

    /// Measures one pass over this work, and checks it the first time.
    ///
    /// # Errors
    /// If it computes something else than in f64, or the device lacks the memory or has failed.
    pub fn record(&self, recorder: &mut Recorder) -> Result<()> {
        recorder.op(&self.task(), &*self.inputs.op, self.pass(), &self.ins())
    }
}

/// For a first look: of every op its most expensive case, forward and in its most expensive backward or fused pass.
pub fn dearest(works: &[Work]) -> Vec<&Work> {
    let mut chosen: Vec<&Work> = Vec::new();
    for work in works {
        let is_forward = |work: &Work| matches!(work.pass(), Pass::Forward);
        match chosen.iter_mut().find(|known| known.op() == work.op() && is_forward(known) == is_forward(work)) {
            Some(known) if known.cost.bytes < work.cost.bytes => *known = work,
            Some(_) => {}
            None => chosen.push(work),
        }
    }
    chosen
}

/// All work at a resolved configuration's sizes: each case forward, and in the backward and fused passes that the plans
/// of training use. An op that training does not use runs forward, and backward to all its inputs.
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
            let trains = of_op(case).next().is_some();
            let asked = of_op(case).filter(|&&(_, pass, cost)| !exact || costs_same(case, pass, cost));
            let mut passes: Vec<Pass> = std::iter::once(Pass::Forward).chain(asked.map(|&(_, pass, _)| pass)).collect();
            let want = |i| if case.op.differentiable(i) { Want::Write } else { Want::Skip };
            let wants: Vec<Want> = (0..case.ins.len()).map(want).collect();
            if !trains && wants.iter().any(|want| want.is_wanted()) {
                passes.push(Pass::Vjp(&wants));
            }
            for pass in passes {
                let work = Work::new(room.name, case, pass, dtype, trains);
                if !all.iter().any(|known| (&known.case, &known.name) == (&work.case, &work.name)) {
                    all.push(work);
                }
            }
        }
    }
    Ok(all)
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
        let trains = |op: &str| works.iter().filter(|work| work.op() == op).all(|work| work.trains);
        // The last two are generation's and GPT-2's.
        assert_eq!(["self_attention", "ring_attention", "layernorm"].map(trains), [true, false, false]);
    }

    #[test]
    fn work_computes_what_its_cost_says_and_what_it_does_in_f64() {
        for work in works(&config(), DType::F32).unwrap() {
            assert!(work.check(&Device::CPU).unwrap(), "{work:?} has no f64");
            let mut call = work.call(&Device::CPU).unwrap();
            call.run();
            for (i, d) in call.gradients().iter().enumerate() {
                assert_eq!(d.is_empty(), !work.pass().gives(i), "{work:?}");
                assert!(d.is_empty() || d.to_f64().iter().any(|x| *x != 0.0), "{work:?} computes nothing");
            }
        }
    }

    #[test]
    fn a_first_look_is_short_and_sees_every_op() {
        let works = works(&config(), DType::F32).unwrap();
        let chosen = dearest(&works);
        assert!(3 * chosen.len() < 2 * works.len(), "{} of {}", chosen.len(), works.len());
        assert!(works.iter().all(|work| chosen.iter().any(|c| c.op() == work.op())));
        assert!(chosen.iter().any(|c| (&c.case[..], &c.name[..]) == ("linear: gate and up", "backward to x, w")));
    }
}
