//! Converts choices to text and back, and computes their cost.

use super::grammar::{FACTS, Slot};
use super::{CHANCES, Corpus};
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
    /// The value of every fact of document number `index` under `seed`, as the place of the word in its list.
    pub fn values_of(&self, seed: u64, index: u32) -> [usize; FACTS.len()] {
        std::array::from_fn(|fact| Stream::new(seed, SITE).sample(index).below(fact as u32, self.values))
    }

    /// Draws the choices of a story, and writes it.
    pub(super) fn draw(&self, seed: u64, index: u32) -> (Vec<Sentence>, Vec<u8>) {
        let stream = Stream::new(seed, SITE).sample(index);
        let facts = self.values_of(seed, index);
        let mut drawn = facts.len() as u32;
        let mut below = |n| {
            drawn += 1;
            stream.below(drawn - 1, n)
        };
        let (mut story, mut text): (Vec<Sentence>, _) = (Vec::new(), Vec::new());
        while text.len() < self.bytes {
            let remark = self.remarks > 0 && !story.is_empty() && below(CHANCES) < self.remarks;
            let choices = if remark { &self.remarking } else { self.stating(story.last()) };
            let template = choices[below(choices.len())];
            let word = |slot: &Slot| slot.fact.map_or_else(|| below(slot.words.len()), |fact| facts[fact]);
            let words = self.templates[template].slots.iter().map(word).collect();
            self.push(Sentence { template, words }, &mut story, &mut text);
        }
        (story, text)
    }

    pub(super) fn push(&self, sentence: Sentence, story: &mut Vec<Sentence>, text: &mut Vec<u8>) {
        if !text.is_empty() {
            text.push(b' ');
        }
        self.templates[sentence.template].write(&sentence.words, text);
        story.push(sentence);
    }

    /// The story of `text`; `None` if this source cannot produce it.
    pub(super) fn read(&self, mut text: &[u8]) -> Option<Vec<Sentence>> {
        let mut facts = [None; FACTS.len()];
        let mut story: Vec<Sentence> = Vec::new();
        let whole = text.len();
        while !text.is_empty() {
            if !story.is_empty() {
                text = text.strip_prefix(b" ")?;
            }
            let read = whole - text.len();
            let (sentence, rest) = self.choices(story.last()).find_map(|(template, _)| {
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
            // Only the last sentence takes the text to its length; the space before this one is not part of the text before.
            if read.saturating_sub(1) >= self.bytes {
                return None;
            }
            story.push(sentence);
            text = rest;
        }
        (whole >= self.bytes).then_some(story)
    }

    /// −log p of `story`, whose text is `text`, for a model that sees only the last `window` bytes.
    pub(super) fn nats(&self, story: &[Sentence], text: &[u8], window: usize) -> f64 {
        let mut nats = 0.0;
        let mut previous = None;
        for sentence in story {
            let chosen = self.choices(previous).find(|(template, _)| *template == sentence.template);
            nats -= chosen.map_or(f64::NEG_INFINITY, |(_, p)| p.ln());
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

    /// The same for every byte and for the end: how much the probability of the text so far falls with it.
    pub(super) fn token_nats_of(&self, story: &[Sentence], text: &[u8], window: usize) -> Vec<f64> {
        let mut nats = vec![0.0; text.len() + 1];
        let mut mentions = self.mentions(text).into_iter().peekable();
        // End and value of the last mention before the sentence.
        let mut last: [Option<(usize, &str)>; FACTS.len()] = [None; FACTS.len()];
        let (mut start, mut previous) = (0, None);
        for sentence in story {
            let length = text[start..].iter().position(|&b| b == b'.').map_or(0, |at| at + 1);
            let of = |slot: &Slot, at: usize, word: &str| match slot.fact.and_then(|fact| last[fact]) {
                Some((end, value)) if end.saturating_add(window) > start + at => f64::from(value == word),
                _ => 1.0 / slot.words.len() as f64,
            };
            let choices: Vec<(usize, f64)> = self.choices(previous).collect();
            let mut before = 1.0;
            for read in 1..=length {
                let begun = &text[start..start + read];
                let now: f64 =
                    choices.iter().map(|&(template, p)| p * self.templates[template].begins(begun, of)).sum();
                nats[start + read - 1] = f64::ln(before / now);
                before = now;
            }
            while let Some((fact, at, value)) = mentions.next_if(|&(_, at, _)| at < start + length) {
                last[fact] = Some((at + value.len(), value));
            }
            // A space.
            start += length + 1;
            previous = Some(sentence);
        }
        nats
    }
}
