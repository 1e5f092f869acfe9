//! The embedded corpus as a source of samples: text without end and without files.

use super::batches::{IGNORED, SampleInfo, Source};
use super::tokenizer::{Bytes, Tokenizer};
use crate::corpus::Corpus;
use engine::{Error, Result};

/// One story of the embedded corpus per sample, as bytes; each with its exact −log p.
pub struct Stories {
    corpus: Corpus,
    seed: u64,
    sequence: usize,
    samples: Option<u64>,
}

impl Stories {
    /// Stories `0..samples` under `seed`; all of its 2³² stories, again and again, if `samples` is `None`.
    ///
    /// # Errors
    /// If a story may be too long for `sequence` tokens, or there are none.
    pub fn new(corpus: Corpus, seed: u64, sequence: usize, samples: Option<u64>) -> Result<Self> {
        let longest = corpus.max_bytes() + 1;
        if longest > sequence {
            return Err(Error::usage(format!(
                "stories have up to {longest} tokens with their end, a sequence {sequence}: make sequences longer or stories shorter"
            )));
        }
        match samples {
            Some(0) => Err(Error::usage("0 stories: at least 1 is needed")),
            _ => Ok(Self { corpus, seed, sequence, samples }),
        }
    }
}

impl Source for Stories {
    fn samples(&self) -> Option<u64> {
        self.samples
    }

    fn sequence(&self) -> usize {
        self.sequence
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        let id = index as u32;
        let story = self.corpus.document(self.seed, id);
        let n = story.bytes.len();
        tokens.fill(i32::from(Bytes.end()));
        tokens[0] = i32::from(Bytes.begin());
        targets.fill(IGNORED);
        targets[n] = i32::from(Bytes.end());
        for (i, &byte) in story.bytes.iter().enumerate() {
            targets[i] = i32::from(byte);
            tokens[i + 1] = i32::from(byte);
        }
        Ok(SampleInfo { id, scored: n as u32 + 1, bytes: n as u64, nats: Some(story.nats) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_a_sequence_from_begin_to_end() {
        let corpus = Corpus::default();
        let sequence = corpus.max_bytes() + 1;
        let stories = Stories::new(Corpus::default(), 3, sequence, None).unwrap();
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
        }
        let error = Stories::new(Corpus::default(), 3, 50, None).err().unwrap().to_string();
        assert!(error.contains("a sequence 50"), "{error}");
        assert!(Stories::new(Corpus::default(), 3, sequence, Some(0)).is_err());
    }
}
