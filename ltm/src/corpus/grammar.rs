//! The words and sentences of the stories.
//!
//! Every list, and the set of fixed words, is disjoint from every other: a word alone determines its slot. No two
//! templates have the same sequence of slots and fixed words, so a sentence determines its template. The tests check
//! both, so documents can be parsed uniquely.

/// A list of interchangeable words: its name and the words.
pub type List = (&'static str, &'static str);

/// The largest number of values that every fact offers.
pub const MOST_VALUES: usize = 16;

/// Drawn once per document. The words of a fact differ in their first letter, so one byte carries all its information.
pub const FACTS: [List; 7] = [
    ("hero", "Anna Ben Cleo Dan Emma Finn Gus Hana Ivan Jack Kate Leo Mia Nils Olga Pia"),
    ("friend", "Abel Bea Carl Dora Eli Fay Greg Hugo Ida Jon Lena Max Noah Otto Rosa Zoe"),
    ("colour", "amber blue coral dark fawn green ivory jade khaki lilac mauve navy olive pink red white"),
    ("thing", "axe bell coin drum egg fan gem harp key lamp map net oar pot ring vase"),
    ("place", "Acre Bonn Cork Eton Fez Graz Hull Jena Kiev Lima Metz Oslo Pisa Rome Troy York"),
    ("animal", "ape bear cat dog elk fox goat hen ibex jay lamb mole newt owl pig rat"),
    ("reason", "anger care duty envy fear greed hope joy love mercy need pride rage shame trust zeal"),
];

/// Drawn anew at every place.
const FILLERS: [List; 6] = [
    ("got", "found hid lost stole"),
    ("wanted", "liked missed needed wanted"),
    ("fed", "fed kept led sold"),
    ("met", "met paid saw wed"),
    ("fell", "poured rained snowed thawed"),
    ("while", "day night week year"),
];

const TEMPLATES: [&str; 18] = [
    "{hero} {got} the {colour} {thing}.",
    "{friend} {wanted} the {colour} {thing}.",
    "The {colour} {thing} was in {place}.",
    "The {animal} {got} the {colour} {thing}.",
    "The {animal} lived in {place}.",
    "{friend} {fed} the {animal} in {place}.",
    "{hero} sent the {animal} to {place}.",
    "{hero} left {place} out of {reason}.",
    "Out of {reason}, {friend} fled {place}.",
    "{friend} {fed} the {animal} out of {reason}.",
    "Out of {reason}, {hero} {fed} the {animal}.",
    "{hero} {met} {friend} in {place}.",
    "{hero} {met} {friend} out of {reason}.",
    "{friend} and {hero} feared the {animal}.",
    "It {fell} all {while}.",
    "Nothing else came of that {while}.",
    "The {while} went by.",
    "So they slept until it {fell}.",
];

/// Whether a word is drawn anew at every place.
pub(super) fn is_filler(word: &[u8]) -> bool {
    FILLERS.iter().any(|list| list.1.split(' ').any(|filler| filler.as_bytes() == word))
}

/// The first `values` words of a list.
pub(super) fn words_of(list: &List, values: usize) -> Vec<&'static str> {
    list.1.split(' ').take(values).collect()
}

/// A slot in a template.
#[derive(Debug, PartialEq)]
pub(super) struct Slot {
    /// The text before it.
    before: &'static str,
    /// Index into [`FACTS`]; `None` for a filler.
    pub fact: Option<usize>,
    /// The possible words.
    pub words: Vec<&'static str>,
}

/// One kind of sentence.
pub(super) struct Template {
    /// The gaps from left to right.
    pub slots: Vec<Slot>,
    /// The text after the last slot.
    end: &'static str,
}

impl Template {
    /// All templates, in a fixed order, with every list cut to `values` words.
    pub fn all(values: usize) -> Vec<Self> {
        // Splitting at braces alternates between text and the name of a slot.
        let slot = |pair: &[&'static str; 2]| {
            let [before, name] = *pair;
            let fact = FACTS.iter().position(|list| list.0 == name);
            let list = FACTS.iter().chain(&FILLERS).find(|list| list.0 == name).expect("templates name known lists");
            Slot { before, fact, words: words_of(list, values) }
        };
        let template = |text: &&'static str| {
            let parts: Vec<_> = text.split(['{', '}']).collect();
            let (pairs, end) = parts.as_chunks();
            Self { slots: pairs.iter().map(slot).collect(), end: end[0] }
        };
        TEMPLATES.iter().map(template).collect()
    }

    /// Whether the sentence mentions `fact`.
    pub fn mentions(&self, fact: usize) -> bool {
        self.slots.iter().any(|slot| slot.fact == Some(fact))
    }

    /// The number of facts in the sentence.
    pub fn facts(&self) -> usize {
        self.slots.iter().filter(|slot| slot.fact.is_some()).count()
    }

    /// Length of the longest such sentence, in bytes.
    pub fn longest(&self) -> usize {
        let longest_word = |slot: &Slot| slot.words.iter().map(|word| word.len()).max().unwrap_or(0);
        self.slots.iter().map(|slot| slot.before.len() + longest_word(slot)).sum::<usize>() + self.end.len()
    }

    /// Mean length of such a sentence, in bytes.
    pub fn mean_bytes(&self) -> f64 {
        let mean =
            |slot: &Slot| slot.words.iter().map(|word| word.len()).sum::<usize>() as f64 / slot.words.len() as f64;
        self.slots.iter().map(|slot| slot.before.len() as f64 + mean(slot)).sum::<f64>() + self.end.len() as f64
    }

    /// Writes the sentence with `words[i]` the index of the word in slot `i`.
    pub fn write(&self, words: &[usize], out: &mut Vec<u8>) {
        for (slot, &word) in self.slots.iter().zip(words) {
            out.extend_from_slice(slot.before.as_bytes());
            out.extend_from_slice(slot.words[word].as_bytes());
        }
        out.extend_from_slice(self.end.as_bytes());
    }

    /// The probability that the sentence begins with `text`, if word `w` of a slot that begins `at` bytes from the sentence's
    /// start has probability `of(slot, at, w)`.
    pub fn begins(&self, mut text: &[u8], of: impl Fn(&Slot, usize, &str) -> f64) -> f64 {
        let whole = text.len();
        let mut probability = 1.0;
        for slot in &self.slots {
            let before = slot.before.as_bytes();
            if text.len() <= before.len() {
                return if before.starts_with(text) { probability } else { 0.0 };
            }
            let Some(rest) = text.strip_prefix(before) else { return 0.0 };
            let at = whole - rest.len();
            let end = rest.iter().position(|b| !b.is_ascii_alphabetic());
            let read = &rest[..end.unwrap_or(rest.len())];
            let fits = |word: &[u8]| if end.is_some() { word == read } else { word.starts_with(read) };
            let fitting = slot.words.iter().filter(|word| fits(word.as_bytes()));
            probability *= fitting.map(|word| of(slot, at, word)).sum::<f64>();
            match end {
                Some(end) => text = &rest[end..],
                None => return probability,
            }
        }
        if self.end.as_bytes().starts_with(text) { probability } else { 0.0 }
    }

    /// The words of the sentence at the start of `text`, with the text after it; `None` if it has another template.
    pub fn read<'t>(&self, mut text: &'t [u8]) -> Option<(Vec<usize>, &'t [u8])> {
        let mut words = Vec::new();
        for slot in &self.slots {
            text = text.strip_prefix(slot.before.as_bytes())?;
            let end = text.iter().position(|b| !b.is_ascii_alphabetic())?;
            words.push(slot.words.iter().position(|word| word.as_bytes() == &text[..end])?);
            text = &text[end..];
        }
        Some((words, text.strip_prefix(self.end.as_bytes())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_word_fills_one_slot_and_a_sentence_has_one_template() {
        let mut words = HashSet::new();
        for word in FACTS.iter().chain(&FILLERS).flat_map(|list| list.1.split(' ')) {
            assert!(words.insert(word) && word.bytes().all(|b| b.is_ascii_alphabetic()), "{word} is ambiguous");
        }
        let mut shapes = HashSet::new();
        for (template, text) in Template::all(MOST_VALUES).iter().zip(TEMPLATES) {
            let fixed =
                text.split(['{', '}']).step_by(2).flat_map(|part| part.split(|c: char| !c.is_ascii_alphabetic()));
            for word in fixed {
                assert!(!words.contains(word), "{word} is ambiguous");
            }
            let shape: String = text.chars().filter(|c| c.is_ascii_alphabetic() || "{} ".contains(*c)).collect();
            assert!(shapes.insert(shape), "two templates {text:?}");
            let facts: Vec<usize> = template.slots.iter().filter_map(|slot| slot.fact).collect();
            assert_eq!(facts.iter().collect::<HashSet<_>>().len(), facts.len(), "a fact twice in {text:?}");
        }
        for list in &FACTS {
            let initials: HashSet<u8> = list.1.split(' ').map(|word| word.as_bytes()[0]).collect();
            assert_eq!((list.1.split(' ').count(), initials.len()), (MOST_VALUES, MOST_VALUES), "{}", list.0);
        }
    }
}
