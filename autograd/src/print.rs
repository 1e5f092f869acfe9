//! The printed plan: what runs when, its cost, and its memory. It is the only source of FLOPs, memory and utilisation.

use crate::graph::Phase;
use crate::plan::Plan;
use crate::store::Id;
use std::fmt;

/// The text of `show` for each buffer, e.g. shapes or numbers.
fn list<'a>(ids: impl Iterator<Item = &'a Id>, show: impl Fn(&Id) -> String) -> String {
    ids.map(show).collect::<Vec<_>>().join(" ")
}

/// `1234567` as `1.23 M`.
fn si(x: u64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(scale, _)| x as f64 >= *scale) {
        Some((scale, unit)) => format!("{:.2} {unit}", x as f64 / scale),
        None => x.to_string(),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |id: &Id| id.spec.to_string();
        for phase in Phase::ALL {
            let when = match phase {
                Phase::Update => "once per weight update",
                Phase::Batch => "once per batch",
                Phase::Step => "at every step",
            };
            let cost = self.cost(phase);
            let count = self.of_phase(phase).count();
            writeln!(f, "{when}: {count} instructions, {}FLOP, {}B at least", si(cost.flops), si(cost.bytes))?;
            for i in self.of_phase(phase) {
                let (flops, bytes) = (si(i.cost.flops), si(i.cost.bytes));
                let [read, written] = [list(i.read(), shape), list(i.written(), shape)];
                let (label, slots) = (i.label(), list(i.written(), |id| format!("#{}", id.number)));
                writeln!(f, "  {label:<44} {flops:>9}FLOP {bytes:>9}B  {read} → {written}  in {slots}")?;
            }
        }
        writeln!(f, "arena: {}B", si(self.arena_bytes as u64))
    }
}
