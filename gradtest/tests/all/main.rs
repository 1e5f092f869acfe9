//! Checks every op's gradient against central differences in f64, ops in random graphs, and that planted faults are
//! found.

use engine::DType;
use gradtest::{Input, Strategy};
use kernels::case::{Case, Sizes};
use kernels::cast::Cast;
use kernels::registry::ROOMS;

mod functions;
mod gradients;
mod guide;
mod modes;
mod planted;

/// Sizes at which the tests list cases.
const SIZES: Sizes = Sizes { batch: 2, tokens: 3, heads: 2, head_dim: 2, window: 2, latents: 2, ffn: 2, vocab: 3 };

/// The cases of the registry, and the cast, which has no cases there. From f64 to f64 it is the identity, whose
/// gradient can be checked.
fn all_cases(s: &Sizes) -> Vec<Case> {
    let cast = Case::new("to its own type", Cast { to: DType::F64 }, vec![Input::normal(&[s.batch, s.tokens])]);
    ROOMS.iter().flat_map(|room| (room.cases)(s)).chain([cast]).collect()
}

/// Small odd sizes; they shrink towards ones.
fn sizes() -> impl Strategy<Value = Sizes> {
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

/// Case number `k`, at random sizes.
fn drawn(k: usize) -> impl Strategy<Value = (Sizes, Case)> {
    sizes().prop_map(move |s| (s, all_cases(&s).swap_remove(k)))
}
