//! Tests of the model across crates: plans, gradients, bits, golden numbers and evaluation.

mod determinism;
mod evaluation;
mod fast_gradients;
mod golden;
mod golden_ops;
mod learned_latents;
mod non_finite;
mod oracle;
mod plan;
mod ranks;
mod shared_scores;
mod shared_suite;
mod trajectory;

use autograd::Store;
use engine::{DType, Device};
use ltm::config::{Config, FastConfig};
use ltm::data::Batch;
use ltm::learn::{Fast, FastOptions, Inputs, Score};
use ltm::model::Params;
use ltm::train::Trainer;

/// A model with weights, and the buffers of its batches.
struct Bench {
    config: Config,
    store: Store,
    params: Params,
    inputs: Inputs,
}

impl Bench {
    /// The preset `tiny` with these settings, and weights under a seed.
    fn new(settings: &str, dtype: DType, seed: u64) -> Self {
        let config = tests::tiny(settings);
        let mut store = Store::new(Device::CPU);
        let params = Params::new(&config.model, dtype, &mut store);
        params.init(&mut store, seed);
        let inputs = Inputs::new(&config.model, config.train.batch, config.model.seq, dtype, &mut store);
        Self { config, store, params, inputs }
    }

    fn load(&mut self, batch: &Batch) {
        self.inputs.load(&mut self.store, &self.config.model, batch).unwrap();
    }

    fn fast(&mut self, steps: usize, options: &FastOptions) -> Fast {
        let fast = FastConfig { steps, ..self.config.fast.clone() };
        Fast::new(&self.config.model, &fast, &self.params, &self.inputs, &mut self.store, options).unwrap()
    }

    fn score(&mut self, fast: &Fast) -> Score {
        Score::new(&self.config.model, &self.params, &self.inputs, Some(&fast.latents), 0, &mut self.store).unwrap()
    }

    /// Gives the decoder weights as large as after training, so that the latents matter.
    fn enlarge(&mut self) {
        for p in self.params.iter().filter(|p| p.is_matrix()) {
            let larger: Vec<f64> = self.store.get(p.id).to_f64().iter().map(|w| 8.0 * w).collect();
            self.store.get_mut(p.id).set_f64(&larger);
        }
    }
}

/// All weights as bytes.
fn weights(t: &Trainer) -> Vec<u8> {
    t.params.iter().flat_map(|p| t.store.get(p.id).as_bytes().to_vec()).collect()
}
