//! Restores the text of a tokenized corpus.
//!
//! Corpora are often split into words: `the man 's hat ( a bowler ) , was n't lost .` A model of ordinary text has
//! never seen this, so the published zero-shot figures use restored text. Each rule below works on one line, word by
//! word, and changes only spaces and placeholders. Figures count the bytes of the restored text.

use serde::Deserialize;
use std::fmt;

/// The rule that turns the words of a line into text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detokenise {
    /// No change.
    None,
    /// Penn Treebank: `N` is written `1`, `<unk>` is `?`, `\/` is `/`, contractions (` n't`, ` 's`) join the word before, `$ 1`
    /// becomes `$1`. The corpus has no punctuation.
    Ptb,
    /// WikiText: ` @-@ `, ` @,@ ` and ` @.@ ` join their neighbours, headings lose blanks between signs (`= = A = =` becomes
    /// `== A ==`), punctuation and brackets join the word that they belong to, quotes enclose. `<unk>` stays.
    Wikitext,
    /// The One Billion Word benchmark: punctuation, contractions, brackets, quotes, currency signs, slashes and `http : / / `.
    Lm1b,
    /// LAMBADA: curly quotes become straight ones, and separate punctuation joins the word before.
    Lambada,
    /// Scientific papers (PubMed, arXiv): punctuation, contractions, brackets and quotes.
    Papers,
}

/// Words that join the word before.
const CLOSING: &[&str] = &[",", ".", ";", ":", "!", "?", ")", "]", "}", "%", "..."];
const CONTRACTIONS: &[&str] = &["n't", "'s", "'re", "'ve", "'ll", "'d", "'m", "'S", "N'T"];
/// Words that the next word joins.
const OPENING: &[&str] = &["(", "[", "{"];
/// Words that a following number joins.
const CURRENCY: &[&str] = &["$", "£", "US$", "#"];

impl fmt::Display for Detokenise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

impl Detokenise {
    /// The restored text, of any number of lines. Except for [`None`](Self::None), lines lose spaces at both ends.
    pub fn text(self, text: &str) -> String {
        match self {
            Self::None => text.to_string(),
            _ => text.split('\n').map(|line| self.line(line)).collect::<Vec<_>>().join("\n"),
        }
    }

    fn line(self, line: &str) -> String {
        let stand_ins: &[[&str; 2]] = match self {
            Self::Ptb => &[["\\/", "/"]],
            Self::Lm1b => &[["http : / / ", "http://"], ["https : / / ", "https://"]],
            Self::Lambada => &[["“", "\""], ["”", "\""], ["``", "\""], ["''", "\""], ["‘", "'"], ["’", "'"]],
            _ => &[],
        };
        let line = stand_ins.iter().fold(line.to_string(), |line, [from, to]| line.replace(from, to));
        let words = line.split_ascii_whitespace().map(|word| match (self, word) {
            (Self::Ptb, "<unk>") => "?",
            (Self::Ptb, "N") => "1",
            _ => word,
        });
        let mut words = words.peekable();
        let has_punctuation = self != Self::Ptb;
        let mut out = String::with_capacity(line.len());
        // Whether the next word joins the one before it, and whether a quote is open.
        let (mut joins, mut quoted) = (true, false);
        while let Some(word) = words.next() {
            let before = out.as_bytes().last();
            let is_quote = has_punctuation && word == "\"";
            let is_joint = match self {
                Self::Wikitext => ["@-@", "@,@", "@.@", "°"].contains(&word),
                Self::Lm1b => word == "/",
                _ => false,
            };
            joins = joins
                || is_joint
                || CONTRACTIONS.contains(&word)
                || (word == "'" && before == Some(&b's'))
                || (has_punctuation && CLOSING.contains(&word))
                || (is_quote && quoted)
                || (self == Self::Wikitext && word == "=" && before == Some(&b'='));
            if !joins {
                out.push(' ');
            }
            out.push_str(if is_joint { word.trim_matches('@') } else { word });
            let number_follows = words.peek().is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit()));
            quoted ^= is_quote;
            joins = is_joint
                || (has_punctuation && OPENING.contains(&word))
                || (matches!(self, Self::Ptb | Self::Lm1b) && CURRENCY.contains(&word) && number_follows)
                || (is_quote && quoted);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_text() {
        use Detokenise::*;
        for (how, words, text) in [
            (None, " a , b \n", " a , b \n"),
            (Ptb, " but it did n't fall N points to $ N or N\\/N <unk> ", "but it didn't fall 1 points to $1 or N/N ?"),
            (Ptb, " the company 's traders ' view of a # N <unk> ", "the company's traders' view of a #1 ?"),
            (Wikitext, " = = Life @-@ cycle = = ", "== Life-cycle =="),
            (Wikitext, " = Homarus gammarus = ", "= Homarus gammarus ="),
            (
                Wikitext,
                " 1 @,@ 200 to 2 @.@ 5 ( 24 in ) <unk> , and \" lobster red \" on .",
                "1,200 to 2.5 (24 in) <unk>, and \"lobster red\" on.",
            ),
            (
                Lm1b,
                "He said : \" We do n't pay $ 5 and / or more ( yet ) . \"",
                "He said: \"We don't pay $5 and/or more (yet).\"",
            ),
            (Lm1b, "see http : / / www.a.com .", "see http://www.a.com."),
            (Lambada, "“ I do , ” he said , “ it ’s so . ”", "\"I do,\" he said, \"it's so.\""),
            (Lambada, "Already \"as it was\", said he.\n\nYes.", "Already \"as it was\", said he.\n\nYes."),
            (
                Papers,
                "background : the aim ( n = 5 ) of \" this \" study , was n't .\n end .",
                "background: the aim (n = 5) of \"this\" study, wasn't.\nend.",
            ),
        ] {
            assert_eq!(how.text(words), text, "{how:?}");
        }
    }
}
