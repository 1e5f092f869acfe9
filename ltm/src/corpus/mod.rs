//! An endless corpus of small stories whose exact probability is known.
//!
//! A story has persistent facts: who the hero and the friend are, which thing of which colour they are after, the place,
//! the animal, the reason. They are drawn once and come back in sentence after sentence:
//!
//! > Finn hid the amber key. The owl lived in Oslo. Finn paid Rosa out of envy. The amber key was in Oslo.
//!
//! Consecutive sentences never share a fact, so the last mention of a fact is at least a whole sentence away. A reader with
//! a short window has to guess the fact again each time; one with a memory pays for it once.
//!
//! # The source
//! 1. The number of sentences is uniform on [`CorpusConfig::sentences`].
//! 2. The first sentence's template is uniform on all templates, every later one on those that share no fact with the
//!    sentence before.
//! 3. Every fact is uniform on its list, and so is every filler (a verb), anew wherever one stands.
//!
//! # Why log p is exact
//! A story is the sequence of these choices, without the facts that are never mentioned. The text gives the sequence back:
//! a sentence ends at its full stop, its words tell its template (no two templates show the same sequence of slots and
//! fixed words, and a word fits one slot only), and the template tells which word is which choice. So different choices
//! make different texts, and p(text) is the probability of the one sequence that makes it: the product over its choices,
//! with no sum over hidden derivations. A fact that is never mentioned leaves no trace; summing over its values multiplies by
//! one, so it costs nothing. The number of sentences is one of the choices, so the end of the document is scored. The
//! drawing departs from uniform by less than 2⁻⁵⁴ per choice (see [`engine::rng::Stream::below`]).
//!
//! All amounts are in nats per document. They concern the bytes followed by an end token.
//!
//! ```
//! use ltm::corpus::Corpus;
//!
//! let corpus = Corpus::default();
//! let story = corpus.document(7, 0);
//! // The text alone tells what it costs.
//! let nats = -corpus.log_prob(&story.bytes).expect("a story");
//! assert!((nats - story.nats).abs() < 1e-9);
//! assert_eq!(corpus.log_prob(b"No story of this source."), None);
//! // Who sees 16 bytes back pays for the same facts again and again.
//! assert!(corpus.windowed_nats(&story.bytes, 16) > Some(1.5 * nats));
//! ```

mod entropy;
mod grammar;
mod story;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use engine::{Error, Result};

pub use entropy::Expected;
use grammar::{FACTS, MOST_VALUES, Template};

/// What may vary about the stories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusConfig {
    /// Fewest and most sentences of a story, within 1..=1000.
    pub sentences: RangeInclusive<usize>,
    /// How many words of every list are in use, 1 to 16; lists of fillers are shorter and may be used whole.
    pub values: usize,
}

impl Default for CorpusConfig {
    /// Stories that fit into a sequence of 256 tokens, begin and end included.
    fn default() -> Self {
        Self { sentences: 6..=8, values: MOST_VALUES }
    }
}

const MOST_SENTENCES: usize = 1000;

/// The source: draws stories and knows how likely every text is.
pub struct Corpus {
    config: CorpusConfig,
    templates: Vec<Template>,
    /// The templates that may open a story: all of them.
    opening: Vec<usize>,
    /// The templates that may follow each template.
    next: Vec<Vec<usize>>,
}

/// A document and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The text, ASCII, without begin or end token.
    pub bytes: Vec<u8>,
    /// −log p of the text and its end under the source, in nats.
    pub nats: f64,
}

/// A fact's value where it stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    fact: usize,
    /// Bytes from the text's start to the word's first letter.
    pub start: usize,
    /// The word that stands there.
    pub value: &'static str,
}

impl Mention {
    /// Which fact it is: hero, friend, colour, thing, place, animal or reason.
    pub fn name(&self) -> &'static str {
        FACTS[self.fact].name
    }
}

/// How well a text keeps to its own facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consistency {
    /// Mentions of a fact that had been mentioned before.
    pub repeats: usize,
    /// Those among them with the same value as the fact's first mention.
    pub kept: usize,
}

impl Default for Corpus {
    /// The corpus of [`CorpusConfig::default`]: 188 bytes and 34.9 nats per story, 19.3 of them facts. A reader who forgets a
    /// fact after 32 bytes pays 72.0 nats, one who forgets it after 64 bytes 42.3 (see [`Corpus::windowed_nats`]).
    fn default() -> Self {
        Self::assemble(CorpusConfig::default())
    }
}

impl Corpus {
    /// The source for `config`.
    ///
    /// # Errors
    /// A usage error where the range of sentences is empty or not within 1..=1000, or `values` is not within 1..=16.
    pub fn new(config: CorpusConfig) -> Result<Self> {
        let (least, most) = (*config.sentences.start(), *config.sentences.end());
        if least == 0 || most < least || most > MOST_SENTENCES {
            return Err(Error::usage(format!(
                "corpus sentences = {least}..={most}: need 1 <= first <= last <= {MOST_SENTENCES}"
            )));
        }
        if !(1..=MOST_VALUES).contains(&config.values) {
            return Err(Error::usage(format!("corpus values = {}: need 1 to {MOST_VALUES}", config.values)));
        }
        Ok(Self::assemble(config))
    }

    /// A source so small that all of its documents can be listed.
    pub fn tiny() -> Self {
        Self::assemble(CorpusConfig { sentences: 1..=3, values: 2 })
    }

    fn assemble(config: CorpusConfig) -> Self {
        let templates = Template::all();
        let apart = |a: &Template, b: &Template| a.facts().all(|fact| !b.mentions(fact));
        let next = templates.iter().map(|a| (0..templates.len()).filter(|&b| apart(a, &templates[b])).collect());
        Self { config, opening: (0..templates.len()).collect(), next: next.collect(), templates }
    }

    /// What the source was made from.
    pub fn config(&self) -> &CorpusConfig {
        &self.config
    }

    /// The templates that may follow the sentence `previous`, or open a story.
    fn choices(&self, previous: Option<usize>) -> &[usize] {
        previous.map_or(&self.opening, |template| &self.next[template])
    }

    /// Fewest sentences of a story, and how many different numbers of them there are.
    fn lengths(&self) -> (usize, usize) {
        let (least, most) = (*self.config.sentences.start(), *self.config.sentences.end());
        (least, most - least + 1)
    }

    /// Document number `index` under `seed`: the same whenever and wherever it is asked for.
    pub fn document(&self, seed: u64, index: u32) -> Document {
        let story = self.draw(seed, index);
        let bytes = self.write(&story);
        let nats = self.nats(&story, &bytes, usize::MAX);
        Document { bytes, nats }
    }

    /// log p of `text` as a whole document, in nats; `None` if the source cannot produce it.
    pub fn log_prob(&self, text: &[u8]) -> Option<f64> {
        self.windowed_nats(text, usize::MAX).map(|nats| -nats)
    }

    /// What `text` costs a reader who knows the source but sees no more than the `window` bytes before the next one:
    /// a fact is paid for again unless some letter of an earlier mention is in sight. Everything else is taken to be
    /// known. On average over documents, no autoregressive model whose receptive field is `window` bytes costs less.
    ///
    /// `None` if the source cannot produce `text`.
    pub fn windowed_nats(&self, text: &[u8], window: usize) -> Option<f64> {
        self.read(text).map(|story| self.nats(&story, text, window))
    }

    /// Length of the longest document in bytes; no more than the sequence's N − 1, for the begin token in front.
    pub fn max_bytes(&self) -> usize {
        let longest: Vec<usize> = self.templates.iter().map(|t| t.longest(self.config.values)).collect();
        let mut ending_in = longest.clone();
        for _ in 1..*self.config.sentences.end() {
            let mut longer = vec![0; longest.len()];
            for (t, next) in self.next.iter().enumerate() {
                for &n in next {
                    longer[n] = longer[n].max(ending_in[t] + 1 + longest[n]);
                }
            }
            ending_in = longer;
        }
        ending_in.into_iter().max().unwrap_or(0)
    }

    /// The facts that any text mentions, well-formed or not, from its start to its end.
    pub fn mentions(&self, text: &[u8]) -> Vec<Mention> {
        let mut start = 0;
        let mut found = Vec::new();
        for word in text.split(|b| !b.is_ascii_alphabetic()) {
            for (fact, list) in FACTS.iter().enumerate() {
                let value = list.words[..self.config.values].iter().find(|value| value.as_bytes() == word);
                found.extend(value.map(|value| Mention { fact, start, value }));
            }
            start += word.len() + 1;
        }
        found
    }

    /// Counts how often any text, well-formed or not, comes back to one of its facts, and how often it keeps to it.
    pub fn consistency(&self, text: &[u8]) -> Consistency {
        let mut first = [None; FACTS.len()];
        let mut count = Consistency::default();
        for mention in self.mentions(text) {
            match first[mention.fact] {
                None => first[mention.fact] = Some(mention.value),
                Some(value) => {
                    count.repeats += 1;
                    count.kept += usize::from(value == mention.value);
                }
            }
        }
        count
    }
}
