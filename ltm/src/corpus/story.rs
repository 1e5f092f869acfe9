//! Choices to text and back.

use engine::rng::Stream;

use super::Corpus;
use super::grammar::{FACTS, Slot};

/// Sets the stories' random numbers apart from all others of the same seed ("CORP").
const SITE: u32 = 0x434F_5250;

/// The choices that make a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    pub template: usize,
    /// For every slot from left to right, which word of its list.
    pub words: Vec<usize>,
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
        let facts = FACTS.map(|_| below(self.config.values));
        let (least, lengths) = self.lengths();
        let mut story: Vec<Sentence> = Vec::new();
        for _ in 0..least + below(lengths) {
            let choices = self.choices(story.last().map(|s| s.template));
            let template = choices[below(choices.len())];
            let word = |slot| match slot {
                Slot::Fact(fact) => facts[fact],
                Slot::Filler(_) => below(slot.words(self.config.values).len()),
            };
            story.push(Sentence { template, words: self.templates[template].slots().map(word).collect() });
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
            self.templates[sentence.template].write(&sentence.words, self.config.values, &mut text);
        }
        text
    }

    /// The story that `text` tells; `None` if it is not one of this source.
    pub(super) fn read(&self, mut text: &[u8]) -> Option<Vec<Sentence>> {
        let mut facts = [None; FACTS.len()];
        let mut story: Vec<Sentence> = Vec::new();
        while !text.is_empty() {
            if !story.is_empty() {
                text = text.strip_prefix(b" ")?;
            }
            let (sentence, rest) = self.choices(story.last().map(|s| s.template)).iter().find_map(|&template| {
                let (words, rest) = self.templates[template].read(text, self.config.values)?;
                Some((Sentence { template, words }, rest))
            })?;
            for (slot, &word) in self.templates[sentence.template].slots().zip(&sentence.words) {
                if let Slot::Fact(fact) = slot
                    && *facts[fact].get_or_insert(word) != word
                {
                    return None;
                }
            }
            story.push(sentence);
            text = rest;
        }
        self.config.sentences.contains(&story.len()).then_some(story)
    }
}
