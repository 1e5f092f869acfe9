use crate::data::sources::IGNORED;
use crate::data::{Batch, SampleInfo};
use std::ops::Range;

/// A text to train on or to judge. What stands before it and its first tokens may be seen, and cost nothing; the other positions,
/// at least one, are maskable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    /// Facts about the sample. Its `id` keys all draws for the text.
    pub sample: SampleInfo,
    /// The context's tokens and the text's, without padding. Position i predicts the token at i.
    pub tokens: Vec<i32>,
    /// Positions before the text, which are seen.
    pub context: usize,
    /// The text's first tokens that are seen.
    pub given: usize,
}

impl Text {
    /// The texts of a batch: for every row with a target, its targets, after its first input if that is the `context`. The
    /// inputs before the first target that is scored are given.
    pub fn of(batch: &Batch, context: bool) -> Vec<Self> {
        let n = batch.targets.len() / batch.samples.len();
        let rows = batch.tokens.chunks(n).zip(batch.targets.chunks(n)).zip(&batch.samples);
        let rows = rows.filter(|(_, sample)| sample.scored > 0);
        let texts = rows.map(|((tokens, targets), &sample)| {
            let context = usize::from(context);
            let given = targets.iter().take_while(|&&target| target == IGNORED).count();
            let scored = &targets[given..][..sample.scored as usize];
            Self { sample, tokens: [&tokens[..context], &tokens[1..=given], scored].concat(), context, given }
        });
        texts.collect()
    }

    /// The same text with the first half of its maskable positions seen, for the protocol `prefix`.
    #[must_use]
    pub fn later_half(&self) -> Self {
        let (half, mut sample) = (self.maskable().len() / 2, self.sample);
        sample.scored -= half as u32;
        sample.bytes = sample.later_bytes;
        // The source's probability is that of whole texts.
        sample.nats = None;
        Self { sample, tokens: self.tokens.clone(), context: self.context, given: self.given + half }
    }

    /// The maskable positions.
    pub fn maskable(&self) -> Range<usize> {
        self.context + self.given..self.tokens.len()
    }

    /// The text's tokens with `mask` at the positions `masked`.
    pub(super) fn with_masks(&self, masked: &[usize], mask: i32) -> Vec<i32> {
        let mut tokens = self.tokens.clone();
        masked.iter().for_each(|&i| tokens[i] = mask);
        tokens
    }
}
