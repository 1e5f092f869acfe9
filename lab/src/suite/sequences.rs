//! Text to sequences, as it comes: what [`ltm::data::batches`] does for tokens that lie somewhere, for tokens that do not.

use super::text::{LeftOut, Texts};
use super::{Set, Tally};
use crate::text::documents::Position;
use autograd::Store;
use engine::{Error, Result};
use ltm::config::{Chunking, Config};
use ltm::data::sources::IGNORED;
use ltm::data::{Batch, SampleInfo, Tokenizer};
use ltm::evaluate::{Evaluator, Protocol};
use std::collections::VecDeque;
use std::sync::Arc;

/// Streams a set's sequences. Every token of its documents, their end tokens included, is a target exactly once.
pub struct Sequences<'a> {
    texts: Texts<'a>,
    set: &'a Set,
    tokenizer: &'a dyn Tokenizer,
    /// Counts GPT-2's tokens of the same text, where the model's are others.
    gpt2: Option<Arc<dyn Tokenizer>>,
    gpt2_tokens: u64,
    sequence: usize,
    /// Tokens that are in no sequence yet.
    waiting: VecDeque<u16>,
    /// The last target; `None` where a sequence begins with the begin token.
    previous: Option<u16>,
    index: u64,
    ended: bool,
}

impl<'a> Sequences<'a> {
    /// Sequences of `sequence` tokens. `gpt2` counts the tokens that published figures are about.
    ///
    /// # Errors
    /// If the tokenizers cannot be made.
    pub fn new(
        set: &'a Set,
        tokenizer: &'a Arc<dyn Tokenizer>,
        gpt2: Option<Arc<dyn Tokenizer>>,
        sequence: usize,
    ) -> Result<Self> {
        Ok(Self {
            texts: Texts::new(set, tokenizer)?,
            set,
            tokenizer: &**tokenizer,
            gpt2,
            gpt2_tokens: 0,
            sequence,
            waiting: VecDeque::new(),
            previous: None,
            index: 0,
            ended: false,
        })
    }

    /// Bytes of the files read so far, as they lie there.
    pub fn consumed(&self) -> u64 {
        self.texts.consumed()
    }

    /// Documents read so far.
    pub fn documents(&self) -> u64 {
        self.texts.documents()
    }

    /// Records without text so far.
    pub fn left_out(&self) -> &LeftOut {
        self.texts.left_out()
    }

    /// GPT-2 tokens of the documents read so far, one more for the end of each; `None` if nobody counts them.
    pub fn gpt2_tokens(&self) -> Option<u64> {
        self.gpt2.as_ref().map(|_| self.gpt2_tokens + self.texts.documents())
    }

    /// Scores all sequences by protocols that [share draws](Protocol::shares_draws) with the evaluator's and adds what they
    /// cost to `tallies`, one for each protocol. Sequences that the tallies have already are read and passed over. Calls
    /// `progress` behind every batch, whose error ends it.
    ///
    /// # Errors
    /// Texts that cannot be read, hold nothing or less than a window, numbers that are not finite, and those of `progress`.
    pub fn score(
        &mut self,
        evaluator: &Evaluator,
        protocols: &[Protocol],
        config: &Config,
        store: &mut Store,
        tallies: &mut [Tally],
        mut progress: impl FnMut(&Self, &[Tally]) -> Result<()>,
    ) -> Result<()> {
        let mut batch = Batch::new(config.train.batch, self.sequence);
        let done = tallies[0].sequences;
        while self.fill(&mut batch)? {
            if self.index > done {
                let scores = evaluator.batch_by(protocols, config, store, &batch)?;
                for (tally, scores) in tallies.iter_mut().zip(scores) {
                    scores.iter().for_each(|score| tally.add(score));
                }
            }
            progress(self, tallies)?;
        }
        Ok(())
    }

    /// Fills a batch with the next sequences, the last one up with such that have no target. Whether there was any.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    pub fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        let n = self.sequence;
        let places = batch.tokens.chunks_exact_mut(n).zip(batch.targets.chunks_exact_mut(n));
        let mut any = false;
        for ((tokens, targets), info) in places.zip(&mut batch.samples) {
            tokens.fill(i32::from(self.tokenizer.end()));
            targets.fill(IGNORED);
            *info = SampleInfo { id: self.index as u32, ..SampleInfo::default() };
            if let Some(length) = self.next_length()? {
                self.take(length, tokens, targets, info);
                any = true;
            }
        }
        Ok(any)
    }

    /// How many of the waiting tokens are the next sequence; reads on until that can be said.
    fn next_length(&mut self) -> Result<Option<usize>> {
        let n = self.sequence;
        loop {
            // No text has an end token in it.
            let end = match self.set.chunking {
                Chunking::Documents => self.waiting.iter().take(n).position(|&token| token == self.tokenizer.end()),
                Chunking::Windows => None,
            };
            if let Some(at) = end {
                return Ok(Some(at + 1));
            }
            if self.waiting.len() >= n {
                return Ok(Some(n));
            }
            if self.ended {
                return self.rest();
            }
            self.read()?;
        }
    }

    /// What the end of all documents leaves.
    fn rest(&self) -> Result<Option<usize>> {
        let name = || self.set.files[0].display();
        match (self.index, self.waiting.len()) {
            (0, 0) => Err(Error::new(format!("{}: there is no document with text", name()))),
            (0, few) => {
                let left_out = self.texts.left_out();
                let without = left_out.first.as_ref().map_or(String::new(), |first| {
                    format!("; {} records or files without text, the first at {first}", left_out.documents)
                });
                Err(Error::new(format!(
                    "{}: its {few} tokens make no complete window of {}: chunking = \"documents\" needs none{without}",
                    name(),
                    self.sequence
                )))
            }
            (_, 0) => Ok(None),
            // Every token counts, so the last window may be short.
            (_, rest) => Ok(Some(rest)),
        }
    }

    /// Tokens of the next part of a document.
    fn read(&mut self) -> Result<()> {
        let Some(part) = self.texts.next_part()? else {
            self.ended = true;
            return Ok(());
        };
        let mut ids = Vec::with_capacity(part.text.len() / 3 + 2);
        self.tokenizer.encode(&part.text, &mut ids).map_err(|error| error.at(self.set.files[0].display()))?;
        self.waiting.extend(&ids);
        if part.position == Position::Last {
            self.waiting.push_back(self.tokenizer.end());
        }
        if let Some(gpt2) = &self.gpt2 {
            ids.clear();
            gpt2.encode(String::from_utf8_lossy(&part.text).as_bytes(), &mut ids)?;
            self.gpt2_tokens += ids.len() as u64;
        }
        Ok(())
    }

    fn take(&mut self, length: usize, tokens: &mut [i32], targets: &mut [i32], info: &mut SampleInfo) {
        tokens[0] = i32::from(self.previous.unwrap_or(self.tokenizer.begin()));
        for (i, id) in self.waiting.drain(..length).enumerate() {
            targets[i] = i32::from(id);
            if let Some(input) = tokens.get_mut(i + 1).filter(|_| i + 1 < length) {
                *input = i32::from(id);
            }
            info.bytes += self.tokenizer.token_bytes(id).map_or(0, <[u8]>::len) as u64;
            self.previous = Some(id);
        }
        if self.set.chunking == Chunking::Documents {
            self.previous = self.previous.filter(|&id| id != self.tokenizer.end());
        }
        info.scored = length as u32;
        self.index += 1;
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
