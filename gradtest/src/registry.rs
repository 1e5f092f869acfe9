//! The ops of the registry, brought to the tests as a stranger brings an op.

use kernels::case::{Case, Sizes};
use kernels::registry::ROOMS;
use proptest::prelude::*;

/// One case of an op of the registry, at sizes that are drawn.
pub struct Entry {
    /// Name of the room.
    pub room: &'static str,
    /// Name of the op.
    pub op: &'static str,
    /// The case.
    pub cases: BoxedStrategy<Case>,
}

/// Small odd sizes for the ops of the registry; they shrink towards one of everything.
pub fn sizes() -> impl Strategy<Value = Sizes> {
    (1..4usize, 1..10usize, 1..4usize, 1..4usize, 1..12usize, 1..5usize, 1..8usize, 2..12usize).prop_map(
        |(batch, tokens, heads, half, window, latents, ffn, vocab)| Sizes {
            batch,
            tokens,
            heads,
            head_dim: 2 * half,
            window,
            latents,
            ffn,
            vocab,
        },
    )
}

/// Every case of every op of the registry.
pub fn registry() -> Vec<Entry> {
    let listed = Sizes { batch: 1, tokens: 1, heads: 1, head_dim: 2, window: 1, latents: 1, ffn: 1, vocab: 2 };
    let room = |room: &'static kernels::registry::Room| {
        (room.cases)(&listed).into_iter().enumerate().map(move |(k, case)| Entry {
            room: room.name,
            op: case.op.name(),
            cases: sizes().prop_map(move |s| (room.cases)(&s).swap_remove(k)).boxed(),
        })
    };
    ROOMS.iter().flat_map(room).collect()
}
