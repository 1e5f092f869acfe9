use crate::reading::Reading;
use crate::table::{digits, visible};
use ltm::data::Tokenizer;
use maud::{Markup, html};

/// Shades of a token's cost.
const SHADES: f64 = 10.0;

/// Symbols for the end of a document and for a new line. Few fonts have the symbols of control characters.
const END: &str = "¶";
const LINE: &str = "↵";

/// Adjacent tokens that form whole characters.
struct Piece {
    text: String,
    /// Sum over its tokens.
    nats: f64,
    tokens: usize,
}

/// Joins tokens until they form whole characters.
fn pieces(tokens: &[(u16, f64)], tokenizer: &dyn Tokenizer) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut bytes, mut nats, mut count) = (Vec::new(), 0.0, 0);
    for (i, &(token, cost)) in tokens.iter().enumerate() {
        let own = tokenizer.token_bytes(token).unwrap_or_default();
        bytes.extend_from_slice(own);
        (nats, count) = (nats + cost, count + 1);
        let unfinished = std::str::from_utf8(&bytes).err().is_some_and(|e| e.error_len().is_none());
        // An incomplete character at the end, or before a token without text, stays incomplete.
        let more =
            tokens.get(i + 1).is_some_and(|(next, _)| tokenizer.token_bytes(*next).is_some_and(|b| !b.is_empty()));
        if unfinished && more {
            continue;
        }
        let text = if bytes.is_empty() { END.to_string() } else { visible(&String::from_utf8_lossy(&bytes)) };
        pieces.push(Piece { text, nats, tokens: count });
        (bytes, nats, count) = (Vec::new(), 0.0, 0);
    }
    pieces
}

/// A text with the cost of every token as a background shade; the darkest is the cost of a uniform guess.
pub fn reading(reading: &Reading, tokenizer: &dyn Tokenizer) -> Markup {
    let most = (tokenizer.vocab() as f64).ln();
    let pieces = pieces(&reading.tokens, tokenizer);
    let nll: f64 = reading.tokens.iter().map(|(_, nll)| nll).sum();
    html! {
        p.sum {
            (digits(nll, 2)) " nats for " (reading.tokens.len()) " tokens"
            @match reading.kl {
                Some(kl) => { ", + " (digits(kl, 2)) " nats of KL" },
                None => { ", exact" },
            }
        }
        p.tokens dir="auto" {
            @for piece in &pieces {
                span class={ "s" (shade(piece.nats / piece.tokens as f64, most)) } title=(digits(piece.nats, 2)) {
                    @if piece.text == "\n" { (LINE) "\n" } @else { (piece.text) }
                }
            }
        }
    }
}

/// The legend of the shades.
pub fn scale(vocab: usize) -> Markup {
    html! {
        p.scale {
            "0 nats "
            span.tokens aria-hidden="true" {
                @for shade in 0..SHADES as usize { span class={ "s" (shade) } { "  " } }
            }
            " " (format!("{:.2}", (vocab as f64).ln())) " nats or more, a uniform guess among " (vocab) " tokens"
        }
    }
}

/// The class of a cost, `s0` to `s9`.
pub fn shade(nats: f64, most: f64) -> usize {
    if most > 0.0 { (SHADES * nats / most).clamp(0.0, SHADES - 1.0) as usize } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::data::tokenizer::Bytes;

    #[test]
    fn tokens_become_whole_characters() {
        let tokens: Vec<(u16, f64)> = "aé\n".bytes().map(u16::from).chain([0xC3, 257]).map(|id| (id, 0.5)).collect();
        let found: Vec<(String, f64, usize)> =
            pieces(&tokens, &Bytes).into_iter().map(|p| (p.text, p.nats, p.tokens)).collect();
        let expected = [("a", 0.5, 1), ("é", 1.0, 2), ("\n", 0.5, 1), ("\u{FFFD}", 0.5, 1), (END, 0.5, 1)];
        assert_eq!(found, expected.map(|(text, nats, tokens)| (text.to_string(), nats, tokens)));
    }

    #[test]
    fn shades_go_from_nothing_to_a_guess() {
        let most = 258f64.ln();
        assert_eq!([0.0, 0.5, 3.0, most, 20.0].map(|nats| shade(nats, most)), [0, 0, 5, 9, 9]);
    }
}
