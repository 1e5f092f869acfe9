//! The words of any text, by how often the text has mentioned them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Other words shorter than this are too common to be about anything.
const SHORTEST: usize = 4;

/// A mention of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Its bytes.
    pub at: Range<usize>,
    /// Whether it is a name: a capital and small letters, not always at a sentence's start.
    pub is_name: bool,
    /// The start of the mention before it in the same text.
    pub last: Option<usize>,
    /// 1 for the first mention, and so on.
    pub number: usize,
}

/// The names and the longer words of `text`, in order. Words at an edge of the text that is not that of a document, as
/// `[begins, ends]` says, may be cut off, and do not count.
pub fn mentions(text: &[u8], [begins, ends]: [bool; 2]) -> Vec<Mention> {
    let is_letter = |b: &u8| b.is_ascii_alphabetic() || !b.is_ascii();
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for run in text.chunk_by(|a, b| is_letter(a) == is_letter(b)) {
        let at = start..start + run.len();
        start = at.end;
        if is_letter(&run[0]) && (begins || at.start > 0) && (ends || at.end < text.len()) {
            words.push(at);
        }
    }
    let capital = |word: &[u8]| {
        word.len() > 1 && word[0].is_ascii_uppercase() && word[1..].iter().all(|b| !b.is_ascii_uppercase())
    };
    let inside: HashSet<&[u8]> =
        words.iter().filter(|at| !opens_sentence(&text[..at.start])).map(|at| &text[at.clone()]).collect();
    let mut seen: HashMap<Vec<u8>, (usize, usize)> = HashMap::new();
    let mut found = Vec::new();
    for at in words {
        let word = &text[at.clone()];
        let is_name = capital(word) && inside.contains(word);
        if !is_name && word.len() < SHORTEST {
            continue;
        }
        let key = if is_name { word.to_vec() } else { word.to_ascii_lowercase() };
        let before = seen.get(&key).copied();
        let number = before.map_or(1, |(_, number)| number + 1);
        seen.insert(key, (at.start, number));
        found.push(Mention { at, is_name, last: before.map(|(start, _)| start), number });
    }
    found
}

/// Whether a word after `before` is the first of a sentence: after a full stop, a question or exclamation mark, an empty
/// line, or nothing.
fn opens_sentence(before: &[u8]) -> bool {
    let gap: Vec<u8> =
        before.iter().rev().copied().take_while(|b| b.is_ascii() && !b.is_ascii_alphanumeric()).collect();
    gap.len() == before.len() || gap.iter().any(|b| b".!?".contains(b)) || gap.windows(2).any(|pair| pair == b"\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_words_are_counted() {
        let text =
            b"Emma saw Finn. Green hills, said Emma;\nthe green Hills.\n\nFinn THE McKay said \xc3\x89mile's hill";
        let found = |edges| -> Vec<(String, bool, usize, Option<usize>)> {
            let word = |m: &Mention| String::from_utf8(text[m.at.clone()].to_vec()).unwrap();
            mentions(text, edges).iter().map(|m| (word(m), m.is_name, m.number, m.last)).collect()
        };
        let all = found([true, true]);
        let wanted = [
            ("Emma", true, 1, None),
            ("Finn", true, 1, None),
            ("Green", false, 1, None),
            ("hills", false, 1, None),
            ("said", false, 1, None),
            ("Emma", true, 2, Some(0)),
            ("green", false, 2, Some(15)),
            ("Hills", true, 1, None),
            ("Finn", true, 2, Some(9)),
            ("McKay", false, 1, None),
            ("said", false, 2, Some(28)),
            ("Émile", false, 1, None),
            ("hill", false, 1, None),
        ];
        assert_eq!(all, wanted.map(|(word, name, number, last)| (word.to_string(), name, number, last)));
        // At the edges words may be cut off.
        let inner = found([false, false]);
        assert_eq!((inner.len(), &inner[0].0[..], &inner[10].0[..]), (11, "Finn", "Émile"));
    }
}
