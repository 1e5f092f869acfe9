//! Samples for training and evaluation, with N inputs and N targets each.
//!
//! Target i is the token that follows input i; −1 is ignored. The first token of a text is also a target: the input
//! before it is the begin token. [`Sequences`] cut text into samples in one of two ways:
//! - [`Chunking::Windows`]: the stream of tokens, begin token first, in consecutive windows. The first input of a window is the
//!   last target of the window before, so that every token of the stream, end tokens included, is a target exactly once.
//! - [`Chunking::Documents`]: one document per sample: begin token, document; its end token is the last target. A
//!   document that is too long becomes several samples, cut like a stream into windows; one without text (only an end
//!   token) is skipped.
//!
//! [`Stories`] are documents of the embedded corpus, an endless source without files.

use super::dataset::Dataset;
use super::tokenizer::{Bytes, Tokenizer};
use crate::config::Chunking;
use crate::corpus::{Corpus, Facts};
use engine::{Error, Result};

/// Target of a position that is not scored.
pub const IGNORED: i32 = -1;

/// Facts about a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleInfo {
    /// Identity of the sample within its source, which keys its noise.
    pub id: u32,
    /// Number of targets that are scored; they come first.
    pub scored: u32,
    /// Bytes of text of the scored targets.
    pub bytes: u64,
    /// Bytes of text of the later half of them: those from target ⌊scored/2⌋ on.
    pub later_bytes: u64,
    /// −log p of the scored targets under their true source, in nats, if known.
    pub nats: Option<f64>,
    /// The facts of a story of the embedded corpus.
    pub facts: Option<Facts>,
}

/// Samples by index. The content of a sample depends only on its index.
pub trait Source: Send + Sync {
    /// Number of samples, at least one; `None` if endless.
    fn samples(&self) -> Option<u64>;

    /// Writes sample `index`: N inputs and N targets, the length of its sequences.
    ///
    /// # Errors
    /// If its file cannot be read, or has changed since it was opened.
    ///
    /// # Panics
    /// If `index` is not below [`Source::samples`] or a slice has not N places.
    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo>;
}

/// The treatment of tokens after the last complete window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// They are dropped, for training.
    Drop,
    /// They form a window, filled up with ignored targets, for evaluation, where every token counts.
    Pad,
}

/// Streams of tokens as samples, those of the first stream first.
pub struct Sequences {
    streams: Vec<Stream>,
    sequence: usize,
    samples: u64,
}

struct Stream {
    /// Number of samples in earlier streams.
    first: u64,
    data: Dataset,
    /// The range of each sample, if samples are documents; windows are adjacent.
    documents: Option<Vec<Span>>,
}

/// The range of tokens that are the targets of one sample.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    len: u32,
    /// Whether the begin token is the first input; else the token before the span is.
    is_first: bool,
}

impl Sequences {
    /// Samples of `sequence` tokens, at least one of each stream. Documents take 16 bytes of memory each.
    ///
    /// # Errors
    /// If a stream has no sample, or a file cannot be read.
    pub fn new(data: Vec<Dataset>, chunking: Chunking, sequence: usize, tail: Tail) -> Result<Self> {
        let (mut streams, mut first) = (Vec::new(), 0);
        for data in data {
            let documents = (chunking == Chunking::Documents).then(|| documents(&data, sequence)).transpose()?;
            let samples = match &documents {
                Some(spans) => spans.len() as u64,
                None if tail == Tail::Drop => data.len() / sequence as u64,
                None => data.len().div_ceil(sequence as u64),
            };
            if samples == 0 {
                return Err(Error::new(format!(
                    "{}: {} tokens are too few for a sequence of {sequence}: use more text or a shorter sequence",
                    data.files().next().expect("a file").path.display(),
                    data.len()
                )));
            }
            streams.push(Stream { first, data, documents });
            first += samples;
        }
        Ok(Self { streams, sequence, samples: first })
    }
}

/// The documents of `data` that have text, cut if they are longer than `sequence`.
fn documents(data: &Dataset, sequence: usize) -> Result<Vec<Span>> {
    let (mut spans, mut start) = (Vec::new(), 0);
    let is_end = |at: u64| {
        let mut token = [0];
        data.read(at, &mut token).map(|()| token[0] == i32::from(data.tokenizer.end()))
    };
    for end in data.document_ends()? {
        if end - start > 1 || !is_end(start)? {
            let part = |at: u64| Span { start: at, len: (end - at).min(sequence as u64) as u32, is_first: at == start };
            spans.extend((start..end).step_by(sequence).map(part));
        }
        start = end;
    }
    Ok(spans)
}

impl Source for Sequences {
    fn samples(&self) -> Option<u64> {
        Some(self.samples)
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        let stream = self.streams.partition_point(|stream| stream.first <= index) - 1;
        let Stream { first, data, documents } = &self.streams[stream];
        let (place, sequence) = (index - first, self.sequence as u64);
        let start = place * sequence;
        let window = || Span { start, len: (data.len() - start).min(sequence) as u32, is_first: start == 0 };
        let span = documents.as_ref().map_or_else(window, |spans| spans[place as usize]);
        let n = span.len as usize;
        data.read(span.start, &mut targets[..n])?;
        if span.is_first {
            tokens[0] = i32::from(data.tokenizer.begin());
        } else {
            data.read(span.start - 1, &mut tokens[..1])?;
        }
        tokens[1..n].copy_from_slice(&targets[..n - 1]);
        tokens[n..].fill(i32::from(data.tokenizer.end()));
        targets[n..].fill(IGNORED);
        let (bytes, later_bytes) = (data.bytes_of(&targets[..n]), data.bytes_of(&targets[n / 2..n]));
        Ok(SampleInfo { id: index as u32, scored: span.len, bytes, later_bytes, nats: None, facts: None })
    }
}

/// One story of the embedded corpus per sample, as bytes; each with its exact −log p.
pub struct Stories {
    corpus: Corpus,
    seed: u64,
    samples: Option<u64>,
}

impl Stories {
    /// Stories `0..samples` of `corpus` under `seed`; all of its 2³² stories, again and again, if `samples` is `None`.
    pub fn new(corpus: Corpus, seed: u64, samples: Option<u64>) -> Self {
        Self { corpus, seed, samples }
    }
}

impl Source for Stories {
    fn samples(&self) -> Option<u64> {
        self.samples
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        let id = index as u32;
        let story = self.corpus.document(self.seed, id);
        let n = story.bytes.len();
        let [begin, end] = [Bytes.begin(), Bytes.end()].map(i32::from);
        tokens.fill(end);
        targets.fill(IGNORED);
        tokens[0] = begin;
        targets[n] = end;
        for (i, &byte) in story.bytes.iter().enumerate() {
            targets[i] = i32::from(byte);
            tokens[i + 1] = i32::from(byte);
        }
        let (scored, bytes) = (n as u32 + 1, n as u64);
        let later_bytes = bytes - u64::from(scored / 2);
        Ok(SampleInfo { id, scored, bytes, later_bytes, nats: Some(story.nats), facts: Some(story.facts) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::memory;
    use engine::rng;

    const END: u16 = 257;

    /// Inputs, targets, scored targets and bytes of every sample.
    type Sample = (Vec<i32>, Vec<i32>, u32, u64);

    fn samples(source: &Sequences) -> Vec<Sample> {
        let sample = |index| {
            let (mut tokens, mut targets) = (vec![77; source.sequence], vec![77; source.sequence]);
            let info = source.fill(index, &mut tokens, &mut targets).unwrap();
            assert_eq!((u64::from(info.id), info.nats), (index, None));
            let later = &targets[info.scored as usize / 2..info.scored as usize];
            assert_eq!(info.later_bytes, later.iter().filter(|&&id| id != i32::from(END)).count() as u64);
            (tokens, targets, info.scored, info.bytes)
        };
        (0..source.samples).map(sample).collect()
    }

    fn sequences(tokens: &[u16], chunking: Chunking, sequence: usize, tail: Tail) -> Result<Sequences> {
        Sequences::new(vec![memory(tokens)], chunking, sequence, tail)
    }

    #[test]
    fn windows_score_every_token_once() {
        let expected = [
            (vec![256, 1, 2], vec![1, 2, 3], 3, 3),
            (vec![3, 257, 4], vec![257, 4, 5], 3, 2),
            (vec![5, 257, 257], vec![6, -1, -1], 1, 1),
        ];
        let tokens = [1, 2, 3, END, 4, 5, 6];
        for (tail, count) in [(Tail::Pad, 3), (Tail::Drop, 2)] {
            assert_eq!(samples(&sequences(&tokens, Chunking::Windows, 3, tail).unwrap()), expected[..count]);
        }
        let two = Sequences::new(vec![memory(&tokens), memory(&tokens)], Chunking::Windows, 3, Tail::Pad).unwrap();
        assert_eq!(samples(&two), [expected.clone(), expected].concat());
        let error = sequences(&[1, 2], Chunking::Windows, 3, Tail::Drop).err().unwrap().to_string();
        let said = "memory: 2 tokens are too few for a sequence of 3: use more text or a shorter sequence";
        assert_eq!(error, said);
    }

    #[test]
    fn documents_begin_and_end() {
        // An end token first, as in llm.c; an empty document; one that just fits; one that is too long and lacks its
        // end.
        let tokens = [END, 1, 2, END, END, 3, 4, 5, END, 6, 7, 8, 9, 10];
        let expected = [
            (vec![256, 1, 2, 257], vec![1, 2, 257, -1], 3, 2),
            (vec![256, 3, 4, 5], vec![3, 4, 5, 257], 4, 3),
            (vec![256, 6, 7, 8], vec![6, 7, 8, 9], 4, 4),
            (vec![9, 257, 257, 257], vec![10, -1, -1, -1], 1, 1),
        ];
        assert_eq!(samples(&sequences(&tokens, Chunking::Documents, 4, Tail::Pad).unwrap()), expected);
        assert!(sequences(&[END, END], Chunking::Documents, 4, Tail::Pad).is_err());
    }

    /// For any text and length, the scored targets are the text, and every input is the target before it.
    #[test]
    fn targets_are_the_text() {
        for round in 0..200 {
            let dice = rng::Stream::new(5, 0).step(round);
            let tokens: Vec<u16> = (0..1 + dice.below(0, 60) as u32)
                .map(|i| if dice.below(1 + i, 5) == 0 { END } else { 65 + dice.below(100 + i, 26) as u16 })
                .collect();
            let sequence = 1 + dice.below(99, 12);
            let mut texts = tokens.clone();
            texts.dedup_by(|a, b| *a == END && *b == END);
            if texts[0] == END {
                texts.remove(0);
            }
            for (chunking, expected) in [(Chunking::Windows, tokens.clone()), (Chunking::Documents, texts)] {
                let Ok(source) = sequences(&tokens, chunking, sequence, Tail::Pad) else { continue };
                let (mut found, mut all_bytes) = (Vec::new(), 0);
                for (inputs, targets, scored, bytes) in samples(&source) {
                    let n = scored as usize;
                    assert!(n > 0 && inputs[1..n] == targets[..n - 1] && targets[n..].iter().all(|&id| id == IGNORED));
                    let before = found.last().map_or(256, |&id| i32::from(id));
                    assert!(inputs[0] == before || (inputs[0] == 256 && before == i32::from(END)));
                    found.extend(targets[..n].iter().map(|&id| id as u16));
                    all_bytes += bytes;
                }
                assert_eq!(found, expected);
                assert_eq!(all_bytes, expected.iter().filter(|&&id| id != END).count() as u64);
            }
        }
    }

    #[test]
    fn a_story_is_a_sequence_from_begin_to_end() {
        let mut config = Config::default();
        config.model.seq = 300;
        let [corpus, again] = [(); 2].map(|()| Corpus::of(&config).unwrap());
        let sequence = config.model.seq;
        let stories = Stories::new(again, 3, None);
        let (mut tokens, mut targets) = (vec![7; sequence], vec![7; sequence]);
        for index in 0..20 {
            let info = stories.fill(index, &mut tokens, &mut targets).unwrap();
            let scored = info.scored as usize;
            let ids: Vec<u16> = targets[..scored].iter().map(|&id| id as u16).collect();
            let text = Bytes.decode(&ids).unwrap();
            assert_eq!((text.len() as u64, ids[scored - 1]), (info.bytes, 257));
            assert_eq!(tokens[0], 256);
            assert_eq!(tokens[1..scored], targets[..scored - 1]);
            assert!(targets[scored..].iter().all(|&id| id == IGNORED) && tokens[scored..].iter().all(|&id| id == 257));
            let nats = -corpus.log_prob(&text).unwrap();
            assert!((info.nats.unwrap() - nats).abs() < 1e-9);
            assert_eq!(info.later_bytes as usize, scored - 1 - scored / 2);
        }
        config.model.seq = 20;
        let error = Corpus::of(&config).err().unwrap().to_string();
        assert!(error.contains("model.seq = 20"), "{error}");
    }
}
