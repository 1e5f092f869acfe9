//! Sequences of tokens: what training and evaluation go through.
//!
//! A sample has N inputs and N targets. Target i is the token that follows input i; −1 is ignored. The first token of a
//! text is a target too: the input in front of it is the begin token. Text is cut into samples in one of two ways:
//! - [`Windows`]: the stream of tokens, begin token in front, in consecutive windows. The first input of a window is the last
//!   target of the window before, so that every token of the stream, end tokens included, is a target exactly once.
//! - [`Documents`]: one document per sample: begin token, document; its end token is the last target.
//!
//! What a sample holds depends on its number alone. Resuming needs no more than the number of samples seen.

use super::dataset::Dataset;
use engine::rng::Stream;
use engine::{Error, Result};
use std::sync::Arc;

/// Target of a position that is not scored.
pub const IGNORED: i32 = -1;

/// Separates the order of samples from all other uses of randomness: "SHUF".
const SITE: u32 = 0x5348_5546;

/// What is known of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleInfo {
    /// Identity of the sample within its source, which keys its noise.
    pub id: u32,
    /// Number of targets that are scored; they come first.
    pub scored: u32,
    /// Bytes of text behind the scored targets.
    pub bytes: u64,
    /// −log p of the scored targets under the process that made them, in nats, where it is known.
    pub nats: Option<f64>,
}

/// Samples by number.
pub trait Source: Send + Sync {
    /// Number of samples, at least one; `None` if they do not end.
    fn samples(&self) -> Option<u64>;

    /// N: inputs per sample, and targets.
    fn sequence(&self) -> usize;

    /// Writes sample `index`: N inputs and N targets.
    ///
    /// # Errors
    /// Tokens that cannot be read.
    ///
    /// # Panics
    /// If `index` is not below [`Source::samples`] or a slice has not N places.
    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo>;
}

/// What becomes of the tokens behind the last whole window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// They are left out: for learning.
    Drop,
    /// They are a window, filled up with ignored targets: for evaluation, where every token counts.
    Pad,
}

/// Consecutive windows of a stream of tokens.
pub struct Windows {
    data: Dataset,
    sequence: usize,
    samples: u64,
}

impl Windows {
    /// Windows of `sequence` tokens.
    ///
    /// # Errors
    /// If there would be none.
    pub fn new(data: Dataset, sequence: usize, tail: Tail) -> Result<Self> {
        if sequence == 0 {
            return Err(Error::usage("a sequence has at least 1 token"));
        }
        let samples = match tail {
            Tail::Drop => data.len() / sequence as u64,
            Tail::Pad => data.len().div_ceil(sequence as u64),
        };
        match samples {
            0 => Err(Error::new(format!(
                "{}: {} tokens are fewer than one sequence of {sequence}: more text or a shorter sequence is needed",
                data.name().display(),
                data.len()
            ))),
            _ => Ok(Self { data, sequence, samples }),
        }
    }
}

impl Source for Windows {
    fn samples(&self) -> Option<u64> {
        Some(self.samples)
    }

    fn sequence(&self) -> usize {
        self.sequence
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        assert!(index < self.samples, "sample {index} of {}", self.samples);
        let start = index * self.sequence as u64;
        let len = (self.data.len() - start).min(self.sequence as u64) as u32;
        let before = if start == 0 { Before::Begin } else { Before::Token };
        fill_span(&self.data, index, Span { start, len, before }, tokens, targets)
    }
}

/// What becomes of a document that does not fit into a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongDocuments {
    /// It is an error.
    Refuse,
    /// It becomes several samples, cut as a stream is cut into windows.
    Split,
}

/// One document per sample. Documents without text (a lone end token) are left out.
pub struct Documents {
    data: Dataset,
    sequence: usize,
    spans: Vec<Span>,
}

impl Documents {
    /// Documents of at most `sequence` tokens, end token included. Takes 16 bytes of memory per document.
    ///
    /// # Errors
    /// If there are none, or one is too long and [`LongDocuments::Refuse`] is asked for.
    pub fn new(data: Dataset, sequence: usize, long: LongDocuments) -> Result<Self> {
        if sequence == 0 {
            return Err(Error::usage("a sequence has at least 1 token"));
        }
        let (mut spans, mut start, mut first) = (Vec::new(), 0, [0]);
        for end in data.document_ends() {
            data.read(start, &mut first)?;
            let len = end - start;
            if len > sequence as u64 && long == LongDocuments::Refuse {
                return Err(Error::new(format!(
                    "{}: the document from here on has {len} tokens with its end, a sequence {sequence}: \
                     make sequences longer or let long documents be split",
                    data.place(start)
                )));
            }
            if len > 1 || first[0] != i32::from(data.tokenizer().end()) {
                for at in (start..end).step_by(sequence) {
                    let before = if at == start { Before::Begin } else { Before::Token };
                    spans.push(Span { start: at, len: (end - at).min(sequence as u64) as u32, before });
                }
            }
            start = end;
        }
        match spans.is_empty() {
            true => Err(Error::new(format!("{} holds no document", data.name().display()))),
            false => Ok(Self { data, sequence, spans }),
        }
    }
}

impl Source for Documents {
    fn samples(&self) -> Option<u64> {
        Some(self.spans.len() as u64)
    }

    fn sequence(&self) -> usize {
        self.sequence
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        fill_span(&self.data, index, self.spans[index as usize], tokens, targets)
    }
}

/// Tokens that are the targets of one sample.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    len: u32,
    before: Before,
}

/// The input in front of a sample's first target.
#[derive(Clone, Copy)]
enum Before {
    Begin,
    /// The token that stands there.
    Token,
}

fn fill_span(data: &Dataset, index: u64, span: Span, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
    assert_eq!(tokens.len(), targets.len());
    let n = span.len as usize;
    data.read(span.start, &mut targets[..n])?;
    match span.before {
        Before::Begin => tokens[0] = i32::from(data.tokenizer().begin()),
        Before::Token => data.read(span.start - 1, &mut tokens[..1])?,
    }
    tokens[1..n].copy_from_slice(&targets[..n - 1]);
    tokens[n..].fill(i32::from(data.tokenizer().end()));
    targets[n..].fill(IGNORED);
    Ok(SampleInfo { id: index as u32, scored: span.len, bytes: data.bytes_of(&targets[..n]), nats: None })
}

/// The order in which samples come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Once through, in order; afterwards samples without any scored target, which fill up the last batch.
    Once,
    /// Again and again, each time in another order drawn from this seed. A source without end comes in order.
    Shuffled {
        /// The run's seed.
        seed: u64,
    },
}

/// Several samples, one behind the other.
#[derive(Clone, Debug)]
pub struct Batch {
    /// [B, N] inputs.
    pub tokens: Vec<i32>,
    /// [B, N] targets.
    pub targets: Vec<i32>,
    /// B samples.
    pub samples: Vec<SampleInfo>,
}

impl Batch {
    /// Room for `size` samples of `sequence` tokens.
    pub fn new(size: usize, sequence: usize) -> Self {
        let tokens = vec![0; size * sequence];
        Self { targets: tokens.clone(), tokens, samples: vec![SampleInfo::default(); size] }
    }

    /// Number of scored targets.
    pub fn scored(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.scored)).sum()
    }

    /// Bytes of text behind them.
    pub fn bytes(&self) -> u64 {
        self.samples.iter().map(|sample| sample.bytes).sum()
    }
}

/// Samples of a source in an order; any place in that order can be asked for.
pub struct Sampler {
    source: Arc<dyn Source>,
    order: Order,
    /// The last epoch asked for, and its order.
    epoch: Option<(u64, Vec<u32>)>,
}

impl Sampler {
    /// Samples of `source` in `order`.
    ///
    /// # Errors
    /// If there are too many samples to be shuffled.
    pub fn new(source: Arc<dyn Source>, order: Order) -> Result<Self> {
        match (order, source.samples()) {
            (Order::Shuffled { .. }, Some(samples)) if u32::try_from(samples).is_err() => {
                Err(Error::new(format!("{samples} samples cannot be shuffled, at most {}", u32::MAX)))
            }
            _ => Ok(Self { source, order, epoch: None }),
        }
    }

    /// Where the samples come from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Fills a batch with the samples from place `first` on. Itself allocates at the start of an epoch only.
    ///
    /// # Errors
    /// Tokens that cannot be read.
    pub fn fill(&mut self, first: u64, batch: &mut Batch) -> Result<()> {
        let n = self.source.sequence();
        let places = batch.tokens.chunks_exact_mut(n).zip(batch.targets.chunks_exact_mut(n)).zip(&mut batch.samples);
        for (place, ((tokens, targets), info)) in (first..).zip(places) {
            *info = match self.sample_at(place) {
                Some(index) => self.source.fill(index, tokens, targets)?,
                None => {
                    tokens.fill(0);
                    targets.fill(IGNORED);
                    SampleInfo { id: place as u32, ..SampleInfo::default() }
                }
            };
        }
        Ok(())
    }

    /// The number, in its source, of the sample at `place` of the order; `None` behind the end.
    pub fn sample_at(&mut self, place: u64) -> Option<u64> {
        let Some(samples) = self.source.samples() else { return Some(place) };
        match self.order {
            Order::Once => (place < samples).then_some(place),
            Order::Shuffled { seed } => {
                let epoch = place / samples;
                if self.epoch.as_ref().is_none_or(|(at, _)| *at != epoch) {
                    let stream = Stream::new(seed, SITE).step(epoch as u32);
                    self.epoch = Some((epoch, stream.permutation(samples as usize)));
                }
                self.epoch.as_ref().map(|(_, order)| u64::from(order[(place % samples) as usize]))
            }
        }
    }
}

#[cfg(test)]
#[path = "batches_tests.rs"]
mod tests;
