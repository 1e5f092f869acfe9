//! Which queries see which keys: the geometry of one block of queries. Query i sees the keys from i − before to i + after.
//! A window, for which after = 0:
//!
//! ```text
//!            keys →   first query      first + 16
//! queries ↓     · · ░ █ █ █ █ ▒                       the first sixteen   ░ cut by the window
//!                     · · ░ █ █ █ █ ▒                 the next sixteen    ▒ cut by causality
//! ```

use super::cpu::Shape;
use crate::product::BLOCK;
use engine::simd::{Isa, LANES, Lanes, Real};
use std::ops::Range;

/// The keys of a group begin at a multiple of this, so that the product's tiles of as many rows fit exactly.
const ALIGN: usize = 8;

/// A block of queries and the keys that they see.
pub struct Band {
    /// Sixteen queries each; the second may have none.
    pub groups: [Group; 2],
}

/// Up to sixteen queries, one in each lane.
#[derive(Clone)]
pub struct Group {
    /// Its first column in the scores.
    pub lane: usize,
    /// The queries.
    pub queries: Range<usize>,
    /// All keys that any of them sees.
    pub keys: Range<usize>,
    /// The keys that every query would see if there were sixteen.
    pub seen_by_all: Range<usize>,
    before: usize,
    after: usize,
}

/// A rectangle of the scores (keys × columns) that is computed together.
pub struct Rectangle {
    pub keys: Range<usize>,
    pub lanes: Range<usize>,
}

impl Band {
    /// `queries` are at most [`BLOCK`].
    pub fn new(queries: Range<usize>, shape: Shape) -> Self {
        let middle = queries.end.min(queries.start + LANES);
        Self { groups: [Group::new(0, queries.start..middle, shape), Group::new(LANES, middle..queries.end, shape)] }
    }

    /// The first key: row 0 of the scores.
    pub fn first_key(&self) -> usize {
        self.groups[0].keys.start
    }

    /// Offset of the scores of `key`.
    #[inline(always)]
    pub fn row(&self, key: usize) -> usize {
        (key - self.first_key()) * BLOCK
    }

    /// The most keys that this many consecutive queries can see.
    pub fn most_keys(shape: Shape, queries: usize) -> usize {
        shape.tokens.min(shape.before + queries + shape.after + ALIGN - 1)
    }

    /// What the two groups see, each alone and together.
    pub fn rectangles(&self) -> [Rectangle; 3] {
        let [a, b] = [&self.groups[0].keys, &self.groups[1].keys];
        [
            Rectangle { keys: a.start..a.end.min(b.start), lanes: 0..LANES },
            Rectangle { keys: b.start..a.end.max(b.start), lanes: 0..BLOCK },
            Rectangle { keys: a.end.max(b.start)..b.end, lanes: LANES..BLOCK },
        ]
    }
}

impl Group {
    fn new(lane: usize, queries: Range<usize>, shape: Shape) -> Self {
        let Shape { before, after, .. } = shape;
        if queries.is_empty() {
            // An empty range, placed so that `rectangles` can count from it.
            let none = queries.start..queries.start;
            return Self { lane, queries, keys: none.clone(), seen_by_all: none, before, after };
        }
        let (first, last) = (shape.seen_from(queries.start), shape.seen_until(queries.end - 1));
        let newest = shape.seen_until(queries.start);
        let seen_by_all = shape.seen_from(queries.start + LANES - 1).min(newest)..newest;
        Self { lane, queries, keys: first / ALIGN * ALIGN..last, seen_by_all, before, after }
    }

    /// 0 in the lanes whose query sees `key`, −∞ in the others.
    #[inline(always)]
    pub fn mask<I: Isa, T: Real>(&self, key: usize, masks: &Masks<T>) -> T::Lanes<I> {
        // The first and the last lane whose query sees the key.
        let first = key.saturating_sub(self.queries.start + self.after).min(LANES);
        let beyond = (key + self.before + 1).saturating_sub(self.queries.start).min(LANES);
        masks.from::<I>(first).add(masks.before::<I>(beyond))
    }
}

/// Sixteen times −∞, sixteen zeros, sixteen times −∞: a window of sixteen into it has its zeros at any place.
pub struct Masks<T>([T; 3 * LANES]);

impl<T: Real> Masks<T> {
    pub fn new() -> Self {
        let mut masks = [T::NEG_INFINITY; 3 * LANES];
        masks[LANES..2 * LANES].fill(T::ZERO);
        Self(masks)
    }

    /// Zeros from lane `first` on.
    #[inline(always)]
    fn from<I: Isa>(&self, first: usize) -> T::Lanes<I> {
        T::Lanes::<I>::load(&self.0[LANES - first..])
    }

    /// Zeros before lane `end`.
    #[inline(always)]
    fn before<I: Isa>(&self, end: usize) -> T::Lanes<I> {
        T::Lanes::<I>::load(&self.0[2 * LANES - end..])
    }
}
