//! Turns a graph and a request into a list of instructions.

mod facts;

use self::facts::{Known, owners};
use crate::graph::{Graph, Node, Phase, Value};
use crate::instr::{Call, Instr, Place};
use crate::plan::Request;
use crate::store::{Id, Store};
use engine::{Cost, Device, Pass, Result, Spec, Want};
use std::collections::HashMap;

/// The instructions and buffers for a request.
#[derive(Default)]
pub(crate) struct Draft {
    /// The instructions, in an order that respects dependencies.
    pub instrs: Vec<Instr<Place>>,
    /// The values in the arena.
    pub temps: Vec<Spec>,
    /// The places of the values to keep.
    pub kept: Vec<(Value, Id)>,
    /// The places of the wanted gradients.
    pub grads: Vec<(Value, Id)>,
}

/// Turns `request` on `graph` into instructions.
pub(crate) fn draft(graph: &Graph, store: &mut Store, request: &Request) -> Result<Draft> {
    let device = store.device.clone();
    let known = vec![Known::default(); graph.values.len()];
    let (owners, forms) = (owners(graph, request), HashMap::new());
    let mut b = Builder { graph, request, device, owners, known, one: None, forms, draft: Draft::default() };
    b.mark_needed(store)?;
    b.mark_wanted(store)?;
    b.mark_phases()?;
    b.mark_ones();
    b.keep(store);
    b.forward();
    b.backward();
    Ok(b.draft)
}

pub(crate) struct Builder<'a> {
    graph: &'a Graph,
    request: &'a Request,
    device: Device,
    /// [`owners`]
    owners: Vec<Value>,
    /// Indexed by the number of the value; those that share a buffer share the facts of its owner.
    known: Vec<Known>,
    /// The number 1, which is the gradient of the root.
    one: Option<Id>,
    /// The places of prepared forms, by value, its shape, op, number and type.
    forms: HashMap<(Value, Spec, &'static str, usize, Spec), Place>,
    draft: Draft,
}

impl<'a> Builder<'a> {
    fn of(&self, v: Value) -> &Known {
        &self.known[self.owner(v).index()]
    }

    fn of_mut(&mut self, v: Value) -> &mut Known {
        let owner = self.owner(v);
        &mut self.known[owner.index()]
    }

    fn owner(&self, v: Value) -> Value {
        self.owners[v.index()]
    }

    /// The place of a value, once computed.
    fn place(&self, v: Value) -> Option<Place> {
        Some(self.of(v).place?.with_spec(self.graph.spec(v)))
    }

    /// The ops that run: all but those whose result is in their input's buffer.
    fn nodes(&self) -> impl DoubleEndedIterator<Item = &'a Node> + use<'a, '_> {
        self.graph.nodes.iter().filter(|node| self.owner(node.out) == node.out)
    }

    fn is_leaf(&self, v: Value) -> bool {
        self.graph.leaf_id(v).is_some()
    }

    /// Gives the kept values buffers of their own.
    fn keep(&mut self, store: &mut Store) {
        for &v in &self.request.keep {
            if self.draft.kept.iter().any(|(k, _)| *k == v) {
                continue;
            }
            let id = self.graph.leaf_id(v).unwrap_or_else(|| store.alloc(self.graph.spec(v)));
            self.draft.kept.push((v, id));
            self.of_mut(v).place = Some(Place::Fixed(id));
        }
    }

    fn temp(&mut self, spec: Spec) -> Place {
        self.draft.temps.push(spec);
        Place::Temp(self.draft.temps.len() - 1, spec)
    }

    fn specs(&self, node: &Node) -> Vec<Spec> {
        node.ins.iter().map(|&v| self.graph.spec(v)).collect()
    }

    /// The phase of the backward pass.
    fn root_phase(&self) -> Phase {
        self.request.root.map_or(Phase::Update, |r| self.of(r).phase)
    }

    /// Whether the op runs forward and backward in one pass.
    fn is_fused(&self, node: &Node) -> bool {
        let out = self.of(node.out);
        // Both halves of the pass run in one phase, that of the root.
        node.op.fuses() && out.one && out.from_want && out.phase == self.root_phase()
    }

    /// Forward instructions in the graph's order.
    fn forward(&mut self) {
        let g = self.graph;
        for node in self.nodes().collect::<Vec<_>>() {
            if !node.outs().any(|v| self.of(v).needed) {
                continue;
            }
            for v in node.outs() {
                if self.of(v).place.is_none() {
                    self.of_mut(v).place = Some(self.temp(g.spec(v)));
                }
            }
            let mut instr = if self.is_fused(node) {
                let mut instr = Instr::new(Call::Fused(node.op.clone()), &node.scope, self.root_phase());
                (instr.wants, instr.d_ins) = node.ins.iter().map(|&v| self.contribution(v)).unzip();
                instr
            } else {
                Instr::new(Call::Forward(node.op.clone()), &node.scope, self.of(node.out).phase)
            };
            instr.ins = node.ins.iter().map(|&v| self.place(v)).collect();
            instr.outs = node.outs().map(|v| self.place(v)).collect();
            self.push(node, instr);
        }
    }

    /// Adds forms and scratch memory to an instruction, and appends it.
    fn push(&mut self, node: &Node, mut instr: Instr<Place>) {
        let pass = match instr.call {
            Call::Vjp(_) => Pass::Vjp(&instr.wants),
            Call::Fused(_) => Pass::Fused(&instr.wants),
            _ => Pass::Forward,
        };
        let specs = self.specs(node);
        instr.cost = node.op.cost(&specs, pass);
        instr.scratch = node.op.scratch(&self.device, &specs, pass);
        if self.request.prepare {
            for (number, form) in node.op.forms(&self.device, &specs, pass).into_iter().enumerate() {
                let place = form.and_then(|form| self.form(node, number, node.ins[form.input], form.spec, instr.phase));
                instr.ins.push(place);
            }
        }
        self.draft.instrs.push(instr);
    }

    /// The place of a prepared form for an instruction of `phase`. The form is made once, in the phase in which the
    /// input changes.
    fn form(&mut self, node: &Node, number: usize, input: Value, spec: Spec, phase: Phase) -> Option<Place> {
        let key = (self.owner(input), self.graph.spec(input), node.op.name(), number, spec);
        if let Some(&place) = self.forms.get(&key) {
            return Some(place);
        }
        // An input that changes as often as it is used needs no form.
        let (changes, input_place) = (self.of(input).phase, self.place(input));
        if changes >= phase {
            return None;
        }
        let place = self.temp(spec);
        self.forms.insert(key, place);
        let bytes = (self.graph.spec(input).bytes() + spec.bytes()) as u64;
        self.draft.instrs.push(Instr {
            ins: vec![input_place],
            outs: vec![Some(place)],
            cost: Cost { flops: 0, bytes },
            ..Instr::new(Call::Prepare(node.op.clone(), number), &node.scope, changes)
        });
        Some(place)
    }

    /// Registers one more contribution to the gradient of `v`.
    fn contribution(&mut self, v: Value) -> (Want, Option<Place>) {
        let Known { from_want, grad, .. } = *self.of(v);
        if !from_want {
            return (Want::Skip, None);
        }
        let (owner, spec) = (self.owner(v), self.graph.spec(v));
        if let Some(grad) = grad {
            return (Want::Add, Some(grad.with_spec(spec)));
        }
        let own = self.draft.grads.iter().find(|(leaf, _)| *leaf == owner).map(|(_, id)| Place::Fixed(*id));
        let place = own.unwrap_or_else(|| self.temp(spec));
        self.of_mut(v).grad = Some(place);
        let add = self.request.accumulate.iter().any(|(leaf, _)| *leaf == owner);
        (if add { Want::Add } else { Want::Write }, Some(place.with_spec(spec)))
    }

    /// VJPs in the reverse order of the graph.
    fn backward(&mut self) {
        let one = self.one.map(Place::Fixed);
        for node in self.nodes().rev().collect::<Vec<_>>() {
            let out = *self.of(node.out);
            if !out.from_want || !out.to_root || self.is_fused(node) {
                continue;
            }
            let Some(d_out) = out.grad.or(one.filter(|_| out.one)) else { continue };
            let d_out = d_out.with_spec(self.graph.spec(node.out));
            // An input that occurs several times gets one call per occurrence, because two mutable views of one
            // gradient are not possible.
            let mut left: Vec<usize> = (0..node.ins.len()).filter(|&i| self.of(node.ins[i]).from_want).collect();
            while !left.is_empty() {
                let (mut now, mut later) = (Vec::new(), Vec::new());
                for i in left {
                    let repeated = now.iter().any(|&j: &usize| self.owner(node.ins[j]) == self.owner(node.ins[i]));
                    if repeated { later.push(i) } else { now.push(i) }
                }
                self.vjp(node, d_out, &now);
                left = later;
            }
        }
    }

    /// The gradients of these inputs.
    fn vjp(&mut self, node: &Node, d_out: Place, inputs: &[usize]) {
        let mut wants = vec![Want::Skip; node.ins.len()];
        let mut d_ins = vec![None; node.ins.len()];
        let mut moved = false;
        for &i in inputs {
            let v = node.ins[i];
            if self.of(v).one {
                continue;
            }
            // The gradient is reused in place: nothing reads d_out after this op.
            let repeated = node.ins.iter().filter(|&&w| self.owner(w) == self.owner(v)).count() > 1;
            let fresh = self.of(v).grad.is_none() && matches!(d_out, Place::Temp(..));
            if self.passes_through(node, i) && fresh && !self.is_leaf(self.owner(v)) && !repeated && !moved {
                self.of_mut(v).grad = Some(d_out);
                moved = true;
                continue;
            }
            (wants[i], d_ins[i]) = self.contribution(v);
        }
        if wants.iter().all(|w| *w == Want::Skip) {
            return;
        }
        let reads = node.op.reads(&wants);
        let place = |bits: u16, (i, v): (usize, Value)| (bits >> i & 1 == 1).then(|| self.place(v)).flatten();
        let ins = node.ins.iter().copied().enumerate().map(|input| place(reads.ins, input)).collect();
        let outs = node.outs().enumerate().map(|output| place(reads.outs, output)).collect();
        let call = Instr::new(Call::Vjp(node.op.clone()), &node.scope, self.root_phase());
        self.push(node, Instr { wants, ins, outs, d_out: Some(d_out), d_ins, ..call });
    }
}
