//! Published zero-shot perplexities of models without latents, to set beside one's own.

use super::Known;
use super::sets::KNOWN;
use crate::table::{DASH, Table, digits, or_dash};

/// A model of a published table.
#[derive(Clone, Copy, Debug)]
pub struct Other {
    name: &'static str,
    /// Where its figures are printed.
    source: &'static str,
    /// Weights, as the tables name the size. With embeddings, MDLM and SEDD of 110 M have 169.6 M, MD4-S has 165.9 M, SEDD of
    /// 345 M has 424.5 M, and MD4-M 416.2 M.
    size: &'static str,
    /// Training tokens, if they are known.
    tokens: Option<&'static str>,
    /// Training FLOPs per token in units of 10⁹, if they are known.
    gflops: Option<f64>,
    /// Whether its figures are upper bounds; else they are exact.
    is_bound: bool,
    /// Perplexities per GPT-2 token unless the name says otherwise, in the order of [`KNOWN`]; 0 for none.
    perplexities: [f64; KNOWN.len()],
}

/// Sahoo et al. 2024, table 3.
const SAHOO: &str = "arXiv 2406.07524";
/// A later training of the same models.
const ARRIOLA: &str = "arXiv 2503.09573";
const LOU: &str = "arXiv 2310.16834";
const SHI: &str = "arXiv 2406.04329";

const OTHERS: [Other; 11] = [
    small("AR", SAHOO, false, [82.05, 25.75, 51.25, 51.28, 52.09, 49.01, 41.73]),
    small("SEDD", SAHOO, true, [100.09, 34.28, 68.20, 49.86, 62.09, 44.53, 38.48]),
    small("MDLM", SAHOO, true, [95.26, 32.83, 67.01, 47.52, 61.15, 41.89, 37.37]),
    small("AR", ARRIOLA, false, [81.07, 25.32, 51.14, 52.13, 52.11, 48.59, 41.22]),
    small("SEDD", ARRIOLA, true, [96.33, 35.98, 68.14, 48.93, 67.82, 45.39, 40.03]),
    small("MDLM", ARRIOLA, true, [90.96, 33.22, 64.94, 48.29, 62.78, 43.13, 37.89]),
    // WikiText-103; the same table has 34.94 on WikiText-2.
    Other { size: "small", ..small("MD4-S", SHI, true, [102.26, 35.90, 68.10, 48.43, 0.0, 0.0, 0.0]) },
    // The table of arXiv 2406.04329 has 42.77 on LAMBADA.
    medium("SEDD", LOU, [87.12, 29.98, 61.19, 42.66, 0.0, 0.0, 0.0]),
    medium("MD4-M", SHI, [66.07, 25.84, 51.45, 44.12, 0.0, 0.0, 0.0]),
    gpt2("345 M", 2.42, [47.33, 26.37, 55.72, 15.60, 0.0, 0.0, 0.0]),
    gpt2("762 M", 5.21, [40.31, 22.05, 44.575, 10.87, 0.0, 0.0, 0.0]),
];

/// Radford et al. 2019, table 3, which counts the words of a set in place of tokens. Its WikiText is WikiText-103. The FLOPs are those of
/// the table's other decoders of this shape: 6 for each weight and 12 · layers · width · 1024 for attention.
const fn gpt2(size: &'static str, gflops: f64, perplexities: [f64; KNOWN.len()]) -> Other {
    let (name, source) = ("GPT-2, per word", "Radford et al. 2019");
    Other { name, source, size, tokens: None, gflops: Some(gflops), is_bound: false, perplexities }
}

const fn small(name: &'static str, source: &'static str, is_bound: bool, perplexities: [f64; KNOWN.len()]) -> Other {
    Other { name, source, size: "110 M", tokens: Some("524 B"), gflops: Some(0.85), is_bound, perplexities }
}

const fn medium(name: &'static str, source: &'static str, perplexities: [f64; KNOWN.len()]) -> Other {
    Other { name, source, size: "345 M", tokens: None, gflops: Some(2.42), is_bound: true, perplexities }
}

/// What the table is.
pub const CAPTION: &str =
    "Published perplexities of models without latents, per GPT-2 token unless stated; other preprocessing, other sizes";

/// The models' figures for the sets that are `shown`.
pub fn others(shown: impl Fn(&Known) -> bool) -> Table<'static, Other> {
    let table = Table::of(&OTHERS)
        .left("model", |other: &Other| other.name)
        .left("source", |other| other.source)
        .left("kind of number", |other| if other.is_bound { "bound" } else { "exact" })
        .right("weights", |other| other.size)
        .right("tokens", |other| or_dash(other.tokens))
        .right("training GFLOPs/token", |other| or_dash(other.gflops));
    KNOWN.iter().enumerate().filter(|(_, known)| shown(known)).fold(table, |table, (place, known)| {
        table.right(known.title, |other| match other.perplexities[place] {
            0.0 => DASH.into(),
            figure if other.is_bound => format!("≤ {}", digits(figure, 2)),
            figure => digits(figure, 2),
        })
    })
}
