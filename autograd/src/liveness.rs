//! Chooses a slot of the arena for each value: two values may share a slot if their lifetimes do not overlap.

use crate::instr::{Instr, Place};
use crate::store::{Id, Store};
use engine::Spec;

/// The first instruction that writes a value and the last that touches it.
#[derive(Clone, Copy, Debug)]
struct Life {
    from: usize,
    to: usize,
}

/// Gives every temporary value a slot. Returns the instructions with buffers instead of places, and the bytes of arena
/// that they use.
///
/// A value that a later phase reads must outlive every replay of that phase, so it keeps its slot to the end.
pub(crate) fn assign(instrs: Vec<Instr<Place>>, temps: &[Spec], store: &mut Store) -> (Vec<Instr<Id>>, usize) {
    let mut lives: Vec<Option<Life>> = vec![None; temps.len()];
    for (t, instr) in instrs.iter().enumerate() {
        for place in instr.operands() {
            let Place::Temp(i, _) = *place else { continue };
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
    let mut sizes: Vec<usize> = store.arena.iter().map(|&(_, bytes)| bytes).collect();
    let mut used = vec![0; sizes.len()];
    let mut free: Vec<usize> = (0..sizes.len()).collect();
    let mut slots = vec![usize::MAX; temps.len()];
    for (starting, ending) in starts.iter_mut().zip(&ends) {
        starting.sort_by_key(|&i| std::cmp::Reverse(temps[i].bytes()));
        for &i in starting.iter() {
            let bytes = temps[i].bytes();
            let fits = free.iter().copied().filter(|&s| sizes[s] >= bytes).min_by_key(|&s| sizes[s]);
            // A slot of very different size is not reused.
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
        free.extend(ending.iter().map(|&i| slots[i]));
    }
    sizes.iter().enumerate().for_each(|(slot, &bytes)| store.grow_slot(slot, bytes));
    let resolve = |place: Place| match place {
        Place::Fixed(id) => id,
        Place::Temp(i, spec) => Id { number: store.arena[slots[i]].0, spec },
    };
    (instrs.into_iter().map(|i| i.map(resolve)).collect(), used.iter().sum())
}
