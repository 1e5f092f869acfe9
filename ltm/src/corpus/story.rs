//! Converts choices to text and back, and computes their cost.

use super::Corpus;
use super::grammar::{FACTS, Slot};
use engine::rng::Stream;

/// Separates the stories' random numbers from all others of the same seed ("CORP").
const SITE: u32 = 0x434F_5250;

/// The choices that make a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    pub template: usize,
    /// The index of the word in its list, for every slot from left to right.
    pub words: Vec<usize>,
}

fn ln(n: usize) -> f64 {
    (n as f64).ln()
}

/// The cost of a slot alone: a fact is paid for at its first mention.
fn filler_nats(slot: &Slot) -> f64 {
    if slot.fact.is_some() { 0.0 } else { ln(slot.words.len()) }
}

impl Corpus {
    /// Draws the choices of a story.
    pub(super) fn draw(&self, seed: u64, index: u32) -> Vec<Sentence> {
        let stream = Stream::new(seed, SITE).sample(index);
        let mut drawn = 0;
        let mut below = |n| {
            drawn += 1;
            stream.below(drawn - 1, n)
        };
        let facts = FACTS.map(|_| below(self.values));
        let length = self.sentences.start() + below(self.lengths());
        let mut story: Vec<Sentence> = Vec::new();
        for _ in 0..length {
            let choices = self.choices(story.last());
            let template = choices[below(choices.len())];
            let word = |slot: &Slot| slot.fact.map_or_else(|| below(slot.words.len()), |fact| facts[fact]);
            story.push(Sentence { template, words: self.templates[template].slots.iter().map(word).collect() });
        }
        story
    }

    /// The text of a story: its sentences with a space between them.
    pub(super) fn write(&self, story: &[Sentence]) -> Vec<u8> {
        let mut text = Vec::new();
        for sentence in story {
            if !text.is_empty() {
                text.push(b' ');
            }
            self.templates[sentence.template].write(&sentence.words, &mut text);
        }
        text
    }

    /// The story of `text`; `None` if this source cannot produce it.
    pub(super) fn read(&self, mut text: &[u8]) -> Option<Vec<Sentence>> {
        let mut facts = [None; FACTS.len()];
        let mut story: Vec<Sentence> = Vec::new();
        while !text.is_empty() {
            if !story.is_empty() {
                text = text.strip_prefix(b" ")?;
            }
            let (sentence, rest) = self.choices(story.last()).iter().find_map(|&template| {
                let (words, rest) = self.templates[template].read(text)?;
                Some((Sentence { template, words }, rest))
            })?;
            for (slot, &word) in self.templates[sentence.template].slots.iter().zip(&sentence.words) {
                if let Some(fact) = slot.fact
                    && *facts[fact].get_or_insert(word) != word
                {
                    return None;
                }
            }
            story.push(sentence);
            text = rest;
        }
        self.sentences.contains(&story.len()).then_some(story)
    }

    /// −log p of `story`, whose text is `text`, for a model that sees only the last `window` bytes.
    pub(super) fn nats(&self, story: &[Sentence], text: &[u8], window: usize) -> f64 {
        let mut nats = ln(self.lengths());
        let mut previous = None;
        for sentence in story {
            nats += ln(self.choices(previous).len());
            nats += self.templates[sentence.template].slots.iter().map(filler_nats).sum::<f64>();
            previous = Some(sentence);
        }
        let mut last_end = [None; FACTS.len()];
        for (fact, start, value) in self.mentions(text) {
            let out_of_sight = |end: usize| end.saturating_add(window) <= start;
            if last_end[fact].is_none_or(out_of_sight) {
                nats += ln(self.values);
            }
            last_end[fact] = Some(start + value.len());
        }
        nats
    }

    /// The source's entropy in nats per document, exact from the distributions of the choices: the least average cost
    /// of any model.
    pub fn entropy(&self) -> f64 {
        let mut nats = ln(self.lengths());
        // For the sentence after `before` others: the probability of every template, and the same jointly with a fact
        // being still unsaid.
        let mut template = vec![1.0 / self.templates.len() as f64; self.templates.len()];
        let mut unsaid = FACTS.map(|_| template.clone());
        let mut choice_nats = ln(self.templates.len());
        for before in 0..*self.sentences.end() {
            let exists = self.lengths().min(self.sentences.end() - before) as f64 / self.lengths() as f64;
            nats += exists * choice_nats;
            for (p, kind) in template.iter().zip(&self.templates) {
                nats += exists * p * kind.slots.iter().map(filler_nats).sum::<f64>();
            }
            for (fact, unsaid) in unsaid.iter_mut().enumerate() {
                for (p, _) in unsaid.iter_mut().zip(&self.templates).filter(|(_, kind)| kind.mentions(fact)) {
                    nats += exists * ln(self.values) * std::mem::take(p);
                }
                *unsaid = self.step(unsaid);
            }
            choice_nats = template.iter().zip(&self.next).map(|(p, next)| p * ln(next.len())).sum();
            template = self.step(&template);
        }
        nats
    }

    /// Distribution of the next sentence's template from that of the current one.
    fn step(&self, present: &[f64]) -> Vec<f64> {
        let mut then = vec![0.0; present.len()];
        for (p, next) in present.iter().zip(&self.next) {
            next.iter().for_each(|&t| then[t] += p / next.len() as f64);
        }
        then
    }
}
