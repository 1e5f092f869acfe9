//! The printed plan: what runs when, at what cost, in which memory. FLOPs per token, memory and utilisation are quoted
//! from here and from nowhere else.

use crate::graph::Phase;
use crate::plan::{Call, Instr, Plan, Ref};
use engine::{Cost, Pass, Want};
use std::fmt;

impl Plan {
    /// FLOPs and least bytes of one run of a phase.
    pub fn cost(&self, phase: Phase) -> Cost {
        self.instrs.iter().filter(|i| i.phase == phase).map(|i| i.cost).sum()
    }

    /// Bytes of arena that the plan uses; its kept values and gradients come on top.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Bytes of the gradients and kept values that belong to this plan.
    pub fn own_bytes(&self, store: &crate::Store) -> usize {
        self.owned().map(|id| store.get(id).capacity()).sum()
    }

    /// Names of the instructions of a phase in order, e.g. `layers.0 linear backward`.
    pub fn labels(&self, phase: Phase) -> Vec<String> {
        self.instrs.iter().filter(|i| i.phase == phase).map(Instr::label).collect()
    }

    /// What the ops are asked for in a phase, in order: the op's name, the pass and its cost. Updates are not among them.
    pub fn passes(&self, phase: Phase) -> impl Iterator<Item = (&'static str, Pass<'_>, Cost)> {
        self.instrs.iter().filter(move |i| i.phase == phase).filter_map(|i| {
            let pass = match &i.call {
                Call::Forward(_) => Pass::Forward,
                Call::Vjp(_) => Pass::Vjp(&i.wants),
                Call::Fused(_) => Pass::Fused(&i.wants),
                Call::Update(_) => return None,
            };
            Some((i.call.name(), pass, i.cost))
        })
    }

    /// FLOPs by instruction of a phase, in order, with the wants of backward passes.
    pub fn costs(&self, phase: Phase) -> Vec<(String, Vec<Want>, Cost)> {
        self.instrs.iter().filter(|i| i.phase == phase).map(|i| (i.label(), i.wants.clone(), i.cost)).collect()
    }
}

impl Instr<Ref> {
    /// Shapes read and written, e.g. `f32[8, 256, 128] → f32[8, 256, 384]`.
    fn shapes(&self) -> String {
        let list = |refs: &mut dyn Iterator<Item = &Option<Ref>>| {
            refs.flatten().map(|r| r.spec.to_string()).collect::<Vec<_>>().join(" ")
        };
        match self.call {
            Call::Vjp(_) => format!("{} → {}", list(&mut std::iter::once(&self.d_out)), list(&mut self.d_ins.iter())),
            _ => format!("{} → {}", list(&mut self.ins.iter()), list(&mut self.outs.iter().chain(&self.d_ins))),
        }
    }

    fn slots(&self) -> String {
        let written: Vec<String> = match self.call {
            Call::Vjp(_) => self.d_ins.iter().flatten().map(|r| format!("#{}", r.id.0)).collect(),
            _ => self.outs.iter().chain(&self.d_ins).flatten().map(|r| format!("#{}", r.id.0)).collect(),
        };
        written.join(" ")
    }
}

/// `1234567` as `1.23 M`.
pub(crate) fn si(x: u64) -> String {
    let x = x as f64;
    let (scale, unit) = match x {
        1e12.. => (1e12, "T"),
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e3.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    if unit.is_empty() { format!("{x}") } else { format!("{:.2} {unit}", x / scale) }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = [
            (Phase::Update, "once per weight update"),
            (Phase::Batch, "once per batch"),
            (Phase::Step, "at every step"),
        ];
        for (phase, when) in phases {
            let cost = self.cost(phase);
            let count = self.labels(phase).len();
            writeln!(f, "{when}: {count} instructions, {}FLOP, {}B at least", si(cost.flops), si(cost.bytes))?;
            for i in self.instrs.iter().filter(|i| i.phase == phase) {
                let (flops, bytes) = (si(i.cost.flops), si(i.cost.bytes));
                writeln!(f, "  {:<44} {flops:>9}FLOP {bytes:>9}B  {}  in {}", i.label(), i.shapes(), i.slots())?;
            }
        }
        writeln!(f, "arena: {}B", si(self.arena_bytes as u64))
    }
}
