//! An endless corpus of small stories whose exact probability is known.
//!
//! A story has persistent facts: the hero, the friend, the thing and its colour, the place, the animal, the reason.
//! They are drawn once and recur in later sentences:
//!
//! > Finn hid the amber key. The owl lived in Oslo. Finn paid Rosa out of envy. The amber key was in Oslo.
//!
//! Consecutive sentences never share a fact, so the last mention of a fact is at least a whole sentence away. A model
//! with a short window must guess the fact again each time; a model with a memory pays for it once.
//!
//! # The source
//! 1. The number of sentences is uniform on 6 to 8.
//! 2. The first sentence's template is uniform on all templates, every later one on those that share no fact with the
//!    sentence before.
//! 3. Every fact is uniform on its list, and so is every filler (a verb), drawn anew at every place.
//!
//! # Why log p is exact
//! A story is the sequence of these choices, without facts that are never mentioned. The text determines the sequence:
//! a sentence ends at its full stop, its words determine its template (no two templates have the same sequence of slots
//! and fixed words, and a word fits only one slot), and the template determines the choice for each word. So different
//! choices give different texts, and p(text) is the product over the choices of its only sequence, without a sum over
//! hidden derivations. Summing over the values of a fact that is never mentioned multiplies by one, so it costs
//! nothing. The number of sentences is one of the choices, so the end of the document is scored. Draws deviate from
//! uniform by less than 2⁻⁵⁴ per choice (see [`engine::rng::Stream::below`]).
//!
//! All amounts are in nats per document. They concern the bytes followed by an end token.

mod grammar;
mod story;
#[cfg(test)]
mod tests;

use grammar::{FACTS, MOST_VALUES, Template, words_of};
use std::ops::RangeInclusive;
use story::Sentence;

/// The source: draws stories and computes the exact probability of every text.
pub struct Corpus {
    /// Fewest and most sentences of a story.
    sentences: RangeInclusive<usize>,
    /// Number of words used of every list; lists of fillers are shorter and may be used completely.
    values: usize,
    templates: Vec<Template>,
    /// The templates that may open a story: all of them.
    opening: Vec<usize>,
    /// The templates that may follow each template.
    next: Vec<Vec<usize>>,
    /// The words of each fact.
    facts: Vec<Vec<&'static str>>,
}

/// A document and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The text, ASCII, without begin or end token.
    pub bytes: Vec<u8>,
    /// −log p of the text and its end under the source, in nats.
    pub nats: f64,
}

/// How consistent a text is with its own facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consistency {
    /// Repeated mentions of facts.
    pub repeats: usize,
    /// Repeated mentions with the same value as the first.
    pub kept: usize,
}

impl Default for Corpus {
    /// Stories that fit into a sequence of 256 tokens, begin and end included: 188 bytes and 34.9 nats on average. A
    /// model that forgets a fact after 32 bytes costs 72.0 nats, after 64 bytes 42.3 (see [`Corpus::windowed_nats`]).
    fn default() -> Self {
        Self::new(6..=8, MOST_VALUES)
    }
}

impl Corpus {
    fn new(sentences: RangeInclusive<usize>, values: usize) -> Self {
        let templates = Template::all(values);
        let apart = |a: &Template, b: &Template| (0..FACTS.len()).all(|fact| !a.mentions(fact) || !b.mentions(fact));
        let follows = |a| (0..templates.len()).filter(|&b| apart(a, &templates[b])).collect();
        let next = templates.iter().map(follows).collect();
        let facts = FACTS.iter().map(|list| words_of(list, values)).collect();
        Self { sentences, values, opening: (0..templates.len()).collect(), next, facts, templates }
    }

    /// The templates that may follow the sentence `previous`, or open a story.
    fn choices(&self, previous: Option<&Sentence>) -> &[usize] {
        previous.map_or(&self.opening, |sentence| &self.next[sentence.template])
    }

    /// Number of possible sentence counts.
    fn lengths(&self) -> usize {
        self.sentences.end() - self.sentences.start() + 1
    }

    /// Document number `index` under `seed`, always the same.
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

    /// The cost of `text` for a model that knows the source but sees only the last `window` bytes: it pays for a fact
    /// again unless a letter of an earlier mention is in the window. Everything else counts as known. On average over
    /// documents, no autoregressive model with a receptive field of `window` bytes costs less.
    ///
    /// `None` if the source cannot produce `text`.
    pub fn windowed_nats(&self, text: &[u8], window: usize) -> Option<f64> {
        self.read(text).map(|story| self.nats(&story, text, window))
    }

    /// Length of the longest document in bytes, at most N − 1 because of the begin token.
    pub fn max_bytes(&self) -> usize {
        let mut ending_in = vec![0; self.templates.len()];
        for _ in 0..*self.sentences.end() {
            // The relation is symmetric: a template that may follow another may also precede it.
            let before = |next: &[usize]| next.iter().map(|&t| ending_in[t] + 1).max().unwrap_or(0);
            let longest = self.templates.iter().zip(&self.next).map(|(own, next)| own.longest() + before(next));
            ending_in = longest.collect();
        }
        // No space precedes the first sentence.
        ending_in.into_iter().max().unwrap_or(0) - 1
    }

    /// The facts that any text mentions, well-formed or not, from its start to its end: which of [`FACTS`], bytes from
    /// the text's start, and the word there.
    fn mentions(&self, text: &[u8]) -> Vec<(usize, usize, &'static str)> {
        let mut start = 0;
        let mut found = Vec::new();
        for word in text.split(|b| !b.is_ascii_alphabetic()) {
            for (fact, values) in self.facts.iter().enumerate() {
                let value = values.iter().find(|value| value.as_bytes() == word);
                found.extend(value.map(|&value| (fact, start, value)));
            }
            start += word.len() + 1;
        }
        found
    }

    /// Counts how often any text, well-formed or not, repeats one of its facts, and how often correctly.
    pub fn consistency(&self, text: &[u8]) -> Consistency {
        let mut first = [None; FACTS.len()];
        let mut count = Consistency::default();
        for (fact, _, value) in self.mentions(text) {
            if let Some(first) = first[fact] {
                count.repeats += 1;
                count.kept += usize::from(first == value);
            }
            first[fact].get_or_insert(value);
        }
        count
    }
}
