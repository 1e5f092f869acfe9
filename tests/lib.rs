//! Shared helpers of the cross-crate tests.

#[path = "driver/mod.rs"]
pub mod driver;
#[path = "shim/mod.rs"]
pub mod shim;

use kernels::case::Sizes;
use proptest::prelude::*;

/// Small odd sizes; they shrink towards one of everything.
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

/// Sizes large enough that every loop has full blocks and tails.
pub const MEDIUM: Sizes =
    Sizes { batch: 3, tokens: 97, heads: 3, head_dim: 22, window: 37, latents: 5, ffn: 83, vocab: 301 };
