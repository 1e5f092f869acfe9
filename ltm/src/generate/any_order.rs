use super::{Sampler, Writing};
use crate::config::Config;
use crate::diffusion::{Lengths, Method, Predictor, Revealer, fill, write};
use crate::learn::Foreteller;
use crate::model::Params;
use autograd::Store;
use engine::rng::Stream;
use engine::{Error, Result};

/// Random-number site of lengths.
const LENGTH: u32 = 0x0050_0002;

/// Most steps that reveal tokens: more make no difference.
const MOST_STEPS: usize = 1 << 16;

/// Fills gaps by masked diffusion.
pub(super) struct AnyOrder {
    foreteller: Foreteller,
    revealer: Revealer,
    /// How long training documents are, if the model is one of documents.
    lengths: Option<Lengths>,
    /// The longest text that was trained.
    seq: usize,
}

impl AnyOrder {
    /// Plans it for texts of `model.seq` tokens.
    ///
    /// # Errors
    /// If there are too many steps, or the device lacks the memory.
    pub fn new(
        config: &Config,
        method: Method,
        writing: &Writing,
        lengths: Option<&Lengths>,
        params: &Params,
        store: &mut Store,
    ) -> Result<Self> {
        let (steps, seed) = (writing.steps.unwrap_or(0), writing.seed);
        if steps > MOST_STEPS {
            return Err(Error::usage(format!(
                "{steps} steps that reveal tokens: must be at most {MOST_STEPS}, or 0 for one token at a time"
            )));
        }
        let foreteller = Foreteller::new(config, method, params, store)?;
        let revealer = Revealer { schedule: config.diffusion.schedule, grid: method.grid, steps, seed };
        Ok(Self { foreteller, revealer, lengths: lengths.cloned(), seq: config.model.seq })
    }

    /// Sets another seed.
    pub fn reseed(&mut self, seed: u64) {
        self.revealer.seed = seed;
    }

    /// The tokens that text number `sample` lacks beside `given` ones, by a length drawn from the training documents' that are
    /// longer; `None` if they do not decide it.
    pub fn gap(&self, given: usize, seed: u64, sample: u32) -> Option<usize> {
        let lengths = self.lengths.as_ref().filter(|_| given < self.seq)?;
        let uniform = Stream::new(seed, LENGTH).sample(sample).uniform(0);
        Some(lengths.draw(uniform, given + 1..=self.seq) - given)
    }

    /// `gap` tokens between `before` and `after`, ids below `ids`. `show` gets them after each call, with the masks that are
    /// left. If nothing stands after them, they may be more than the network's positions.
    pub fn fill(
        &self,
        store: &mut Store,
        before: &[u16],
        gap: usize,
        after: &[u16],
        sampler: &Sampler,
        sample: u32,
        ids: usize,
        show: &mut dyn FnMut(&[i32]) -> Result<()>,
    ) -> Result<Vec<u16>> {
        let (begun, end) = (before.len(), before.len().saturating_add(gap));
        let mut network = self.foreteller.on(store);
        let mut text: Vec<i32> = before.iter().copied().map(i32::from).collect();
        let mut show = |now: &[i32]| show(&now[begun..end.min(now.len())]);
        if after.is_empty() {
            write(&mut network, &mut text, end, self.revealer, sample, sampler, ids, &mut show)?;
        } else {
            text.resize(end, network.shape().mask());
            text.extend(after.iter().copied().map(i32::from));
            let reveals = self.revealer.reveals(&(begun..end).collect::<Vec<_>>(), sample);
            fill(&mut network, &mut text, &reveals, sampler, ids, &mut show)?;
        }
        Ok(text[begun..end].iter().map(|&id| id as u16).collect())
    }
}

#[cfg(test)]
mod tests;
