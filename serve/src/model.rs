use crate::facts::Facts;
use engine::Result;
use ltm::config::Work;
use ltm::evaluate::{Block, Mixture, Prediction};
use ltm::generate::{Each, Order, Teller};
use ltm::run::Loaded;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Most blocks that are scored together.
pub const ROWS: usize = 8;

/// A model with everything that is planned for it.
pub struct Model {
    /// What requests know of it.
    pub facts: Arc<Facts>,
    /// The distance of the later cuts between blocks.
    pub refit: usize,
    loaded: Loaded,
    teller: Teller,
    draws: usize,
    /// By rows, positions seen and positions; planned when they are first needed.
    mixtures: BTreeMap<[usize; 3], Mixture>,
}

impl Model {
    /// Plans generation with a loaded model.
    ///
    /// # Errors
    /// Those of [`Teller::new`].
    pub fn new(facts: Facts, mut loaded: Loaded, draws: usize, refit: usize) -> Result<Self> {
        let Loaded { config, params, store, lengths, .. } = &mut loaded;
        let teller = Teller::new(config, params, store, lengths.as_ref())?;
        Ok(Self { facts: facts.into(), refit, loaded, teller, draws, mixtures: BTreeMap::new() })
    }

    /// The positions of the plan for these places, those seen by the latents first: of a few lengths, so that short texts are quick.
    pub fn class(&self, places: &Range<usize>) -> [usize; 2] {
        let n = self.facts.sequence;
        let long = |needed| [8, 4, 2].into_iter().map(|part| n / part).find(|&long| needed <= long).unwrap_or(n);
        [long(places.start - 1).max(1), long(places.end - 1).max(1)]
    }

    /// Predicts the places of some blocks of one class, at most [`ROWS`]. Returns the KL of every latent vector of each block, in nats;
    /// nothing if no latents are inferred.
    ///
    /// # Errors
    /// Those of [`Mixture`].
    pub fn predict(
        &mut self,
        blocks: &[Block<'_>],
        each: impl FnMut(usize, usize, &Prediction),
    ) -> Result<Vec<Vec<f64>>> {
        let [seen, positions] = self.class(&blocks[0].places);
        let size = [if blocks.len() == 1 { 1 } else { ROWS }, seen, positions];
        let Loaded { config, params, store, .. } = &mut self.loaded;
        if !self.mixtures.contains_key(&size) {
            let mixture = Mixture::new(config, size, self.draws, params, store)?;
            config.check_room(store, Work::Evaluation)?;
            self.mixtures.insert(size, mixture);
        }
        let mixture = &self.mixtures[&size];
        mixture.predict(store, blocks, each)?;
        mixture.kl_by_latent(store)
    }

    /// Writes a text. Returns the KL of every latent vector that was inferred.
    ///
    /// # Errors
    /// Those of [`Teller::tell`].
    pub fn tell(&mut self, order: &Order<'_>, check: &dyn Fn() -> Result<()>, each: &mut Each<'_>) -> Result<Vec<f64>> {
        self.teller.tell(&mut self.loaded.store, order, check, each)
    }
}
