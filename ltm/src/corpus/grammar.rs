//! The words and sentences of the stories.
//!
//! Every list, and the set of fixed words, is disjoint from every other: a word alone says which slot it fills. No two
//! templates show the same sequence of slots and fixed words, so a sentence says which template it came from. The tests
//! check both; unique reading of whole documents follows.

/// A list of interchangeable words.
pub(super) struct List {
    pub name: &'static str,
    pub words: &'static [&'static str],
}

/// The largest number of values that every fact offers.
pub(super) const MOST_VALUES: usize = 16;

/// Drawn once per document. The words of a fact differ in their first letter: one byte carries all there is to know.
pub(super) const FACTS: [List; 7] = [
    List {
        name: "hero",
        words: &[
            "Anna", "Ben", "Cleo", "Dan", "Emma", "Finn", "Gus", "Hana", "Ivan", "Jack", "Kate", "Leo", "Mia", "Nils",
            "Olga", "Pia",
        ],
    },
    List {
        name: "friend",
        words: &[
            "Abel", "Bea", "Carl", "Dora", "Eli", "Fay", "Greg", "Hugo", "Ida", "Jon", "Lena", "Max", "Noah", "Otto",
            "Rosa", "Zoe",
        ],
    },
    List {
        name: "colour",
        words: &[
            "amber", "blue", "coral", "dark", "fawn", "green", "ivory", "jade", "khaki", "lilac", "mauve", "navy",
            "olive", "pink", "red", "white",
        ],
    },
    List {
        name: "thing",
        words: &[
            "axe", "bell", "coin", "drum", "egg", "fan", "gem", "harp", "key", "lamp", "map", "net", "oar", "pot",
            "ring", "vase",
        ],
    },
    List {
        name: "place",
        words: &[
            "Acre", "Bonn", "Cork", "Eton", "Fez", "Graz", "Hull", "Jena", "Kiev", "Lima", "Metz", "Oslo", "Pisa",
            "Rome", "Troy", "York",
        ],
    },
    List {
        name: "animal",
        words: &[
            "ape", "bear", "cat", "dog", "elk", "fox", "goat", "hen", "ibex", "jay", "lamb", "mole", "newt", "owl",
            "pig", "rat",
        ],
    },
    List {
        name: "reason",
        words: &[
            "anger", "care", "duty", "envy", "fear", "greed", "hope", "joy", "love", "mercy", "need", "pride", "rage",
            "shame", "trust", "zeal",
        ],
    },
];

/// Drawn afresh wherever they stand.
pub(super) const FILLERS: [List; 4] = [
    List { name: "got", words: &["found", "hid", "lost", "stole"] },
    List { name: "wanted", words: &["liked", "missed", "needed", "wanted"] },
    List { name: "fed", words: &["fed", "kept", "led", "sold"] },
    List { name: "met", words: &["met", "paid", "saw", "wed"] },
];

const TEMPLATES: [&str; 14] = [
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
];

/// A gap in a template, by index into [`FACTS`] or [`FILLERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Fact(usize),
    Filler(usize),
}

impl Slot {
    fn named(name: &str) -> Self {
        let find = |lists: &[List]| lists.iter().position(|list| list.name == name);
        find(&FACTS).map(Slot::Fact).or_else(|| find(&FILLERS).map(Slot::Filler)).expect("templates name known lists")
    }

    /// The words that may stand here when every list is cut to `values` words.
    pub fn words(self, values: usize) -> &'static [&'static str] {
        let words = match self {
            Slot::Fact(fact) => FACTS[fact].words,
            Slot::Filler(filler) => FILLERS[filler].words,
        };
        &words[..values.min(words.len())]
    }
}

pub(super) enum Piece {
    Text(&'static str),
    Slot(Slot),
}

/// One kind of sentence.
pub(super) struct Template {
    pub pieces: Vec<Piece>,
}

impl Template {
    /// All templates, in a fixed order.
    pub fn all() -> Vec<Self> {
        // Splitting at braces alternates between text and the name of a slot.
        let piece = |(i, part)| if i % 2 == 0 { Piece::Text(part) } else { Piece::Slot(Slot::named(part)) };
        TEMPLATES.iter().map(|t| Self { pieces: t.split(['{', '}']).enumerate().map(piece).collect() }).collect()
    }

    /// The gaps from left to right.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.pieces.iter().filter_map(|piece| if let Piece::Slot(slot) = piece { Some(*slot) } else { None })
    }

    /// The facts mentioned, from left to right.
    pub fn facts(&self) -> impl Iterator<Item = usize> {
        self.slots().filter_map(|slot| if let Slot::Fact(fact) = slot { Some(fact) } else { None })
    }

    /// Whether the sentence speaks of `fact`.
    pub fn mentions(&self, fact: usize) -> bool {
        self.facts().any(|f| f == fact)
    }

    /// Length of the longest such sentence, in bytes.
    pub fn longest(&self, values: usize) -> usize {
        let bytes = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Slot(slot) => slot.words(values).iter().map(|word| word.len()).max().unwrap_or(0),
        };
        self.pieces.iter().map(bytes).sum()
    }

    /// Writes the sentence with `words[i]` the index of the word in slot `i`.
    pub fn write(&self, words: &[usize], values: usize, out: &mut Vec<u8>) {
        let mut words = words.iter();
        for piece in &self.pieces {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Slot(slot) => words.next().map_or("", |&word| slot.words(values)[word]).as_bytes(),
            });
        }
    }

    /// The words of the sentence at the start of `text`, with the text after it; `None` if it is of another kind.
    pub fn read<'t>(&self, mut text: &'t [u8], values: usize) -> Option<(Vec<usize>, &'t [u8])> {
        let mut words = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(fixed) => text = text.strip_prefix(fixed.as_bytes())?,
                Piece::Slot(slot) => {
                    let end = text.iter().position(|b| !b.is_ascii_alphabetic())?;
                    words.push(slot.words(values).iter().position(|word| word.as_bytes() == &text[..end])?);
                    text = &text[end..];
                }
            }
        }
        Some((words, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn letters(text: &'static str) -> impl Iterator<Item = &'static str> {
        text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty())
    }

    #[test]
    fn a_word_fills_one_slot_and_a_sentence_has_one_template() {
        let templates = Template::all();
        let fixed: HashSet<&str> = (templates.iter().flat_map(|t| &t.pieces))
            .flat_map(|piece| letters(if let Piece::Text(text) = piece { text } else { "" }))
            .collect();
        let mut words = fixed.clone();
        for word in FACTS.iter().chain(&FILLERS).flat_map(|list| list.words) {
            assert!(words.insert(word) && word.bytes().all(|b| b.is_ascii_alphabetic()), "{word} is ambiguous");
        }
        let mut shapes = HashSet::new();
        for template in &templates {
            let shape: Vec<String> = (template.pieces.iter())
                .flat_map(|piece| match piece {
                    Piece::Text(text) => letters(text).map(String::from).collect(),
                    Piece::Slot(slot) => vec![format!("{slot:?}")],
                })
                .collect();
            assert!(shapes.insert(shape.join(" ")), "two templates {shape:?}");
            let facts: HashSet<usize> = template.facts().collect();
            assert_eq!(facts.len(), template.facts().count(), "a fact twice in {shape:?}");
        }
        for fact in &FACTS {
            let initials: HashSet<u8> = fact.words.iter().map(|word| word.as_bytes()[0]).collect();
            assert_eq!((fact.words.len(), initials.len()), (MOST_VALUES, MOST_VALUES), "{}", fact.name);
        }
    }
}
