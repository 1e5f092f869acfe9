//! What documents cost: one of them, and on average.

use super::Corpus;
use super::grammar::{FACTS, Slot};
use super::story::Sentence;

/// Expected nats per document by what they are spent on; exact, from the distributions of the choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// The number of sentences, which is where the document ends.
    pub length: f64,
    /// The templates and the fillers.
    pub sentences: f64,
    /// The facts, each at its first mention.
    pub facts: f64,
    /// The facts, at every mention: what they cost a reader without memory.
    pub mentions: f64,
}

fn ln(n: usize) -> f64 {
    (n as f64).ln()
}

impl Corpus {
    /// The source's entropy in nats per document: the least that any model can cost on average.
    pub fn entropy(&self) -> f64 {
        let expected = self.expected();
        expected.length + expected.sentences + expected.facts
    }

    /// The expected cost for a reader who pays for a fact at every mention, in nats per document.
    pub fn memoryless_nats(&self) -> f64 {
        let expected = self.expected();
        expected.length + expected.sentences + expected.mentions
    }

    /// The expected cost by part.
    pub fn expected(&self) -> Expected {
        let (least, lengths) = self.lengths();
        let fact_nats = ln(self.config.values);
        let mut expected = Expected { length: ln(lengths), sentences: 0.0, facts: 0.0, mentions: 0.0 };
        // For the sentence after `before` others: the probability of every template, and the same jointly with a fact
        // being still unsaid.
        let mut template = vec![1.0 / self.templates.len() as f64; self.templates.len()];
        let mut unsaid = FACTS.map(|_| template.clone());
        let mut choice_nats = ln(self.templates.len());
        for before in 0..least + lengths - 1 {
            let exists = lengths.min(least + lengths - 1 - before) as f64 / lengths as f64;
            expected.sentences += exists * choice_nats;
            for (p, kind) in template.iter().zip(&self.templates) {
                expected.sentences += exists * p * kind.slots().map(|slot| self.filler_nats(slot)).sum::<f64>();
                expected.mentions += exists * p * fact_nats * kind.facts().count() as f64;
            }
            for (fact, unsaid) in unsaid.iter_mut().enumerate() {
                for (p, _) in unsaid.iter_mut().zip(&self.templates).filter(|(_, kind)| kind.mentions(fact)) {
                    expected.facts += exists * fact_nats * std::mem::take(p);
                }
                *unsaid = self.step(unsaid);
            }
            choice_nats = template.iter().zip(&self.next).map(|(p, next)| p * ln(next.len())).sum();
            template = self.step(&template);
        }
        expected
    }

    /// Distribution of the next sentence's template from that of the present one.
    fn step(&self, present: &[f64]) -> Vec<f64> {
        let mut then = vec![0.0; present.len()];
        for (p, next) in present.iter().zip(&self.next) {
            next.iter().for_each(|&t| then[t] += p / next.len() as f64);
        }
        then
    }

    fn filler_nats(&self, slot: Slot) -> f64 {
        match slot {
            Slot::Fact(_) => 0.0,
            Slot::Filler(_) => ln(slot.words(self.config.values).len()),
        }
    }

    /// −log p of `story`, whose text is `text`, to a reader who sees the last `window` bytes only.
    pub(super) fn nats(&self, story: &[Sentence], text: &[u8], window: usize) -> f64 {
        let mut nats = ln(self.lengths().1);
        let mut previous = None;
        for sentence in story {
            nats += ln(self.choices(previous).len());
            nats += self.templates[sentence.template].slots().map(|slot| self.filler_nats(slot)).sum::<f64>();
            previous = Some(sentence.template);
        }
        let mut last_end = [None; FACTS.len()];
        for mention in self.mentions(text) {
            let out_of_sight = |end: usize| end.saturating_add(window) <= mention.start;
            if last_end[mention.fact].is_none_or(out_of_sight) {
                nats += ln(self.config.values);
            }
            last_end[mention.fact] = Some(mention.start + mention.value.len());
        }
        nats
    }
}
