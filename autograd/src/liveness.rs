//! Which slot of the arena each value lives in: two values share a slot when their lives do not overlap.

use crate::plan::{Call, Instr, Ref};
use crate::{Id, Store};
use engine::Spec;

/// Where a value lives while planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A buffer of its own.
    Fixed(Id),
    /// A slot of the arena, to be found here.
    Temp(usize),
}

/// A value that lives in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temp {
    pub spec: Spec,
}

/// The first instruction that writes a value and the last that touches it.
#[derive(Clone, Copy, Debug)]
struct Life {
    from: usize,
    to: usize,
}

impl Instr<Place> {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.ins.iter().chain(&self.outs).chain(std::iter::once(&self.d_out)).chain(&self.d_ins).flatten()
    }
}

/// Gives every temporary a slot and returns the instructions with buffers in the places' stead, and the bytes of arena.
///
/// A value that a later phase reads must outlive every replay of that phase, so it keeps its slot to the end.
pub(crate) fn assign(instrs: Vec<Instr<Place>>, temps: &[Temp], store: &mut Store) -> (Vec<Instr<Ref>>, usize) {
    let mut lives: Vec<Option<Life>> = vec![None; temps.len()];
    for (t, instr) in instrs.iter().enumerate() {
        for place in instr.places() {
            let Place::Temp(i) = *place else { continue };
            let life = lives[i].get_or_insert(Life { from: t, to: t });
            let outlives = instrs[life.from].phase < instr.phase;
            life.to = if outlives { instrs.len() } else { life.to.max(t) };
        }
    }
    let mut starts: Vec<Vec<usize>> = vec![Vec::new(); instrs.len()];
    let mut ends: Vec<Vec<usize>> = vec![Vec::new(); instrs.len() + 1];
    for (i, life) in lives.iter().enumerate() {
        if let Some(life) = life {
            starts[life.from].push(i);
            ends[life.to].push(i);
        }
    }
    // Best fit over the free slots, largest values of an instruction first.
    let mut sizes: Vec<usize> = store.arena.iter().map(|(_, bytes)| *bytes).collect();
    let mut used = vec![0; sizes.len()];
    let mut free: Vec<usize> = (0..sizes.len()).collect();
    let mut slots = vec![usize::MAX; temps.len()];
    for t in 0..instrs.len() {
        starts[t].sort_by_key(|&i| std::cmp::Reverse(temps[i].spec.bytes()));
        for &i in &starts[t] {
            let bytes = temps[i].spec.bytes();
            let fits = free.iter().copied().filter(|&s| sizes[s] >= bytes).min_by_key(|&s| sizes[s]);
            // A slot made for something tiny is no home for something huge, nor the other way round.
            let best = fits.filter(|&s| sizes[s] <= 4 * bytes + 4096).or_else(|| {
                let largest = free.iter().copied().max_by_key(|&s| sizes[s])?;
                (sizes[largest] < bytes && 4 * sizes[largest] > bytes).then_some(largest)
            });
            let slot = best.unwrap_or_else(|| {
                sizes.push(0);
                used.push(0);
                sizes.len() - 1
            });
            free.retain(|&s| s != slot);
            sizes[slot] = sizes[slot].max(bytes);
            used[slot] = used[slot].max(bytes);
            slots[i] = slot;
        }
        free.extend(ends[t].iter().map(|&i| slots[i]));
    }
    let ids: Vec<Id> = sizes.iter().enumerate().map(|(slot, &bytes)| store.grow_slot(slot, bytes)).collect();
    let resolve = |place: Place| match place {
        Place::Fixed(id) => Ref { id, spec: store.get(id).spec() },
        Place::Temp(i) => Ref { id: ids[slots[i]], spec: temps[i].spec },
    };
    let instrs = instrs.into_iter().map(|i| i.map(resolve)).collect();
    (instrs, used.iter().sum())
}

impl Instr<Place> {
    fn map(self, f: impl Fn(Place) -> Ref) -> Instr<Ref> {
        let all = |places: Vec<Option<Place>>| places.into_iter().map(|p| p.map(&f)).collect();
        Instr {
            call: self.call,
            scope: self.scope,
            phase: self.phase,
            wants: self.wants,
            ins: all(self.ins),
            outs: all(self.outs),
            d_out: self.d_out.map(&f),
            d_ins: all(self.d_ins),
            cost: self.cost,
            scratch: self.scratch,
        }
    }
}

impl Call {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Forward(op) | Self::Vjp(op) | Self::Fused(op) | Self::Prepare(op, _) => op.name(),
            Self::Update(update) => update.name(),
        }
    }
}
