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
//! 1. Every fact is uniform on its list.
//! 2. The first sentence's template is uniform on the templates with facts, every later one on those that share no fact
//!    with the sentence before. With some probability, 0 by default, a sentence is a remark without facts instead, with
//!    a uniform template.
//! 3. Every filler (a verb, a time) is uniform on its list, drawn anew at every place.
//! 4. The story ends with the first sentence that takes it to a given number of bytes. So all stories are equally long but
//!    for one sentence, and hardly a position of a batch is wasted.
//!
//! # Why log p is exact
//! A story is the sequence of these choices, without facts that are never mentioned. The text determines the sequence:
//! a sentence ends at its full stop, its words determine its template (no two templates have the same sequence of slots
//! and fixed words, and a word fits only one slot), and the template determines the choice for each word. So different
//! choices give different texts, and p(text) is the product over the choices of its only sequence, without a sum over
//! hidden derivations. Summing over the values of a fact that is never mentioned multiplies by one, so it costs
//! nothing. The text's length determines where it ends, so its end token costs nothing. Draws deviate from their
//! probabilities by less than 2⁻⁵⁴ per choice (see [`engine::rng::Stream::below`]).
//!
//! All amounts are in nats per document. They concern the bytes followed by an end token.

mod grammar;
mod story;
#[cfg(test)]
mod tests;

pub use grammar::{FACTS, MOST_VALUES};

use crate::config::Config;
use engine::{Error, Result};
use grammar::{Template, words_of};
use std::collections::BTreeSet;
use story::Sentence;

/// The source: draws stories and computes the exact probability of every text.
pub struct Corpus {
    /// A story ends with the first sentence that takes it to this length.
    bytes: usize,
    /// Number of words used of every fact's list.
    values: usize,
    /// Probability of a remark is `remarks` / [`CHANCES`].
    remarks: usize,
    /// Those with facts, then remarks.
    templates: Vec<Template>,
    /// The templates with facts: those that may open a story.
    stating: Vec<usize>,
    /// The templates without facts.
    remarking: Vec<usize>,
    /// The templates with facts that may follow each template.
    next: Vec<Vec<usize>>,
    /// The words of each fact.
    facts: Vec<Vec<&'static str>>,
}

/// The denominator of the probability of a remark.
const CHANCES: usize = 1 << 20;

/// A document and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The text, ASCII, without begin or end token.
    pub bytes: Vec<u8>,
    /// −log p of the text and its end under the source, in nats.
    pub nats: f64,
    /// Its facts.
    pub facts: Facts,
}

/// The facts of a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// The value of each of [`FACTS`], as the place of the word in its list; also of facts that are never mentioned.
    pub values: [usize; FACTS.len()],
    /// −log p of the values of those that are mentioned, in nats.
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

/// A kind of token of a story, by the choice that it pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The first letter of a fact's first mention, which carries all that is new about it; the index of the fact.
    First(usize),
    /// The first letter of a later mention of a fact.
    Repeat(usize),
    /// The other letters of a fact's word, which its first letter determines.
    Rest,
    /// A word that is drawn anew at every place.
    Filler,
    /// The fixed words, spaces and full stops of a sentence.
    Template,
    /// The end token.
    End,
}

impl Corpus {
    /// The source of a resolved configuration's stories.
    ///
    /// # Errors
    /// If the settings contradict each other, or a story may not fit a sequence.
    pub fn of(config: &Config) -> Result<Self> {
        let (seq, corpus) = (config.model.seq, &config.corpus);
        let longest = Template::all(corpus.values).iter().map(Template::longest).max().unwrap_or(0);
        // Besides the bytes there is the end token; a story may exceed its length by a sentence.
        let fits = seq.saturating_sub(longest + 1);
        let bytes = if corpus.bytes == 0 { fits } else { corpus.bytes };
        if bytes == 0 || bytes > fits {
            return Err(Error::usage(format!(
                "stories of data.corpus.bytes = {bytes} have up to {} tokens with their end, but model.seq = {seq}: use \
                 longer sequences or shorter stories",
                bytes + longest + 1
            )));
        }
        let most = Self::new(bytes, corpus.values, 0.0).mean_mentions();
        let wanted = if corpus.mentions == 0.0 { most } else { corpus.mentions };
        if wanted > most {
            return Err(Error::usage(format!(
                "data.corpus.mentions = {wanted}: stories of {bytes} bytes mention a fact {most:.1} times at most; use \
                 longer stories"
            )));
        }
        // Mentions fall with the share of remarks; both are monotonous, so halving finds the share.
        let (mut low, mut high) = (0.0, 0.99);
        for _ in 0..if corpus.mentions == 0.0 { 0 } else { 40 } {
            let middle = 0.5 * (low + high);
            let more = Self::new(bytes, corpus.values, middle).mean_mentions() > wanted;
            *(if more { &mut low } else { &mut high }) = middle;
        }
        let found = Self::new(bytes, corpus.values, low);
        if found.mean_mentions() < 0.99 * wanted || found.mean_mentions() > 1.01 * wanted {
            return Err(Error::usage(format!(
                "data.corpus.mentions = {wanted}: stories of {bytes} bytes mention a fact {:.1} times at least, because the \
                 first sentence has facts; use 0 for as many as there are",
                found.mean_mentions()
            )));
        }
        Ok(found)
    }

    fn new(bytes: usize, values: usize, remarks: f64) -> Self {
        let templates = Template::all(values);
        let (stating, remarking): (Vec<_>, Vec<_>) = (0..templates.len()).partition(|&t| templates[t].facts() > 0);
        let apart = |a: &Template, b: &Template| (0..FACTS.len()).all(|fact| !a.mentions(fact) || !b.mentions(fact));
        let follows = |a| stating.iter().copied().filter(|&b| apart(a, &templates[b])).collect();
        let next = templates.iter().map(follows).collect();
        let facts = FACTS.iter().map(|list| words_of(list, values)).collect();
        let remarks = (remarks * CHANCES as f64) as usize;
        Self { bytes, values, remarks, stating, remarking, next, facts, templates }
    }

    /// The mean number of mentions of a fact in a story, about: from the long-run shares of templates.
    pub fn mean_mentions(&self) -> f64 {
        let remarks = self.remarks as f64 / CHANCES as f64;
        let mut share = vec![1.0 / self.stating.len() as f64; self.templates.len()];
        for _ in 0..100 {
            let mut then = vec![0.0; share.len()];
            for (p, next) in share.iter().zip(&self.next) {
                next.iter().for_each(|&t| then[t] += (1.0 - remarks) * p / next.len() as f64);
            }
            self.remarking.iter().for_each(|&t| then[t] += remarks / self.remarking.len() as f64);
            let sum: f64 = then.iter().sum();
            share = then.into_iter().map(|p| p / sum).collect();
        }
        let mean = |of: &dyn Fn(&Template) -> f64| -> f64 {
            share.iter().zip(&self.templates).map(|(p, template)| p * of(template)).sum()
        };
        // A space, and half a sentence beyond the length at the end. The first sentence is no remark.
        let sentence = mean(&|template| template.mean_bytes() + 1.0);
        let sentences = self.bytes as f64 / sentence + 0.5 + remarks / (1.0 - remarks);
        sentences * mean(&|template| template.facts() as f64) / FACTS.len() as f64
    }

    /// The templates with facts that may follow the sentence `previous`, or open a story.
    fn stating(&self, previous: Option<&Sentence>) -> &[usize] {
        previous.map_or(&self.stating, |sentence| &self.next[sentence.template])
    }

    /// All templates that may follow the sentence `previous`, or open a story, with their probabilities.
    fn choices(&self, previous: Option<&Sentence>) -> impl Iterator<Item = (usize, f64)> {
        let remarks = if previous.is_some() { self.remarks as f64 / CHANCES as f64 } else { 0.0 };
        let remarking = if remarks > 0.0 { &self.remarking[..] } else { &[] };
        let lists = [(self.stating(previous), 1.0 - remarks), (remarking, remarks)];
        lists.into_iter().flat_map(|(all, p)| all.iter().map(move |&template| (template, p / all.len() as f64)))
    }

    /// Number of values of every fact.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Document number `index` under `seed`, always the same.
    pub fn document(&self, seed: u64, index: u32) -> Document {
        let (story, bytes) = self.draw(seed, index);
        let nats = self.nats(&story, &bytes, usize::MAX);
        let mentioned: BTreeSet<usize> = self.mentions(&bytes).into_iter().map(|(fact, ..)| fact).collect();
        let values = self.values_of(seed, index);
        let facts = Facts { values, nats: mentioned.len() as f64 * (self.values as f64).ln() };
        Document { bytes, nats, facts }
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

    /// The same cost for every byte of `text` and its end, `text.len() + 1` numbers. A letter pays for all that it tells:
    /// the first letter of a sentence that begins with a fact also tells which sentences this may be.
    ///
    /// `None` if the source cannot produce `text`.
    pub fn token_nats(&self, text: &[u8], window: usize) -> Option<Vec<f64>> {
        self.read(text).map(|story| self.token_nats_of(&story, text, window))
    }

    /// The class of every byte of any text, well-formed or not, and of its end: `text.len() + 1`.
    pub fn classes(&self, text: &[u8]) -> Vec<Class> {
        let mut classes = vec![Class::Template; text.len() + 1];
        classes[text.len()] = Class::End;
        let mut seen = [false; FACTS.len()];
        for (fact, start, word) in self.mentions(text) {
            classes[start..start + word.len()].fill(Class::Rest);
            let is_repeat = std::mem::replace(&mut seen[fact], true);
            classes[start] = if is_repeat { Class::Repeat(fact) } else { Class::First(fact) };
        }
        for (start, word) in words(text) {
            if grammar::is_filler(word) {
                classes[start..start + word.len()].fill(Class::Filler);
            }
        }
        classes
    }

    /// The facts that any text mentions, well-formed or not, from its start to its end: which of [`FACTS`], bytes from
    /// the text's start, and the word there.
    pub fn mentions(&self, text: &[u8]) -> Vec<(usize, usize, &'static str)> {
        let mut found = Vec::new();
        for (start, word) in words(text) {
            for (fact, values) in self.facts.iter().enumerate() {
                let value = values.iter().find(|value| value.as_bytes() == word);
                found.extend(value.map(|&value| (fact, start, value)));
            }
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

/// The words of a text with their places, in bytes from its start.
fn words(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    text.split(|b| !b.is_ascii_alphabetic()).map(move |word| {
        let at = start;
        start += word.len() + 1;
        (at, word)
    })
}
