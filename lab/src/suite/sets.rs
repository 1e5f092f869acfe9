use super::Detokenise;
use crate::text::{Column, Format, TextSplit};
use ltm::config::Chunking;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

/// A set of the suite.
#[derive(Clone, Debug, Serialize)]
pub struct Set {
    /// Its name in the suite file.
    #[serde(rename = "set")]
    pub name: String,
    /// Its usual name.
    #[serde(skip)]
    pub title: String,
    /// The figures of the paper's models.
    #[serde(rename = "published_perplexity", skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Its files, read in this order; gzip and Zstandard files are unpacked.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
    /// The format of documents in them.
    #[serde(skip)]
    pub format: Format,
    /// The rule that turns words into text.
    #[serde(skip)]
    pub detokenise: Detokenise,
    /// How text becomes sequences.
    #[serde(skip)]
    pub chunking: Chunking,
    /// Only the first documents.
    #[serde(skip)]
    pub documents: Option<u64>,
}

impl Set {
    /// A line that describes how its files are read.
    pub fn reading(&self) -> String {
        let format = match &self.format {
            Format::Text(TextSplit::Articles) => "text by articles".to_string(),
            Format::Text(TextSplit::File) => "text by file".to_string(),
            Format::Text(TextSplit::Lines) => "text by lines".to_string(),
            Format::Text(TextSplit::BlankLines) => "text by blank lines".to_string(),
            Format::Jsonl { field } => format!("jsonl field {field}"),
            Format::Csv { columns, header } => {
                let name = |column: &Column| match column {
                    Column::Number(number) => number.to_string(),
                    Column::Name(name) => name.clone(),
                };
                let columns = columns.iter().map(name).collect::<Vec<_>>().join("+");
                format!("csv column {columns}{}", if *header { " with a header" } else { "" })
            }
        };
        let limit = self.documents.map_or(String::new(), |n| format!(", the first {n} documents only"));
        format!("{format}, detokenise {}, {}{limit}", self.detokenise, self.chunking)
    }
}

/// Zero-shot perplexities of the paper (Kong et al. 2025), per GPT-2 token.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Published {
    /// Presets small, medium and large, by the protocol `fixed` as far as the public code shows: not bounds.
    pub small: f64,
    /// As `small`.
    pub medium: f64,
    /// As `small`.
    pub large: f64,
    /// An autoregressive model of 76 M parameters, retrained: exact.
    pub ar: f64,
}

impl Display for Published {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "AR {}, fixed S {} M {} L {}", self.ar, self.small, self.medium, self.large)
    }
}

/// A set of the paper.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name in a suite file.
    pub name: &'static str,
    /// Its usual name.
    pub title: &'static str,
    /// The keys of a suite file that it usually needs.
    pub usual: &'static str,
    /// The figures.
    pub published: Published,
}

/// The paper's seven sets, in its order.
pub const KNOWN: [Known; 7] = [
    set("ptb", "PTB", "format='text'\nsplit='lines'\ndetokenise='ptb'", [34.71, 32.06, 4.43], 258.95),
    set("wikitext", "WikiText", "format='text'\nsplit='articles'\ndetokenise='wikitext'", [18.87, 17.39, 3.66], 52.49),
    set("lm1b", "LM1B", "format='text'\nsplit='lines'\ndetokenise='lm1b'", [23.59, 25.16, 3.92], 107.37),
    set("lambada", "LAMBADA", "format='jsonl'\nfield='text'\ndetokenise='lambada'", [19.31, 17.32, 3.48], 61.55),
    set("agnews", "AG News", "format='csv'\ncolumn=[2, 3]", [34.76, 27.89, 4.56], 110.31),
    set("pubmed", "PubMed", "format='jsonl'\nfield='article'\ndetokenise='papers'", [22.73, 20.45, 3.87], 60.61),
    set("arxiv", "arXiv", "format='jsonl'\nfield='article'\ndetokenise='papers'", [21.67, 19.22, 3.54], 55.35),
];

const fn set(
    name: &'static str,
    title: &'static str,
    usual: &'static str,
    [small, medium, large]: [f64; 3],
    ar: f64,
) -> Known {
    Known { name, title, usual, published: Published { small, medium, large, ar } }
}

/// The paper's set called `name` in suite files.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}
