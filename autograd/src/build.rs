//! From a graph and the gradients that are wanted to a list of instructions.

use crate::graph::{Graph, Node, Origin, Phase, Value};
use crate::liveness::{Place, Temp};
use crate::plan::{Call, Hoist, Instr, Prepare, Request};
use crate::store::{Id, Store};
use engine::{Buffer, Cost, Device, Error, Pass, Result, Spec, Want};

/// The gradient of a value while planning.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Grad {
    None,
    /// Exactly 1: the root's, and what passes it through.
    One,
    At(Place),
}

pub(crate) struct Builder<'a> {
    graph: &'a Graph,
    request: &'a Request,
    device: Device,
    pub instrs: Vec<Instr<Place>>,
    pub temps: Vec<Temp>,
    /// Where each value lives, once computed.
    places: Vec<Option<Place>>,
    phases: Vec<Phase>,
    /// Values that the root or a kept value needs.
    needed: Vec<bool>,
    /// Values with a path to the root.
    to_root: Vec<bool>,
    /// Values that depend on a wanted leaf.
    from_want: Vec<bool>,
    grad: Vec<Grad>,
    one: Option<Id>,
    pub kept: Vec<(Value, Id)>,
    pub grads: Vec<(Value, Id)>,
    /// What was prepared: of which value, by which op, its number and type, and where it is.
    forms: Vec<(Value, &'static str, usize, Spec, Place)>,
}

impl<'a> Builder<'a> {
    pub fn new(graph: &'a Graph, store: &mut Store, request: &'a Request) -> Result<Self> {
        let n = graph.values.len();
        let mut b = Self {
            graph,
            request,
            device: store.device().clone(),
            instrs: Vec::new(),
            temps: Vec::new(),
            places: vec![None; n],
            phases: vec![Phase::Update; n],
            needed: vec![false; n],
            to_root: vec![false; n],
            from_want: vec![false; n],
            grad: vec![Grad::None; n],
            one: None,
            kept: Vec::new(),
            grads: Vec::new(),
            forms: Vec::new(),
        };
        if let Some(root) = request.root {
            let spec = graph.spec(root);
            let leaf = matches!(graph.info(root).origin, Origin::Leaf { .. });
            if spec.shape.numel() != 1 || !spec.dtype.is_float() || leaf {
                let name = graph.describe(root);
                return Err(Error::usage(format!("the root {name} is {spec}, must be one number that an op computed")));
            }
            b.one = Some(store.insert(Buffer::from_f64(spec.dtype, &[1], &[1.0])));
            b.to_root[root.index()] = true;
        }
        b.mark(store)?;
        Ok(b)
    }

    /// Reachability and phases, leaves' places, and the errors that they can reveal.
    fn mark(&mut self, store: &mut Store) -> Result<()> {
        let g = self.graph;
        for v in self.request.keep.iter().chain(&self.request.root) {
            self.needed[v.index()] = true;
        }
        for node in g.nodes.iter().rev() {
            let outs = node.out.index()..node.out.index() + node.outs;
            let (needed, to_root) = (self.needed[outs.clone()].contains(&true), self.to_root[outs].contains(&true));
            for v in &node.ins {
                self.needed[v.index()] |= needed;
                self.to_root[v.index()] |= to_root;
            }
        }
        let accumulate = self.request.accumulate.iter().map(|&(v, id)| (v, Some(id)));
        for (leaf, id) in self.request.wants.iter().map(|&v| (v, None)).chain(accumulate) {
            let (name, spec) = (g.describe(leaf), g.spec(leaf));
            if !matches!(g.info(leaf).origin, Origin::Leaf { .. }) || !spec.dtype.is_float() {
                return Err(Error::usage(format!("a gradient is wanted for {name}, which is no leaf of floats")));
            }
            if !self.to_root[leaf.index()] {
                return Err(Error::usage(format!(
                    "a gradient is wanted for {name}, on which the root does not depend"
                )));
            }
            self.from_want[leaf.index()] = true;
            let id = id.unwrap_or_else(|| store.alloc(spec));
            self.grads.push((leaf, id));
        }
        for (i, info) in g.values.iter().enumerate() {
            match info.origin {
                Origin::Leaf { id, phase } => {
                    self.phases[i] = phase;
                    self.places[i] = Some(Place::Fixed(id));
                }
                Origin::Node { node, output } => {
                    let node = &g.nodes[node];
                    if output == 0 {
                        self.check_path(node)?;
                    }
                    self.from_want[i] = node.ins.iter().any(|v| self.from_want[v.index()]);
                    let phase = node.ins.iter().map(|v| self.phases[v.index()]).max().unwrap_or(Phase::Update);
                    self.phases[i] = match self.request.hoist {
                        Hoist::Off if phase == Phase::Batch => Phase::Step,
                        _ => phase,
                    };
                }
            }
        }
        for &v in &self.request.keep {
            if self.kept.iter().any(|(k, _)| *k == v) {
                continue;
            }
            let id = match g.info(v).origin {
                Origin::Leaf { id, .. } => id,
                Origin::Node { .. } => store.alloc(g.spec(v)),
            };
            self.kept.push((v, id));
            self.places[v.index()] = Some(Place::Fixed(id));
        }
        Ok(())
    }

    /// A gradient must not stop silently: neither in an input without one nor in a residual.
    fn check_path(&self, node: &Node) -> Result<()> {
        let on_path = self.to_root[node.out.index()];
        for (i, &v) in node.ins.iter().enumerate() {
            if !on_path || !self.from_want[v.index()] {
                continue;
            }
            let what = self.graph.describe(v);
            let into = format!("{} {}", node.scope, node.op.name());
            if !node.op.differentiable(i) {
                let argument = node.op.arguments().get(i).copied().unwrap_or("input");
                return Err(Error::usage(format!(
                    "the wanted gradient stops at {}: it has none for {argument} ({what})",
                    into.trim_start()
                )));
            }
            if matches!(self.graph.info(v).origin, Origin::Node { output: 1.., .. }) {
                return Err(Error::usage(format!(
                    "the wanted gradient stops at {what}: it is a residual, and {} reads it",
                    into.trim_start()
                )));
            }
        }
        Ok(())
    }

    fn temp(&mut self, spec: Spec) -> Place {
        self.temps.push(Temp { spec });
        Place::Temp(self.temps.len() - 1)
    }

    fn in_specs(&self, node: usize) -> Vec<Spec> {
        self.graph.nodes[node].ins.iter().map(|&v| self.graph.spec(v)).collect()
    }

    /// The phase of everything that belongs to the backward pass.
    fn root_phase(&self) -> Phase {
        self.request.root.map_or(Phase::Update, |r| self.phases[r.index()])
    }

    /// Forward instructions in the graph's order; ops that can fuse with their VJP do so where their gradient is 1.
    pub fn forward(&mut self) {
        let ones = self.ones();
        let g = self.graph;
        for (n, node) in g.nodes.iter().enumerate() {
            let range = node.out.index()..node.out.index() + node.outs;
            if !self.needed[range.clone()].contains(&true) {
                continue;
            }
            for v in range.clone() {
                if self.places[v].is_none() {
                    self.places[v] = Some(self.temp(g.values[v].spec));
                }
            }
            let fused = node.op.fuses() && ones[node.out.index()] && self.from_want[node.out.index()];
            let specs = self.in_specs(n);
            let mut ins: Vec<_> = node.ins.iter().map(|v| self.places[v.index()]).collect();
            let outs = range.clone().map(|v| self.places[v]).collect();
            let (mut wants, mut d_ins) = (Vec::new(), Vec::new());
            if fused {
                self.grad[node.out.index()] = Grad::One;
                for &v in &node.ins {
                    let (want, place) = self.contribution(v);
                    wants.push(want);
                    d_ins.push(place);
                }
            }
            let pass = if fused { Pass::Fused(&wants) } else { Pass::Forward };
            let (cost, scratch) = (node.op.cost(&specs, pass), node.op.scratch(&self.device, &specs, pass));
            let call = if fused { Call::Fused(node.op.clone()) } else { Call::Forward(node.op.clone()) };
            let phase = if fused { self.root_phase() } else { self.phases[node.out.index()] };
            ins.extend(self.forms(n, pass, phase));
            let scope = node.scope.clone();
            self.instrs.push(Instr { call, scope, phase, wants, ins, outs, d_out: None, d_ins, cost, scratch });
        }
    }

    /// Where a pass finds its inputs' prepared forms: made, once, in the phase in which the input changes.
    fn forms(&mut self, n: usize, pass: Pass, phase: Phase) -> Vec<Option<Place>> {
        if self.request.prepare == Prepare::Off {
            return Vec::new();
        }
        let node = &self.graph.nodes[n];
        let forms = node.op.forms(&self.device, &self.in_specs(n), pass);
        let mut places = Vec::new();
        for (number, form) in forms.into_iter().enumerate() {
            places.push(form.and_then(|form| {
                let value = node.ins[form.input];
                let same = |f: &&(Value, &str, usize, Spec, Place)| {
                    (f.0, f.1, f.2, f.3) == (value, node.op.name(), number, form.spec)
                };
                if let Some(known) = self.forms.iter().find(same) {
                    return Some(known.4);
                }
                // What is used as often as it changes is used as it is.
                if self.phases[value.index()] >= phase {
                    return None;
                }
                let place = self.temp(form.spec);
                self.forms.push((value, node.op.name(), number, form.spec, place));
                let bytes = (self.graph.spec(value).bytes() + form.spec.bytes()) as u64;
                self.instrs.push(Instr {
                    call: Call::Prepare(node.op.clone(), number),
                    scope: node.scope.clone(),
                    phase: self.phases[value.index()],
                    wants: Vec::new(),
                    ins: vec![self.places[value.index()]],
                    outs: vec![Some(place)],
                    d_out: None,
                    d_ins: Vec::new(),
                    cost: Cost { flops: 0, bytes },
                    scratch: 0,
                });
                Some(place)
            }));
        }
        places
    }

    /// Which values' gradient is exactly 1: the root's, and what every op between it and them passes through unshared.
    fn ones(&self) -> Vec<bool> {
        let g = self.graph;
        let mut uses = vec![0; g.values.len()];
        for node in g.nodes.iter().filter(|n| self.to_root[n.out.index()]) {
            node.ins.iter().for_each(|v| uses[v.index()] += 1);
        }
        let mut ones = vec![false; g.values.len()];
        if let Some(root) = self.request.root {
            ones[root.index()] = uses[root.index()] == 0;
        }
        for node in g.nodes.iter().rev() {
            let one = ones[node.out.index()];
            for (i, v) in node.ins.iter().enumerate().filter(|_| one) {
                let inner = matches!(g.info(*v).origin, Origin::Node { output: 0, .. });
                ones[v.index()] |= inner && node.op.passes_through(i) && uses[v.index()] == 1;
            }
        }
        ones
    }

    /// Books one more contribution to the gradient of `v`.
    fn contribution(&mut self, v: Value) -> (Want, Option<Place>) {
        if !self.from_want[v.index()] {
            return (Want::Skip, None);
        }
        let wanted = self.grads.iter().find(|(leaf, _)| *leaf == v).map(|(_, id)| *id);
        match self.grad[v.index()] {
            Grad::At(place) => (Want::Add, Some(place)),
            Grad::One => unreachable!("a gradient of one has one contribution"),
            Grad::None => {
                let place = wanted.map_or_else(|| self.temp(self.graph.spec(v)), Place::Fixed);
                self.grad[v.index()] = Grad::At(place);
                let add = self.request.accumulate.iter().any(|(leaf, _)| *leaf == v);
                (if add { Want::Add } else { Want::Write }, Some(place))
            }
        }
    }

    /// VJPs in the reverse of the graph's order.
    pub fn backward(&mut self) {
        let ones = self.ones();
        let root = self.request.root.expect("a root to differentiate");
        if self.grad[root.index()] == Grad::None {
            self.grad[root.index()] = Grad::One;
        }
        let fused: Vec<bool> = ones.iter().zip(&self.from_want).map(|(&o, &w)| o && w).collect();
        for (n, node) in self.graph.nodes.iter().enumerate().rev() {
            let out = node.out.index();
            if !self.from_want[out] || !self.to_root[out] || (node.op.fuses() && fused[out]) {
                continue;
            }
            let d_out = match self.grad[out] {
                Grad::None => continue,
                Grad::One => Place::Fixed(self.one.expect("a root has a one")),
                Grad::At(place) => place,
            };
            // An input that stands at several places gets one call per place: two mutable views of one gradient cannot be.
            let mut left: Vec<usize> = (0..node.ins.len()).filter(|&i| self.from_want[node.ins[i].index()]).collect();
            while !left.is_empty() {
                let (mut now, mut later) = (Vec::new(), Vec::new());
                for i in left {
                    let repeated = now.iter().any(|&j: &usize| node.ins[j] == node.ins[i]);
                    if repeated { later.push(i) } else { now.push(i) }
                }
                self.vjp(n, d_out, &now, &ones);
                left = later;
            }
        }
    }

    fn vjp(&mut self, n: usize, d_out: Place, inputs: &[usize], ones: &[bool]) {
        let node = &self.graph.nodes[n];
        let mut wants = vec![Want::Skip; node.ins.len()];
        let mut d_ins = vec![None; node.ins.len()];
        let mut aliased = false;
        for &i in inputs {
            let v = node.ins[i];
            if ones[v.index()] {
                self.grad[v.index()] = Grad::One;
                continue;
            }
            // The gradient moves on in place: nobody else reads d_out after this op.
            let leaf = matches!(self.graph.info(v).origin, Origin::Leaf { .. });
            let repeated = node.ins.iter().filter(|&&w| w == v).count() > 1;
            let fresh = self.grad[v.index()] == Grad::None && matches!(d_out, Place::Temp(_));
            if node.op.passes_through(i) && fresh && !leaf && !repeated && !aliased {
                self.grad[v.index()] = Grad::At(d_out);
                aliased = true;
                continue;
            }
            (wants[i], d_ins[i]) = self.contribution(v);
        }
        if wants.iter().all(|w| *w == Want::Skip) {
            return;
        }
        let reads = node.op.reads(&wants);
        let specs = self.in_specs(n);
        let ins = node
            .ins
            .iter()
            .enumerate()
            .map(|(i, v)| (reads.ins >> i & 1 == 1).then(|| self.places[v.index()]).flatten());
        let outs =
            (0..node.outs).map(|i| (reads.outs >> i & 1 == 1).then(|| self.places[node.out.index() + i]).flatten());
        let (mut ins, outs): (Vec<_>, _) = (ins.collect(), outs.collect());
        ins.extend(self.forms(n, Pass::Vjp(&wants), self.root_phase()));
        let (cost, scratch) =
            (node.op.cost(&specs, Pass::Vjp(&wants)), node.op.scratch(&self.device, &specs, Pass::Vjp(&wants)));
        let (call, scope, phase) = (Call::Vjp(node.op.clone()), node.scope.clone(), self.root_phase());
        self.instrs.push(Instr { call, scope, phase, wants, ins, outs, d_out: Some(d_out), d_ins, cost, scratch });
    }
}
