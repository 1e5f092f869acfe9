//! The model across crates: its plans, gradients, bits, numbers and evaluation.

mod determinism;
mod evaluation;
mod fast_gradients;
mod golden;
mod non_finite;
mod plan;
mod planner;
mod trajectory;

use autograd::Store;
use ltm::model::Params;

/// Gives the decoder weights as large as those of a model that has learned something, so that the latents matter.
fn enlarge(params: &Params, store: &mut Store) {
    for p in params.iter().filter(|p| p.is_matrix()) {
        let larger: Vec<f64> = store.get(p.id).to_f64().iter().map(|w| 8.0 * w).collect();
        store.get_mut(p.id).set_f64(&larger);
    }
}
