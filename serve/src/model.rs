use crate::facts::Facts;
use engine::Result;
use ltm::config::Work;
use ltm::evaluate::{Block, Mixture, Prediction};
use ltm::generate::{Each, Order, Teller};
use ltm::run::Loaded;
use std::collections::BTreeMap;
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
    /// By rows and positions; planned when they are first needed.
    mixtures: BTreeMap<[usize; 2], Mixture>,
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

    /// The positions of the plan for places before `end`: of a few lengths, so that short texts are quick. It depends on the
    /// block alone, and so do its bits.
    pub fn class(&self, end: usize) -> usize {
        let n = self.facts.sequence;
        [8, 4, 2].into_iter().map(|part| n / part).find(|&positions| end - 1 <= positions).unwrap_or(n)
    }

    /// Predicts the places of some blocks of one class, at most [`ROWS`].
    ///
    /// # Errors
    /// Those of [`Mixture`].
    pub fn predict(&mut self, blocks: &[Block<'_>], each: impl FnMut(usize, usize, &Prediction)) -> Result<()> {
        let size = [if blocks.len() == 1 { 1 } else { ROWS }, self.class(blocks[0].places.end)];
        let Loaded { config, params, store, .. } = &mut self.loaded;
        if !self.mixtures.contains_key(&size) {
            let mixture = Mixture::new(config, size, self.draws, params, store)?;
            config.check_room(store, Work::Evaluation)?;
            self.mixtures.insert(size, mixture);
        }
        self.mixtures[&size].predict(store, blocks, each)
    }

    /// Writes a text.
    ///
    /// # Errors
    /// Those of [`Teller::tell`].
    pub fn tell(&mut self, order: &Order<'_>, check: &dyn Fn() -> Result<()>, each: &mut Each<'_>) -> Result<()> {
        self.teller.tell(&mut self.loaded.store, order, check, each)
    }
}
