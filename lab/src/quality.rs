//! What can be said of generated text without a reader: how varied it is, how much it repeats itself, and how likely another
//! model finds it.
//!
//! Statistics are of words, what stands between blanks, so that models with different tokenizers can be compared. All of them
//! depend on how much text there is, so only numbers from as many texts of the same length mean anything beside each other;
//! and low perplexity is not quality: a text that repeats itself is likely. Hence the numbers are told together.

use engine::{Error, Result};
use ltm::config::Chunking;
use ltm::data::sources::{IGNORED, SampleInfo, Source};
use ltm::data::tokenizer::Tokenizer;
use ltm::generate::front;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Words in a row that count as repeated when they come again.
pub const REPEATED: usize = 4;

/// How varied texts are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variety {
    /// Words in all.
    pub words: usize,
    /// Entropy of the words' frequencies over all texts, in bits.
    pub entropy: f64,
    /// Part of the runs of [`REPEATED`] words that stood in the same text before (as in Welleck et al., arXiv 1908.04319); 0 if
    /// no text has so many words.
    pub repetition: f64,
    /// Different runs of 1, 2 and 3 words as a part of all such runs, over all texts (Li et al., arXiv 1510.03055); 0 if there
    /// is none.
    pub distinct: [f64; 3],
}

impl Variety {
    /// That of these texts.
    pub fn of<S: AsRef<str>>(texts: &[S]) -> Self {
        let texts: Vec<Vec<&str>> = texts.iter().map(|text| text.as_ref().split_whitespace().collect()).collect();
        let words = texts.iter().map(Vec::len).sum();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        texts.iter().flatten().for_each(|word| *counts.entry(word).or_default() += 1);
        // In a fixed order: a sum of floats is not the same in every one.
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable();
        let entropy = counts.iter().map(|&n| n as f64 / words as f64).map(|p| -p * p.log2()).sum::<f64>();
        let runs = |n: usize| texts.iter().flat_map(move |text| text.windows(n));
        let once: usize = texts.iter().map(|text| different(text.windows(REPEATED))).sum();
        let repetition = 1.0 - part(once, runs(REPEATED).count()).unwrap_or(1.0);
        let distinct = [1, 2, 3].map(|n| part(different(runs(n)), runs(n).count()).unwrap_or(0.0));
        Self { words, entropy, repetition, distinct }
    }
}

fn different<T: Hash + Eq>(items: impl Iterator<Item = T>) -> usize {
    items.collect::<HashSet<_>>().len()
}

fn part(some: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

/// Texts to be judged by a model, one a sequence: each is scored given its prompt, if it has one, as far as the model's
/// sequence reaches.
pub struct Judged {
    sequence: usize,
    end: i32,
    samples: Vec<Sample>,
    cut: usize,
}

struct Sample {
    tokens: Vec<i32>,
    /// Tokens that are only read.
    given: usize,
    bytes: u64,
}

impl Judged {
    /// Prepares pairs of a prompt, which may be empty, and a text for a model with this tokenizer, chunking and sequence
    /// length. Texts without a token are left out.
    ///
    /// # Errors
    /// A prompt that leaves no room for its text, and no text at all.
    pub fn new(
        texts: &[(String, String)],
        tokenizer: &dyn Tokenizer,
        chunking: Chunking,
        sequence: usize,
    ) -> Result<Self> {
        let (mut samples, mut cut) = (Vec::new(), 0);
        for (i, (prompt, text)) in texts.iter().enumerate() {
            let mut tokens = front(tokenizer, chunking)?;
            tokenizer.encode(prompt.as_bytes(), &mut tokens)?;
            let given = tokens.len();
            tokenizer.encode(text.as_bytes(), &mut tokens)?;
            if tokens.len() == given {
                continue;
            }
            if given > sequence {
                return Err(Error::usage(format!(
                    "the prompt of text {i} has {given} tokens, the judge reads {sequence}: use shorter prompts"
                )));
            }
            cut += usize::from(tokens.len() > sequence + 1);
            tokens.truncate(sequence + 1);
            let length = |&id: &u16| tokenizer.token_bytes(id).map_or(0, <[u8]>::len) as u64;
            let bytes = tokens[given..].iter().map(length).sum();
            samples.push(Sample { tokens: tokens.into_iter().map(i32::from).collect(), given, bytes });
        }
        if samples.is_empty() {
            return Err(Error::new("there is no text to judge: all of them are empty"));
        }
        Ok(Self { sequence, end: i32::from(tokenizer.end()), samples, cut })
    }

    /// How many texts are longer than what the model reads, and judged by their beginning.
    pub fn cut(&self) -> usize {
        self.cut
    }
}

impl Source for Judged {
    fn samples(&self) -> Option<u64> {
        Some(self.samples.len() as u64)
    }

    fn sequence(&self) -> usize {
        self.sequence
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        let sample = &self.samples[index as usize];
        tokens.fill(self.end);
        targets.fill(IGNORED);
        let last = sample.tokens.len() - 1;
        tokens[..last].copy_from_slice(&sample.tokens[..last]);
        targets[sample.given - 1..last].copy_from_slice(&sample.tokens[sample.given..]);
        let scored = (sample.tokens.len() - sample.given) as u32;
        Ok(SampleInfo { id: index as u32, scored, bytes: sample.bytes, nats: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::data::tokenizer::Bytes;

    #[test]
    fn variety_by_hand() {
        let v = Variety::of(&["a b a b a b", "a  c\n"]);
        assert_eq!(v.words, 8);
        // Frequencies 4, 3 and 1 of 8.
        assert!((v.entropy - (0.5 + 0.375 * (8.0f64 / 3.0).log2() + 0.125 * 3.0)).abs() < 1e-12);
        // Of abab, baba, abab the last one came before.
        assert!((v.repetition - 1.0 / 3.0).abs() < 1e-12);
        // Pairs ab, ba and ac of six; aba, bab of four.
        assert_eq!(v.distinct, [3.0 / 8.0, 0.5, 0.5]);
        let none = Variety::of(&["", "one"]);
        assert_eq!((none.repetition, none.distinct, none.entropy), (0.0, [1.0, 0.0, 0.0], 0.0));
        assert_eq!(Variety::of::<&str>(&[]), Variety::default());
    }

    #[test]
    fn texts_are_scored_behind_their_prompts() {
        let pair = |prompt: &str, text: &str| (prompt.to_string(), text.to_string());
        let texts = [pair("ab", "cd"), pair("", "efghijkl"), pair("x", "")];
        let judged = Judged::new(&texts, &Bytes, Chunking::Documents, 6).unwrap();
        assert_eq!((judged.samples(), judged.cut()), (Some(2), 1));
        let (mut tokens, mut targets) = ([0; 6], [0; 6]);
        let info = judged.fill(0, &mut tokens, &mut targets).unwrap();
        assert_eq!((tokens, targets), ([256, 97, 98, 99, 257, 257], [-1, -1, 99, 100, -1, -1]));
        assert_eq!((info.scored, info.bytes), (2, 2));
        let info = judged.fill(1, &mut tokens, &mut targets).unwrap();
        assert_eq!((tokens[1], targets, info.scored), (101, [101, 102, 103, 104, 105, 106], 6));
        let error =
            |texts: &[(String, String)]| Judged::new(texts, &Bytes, Chunking::Windows, 6).err().unwrap().to_string();
        assert!(error(&[pair("abcdef", "g")]).contains("the prompt of text 0 has 7 tokens, the judge reads 6"));
        assert!(error(&[pair("a", "")]).contains("no text to judge"));
    }
}
