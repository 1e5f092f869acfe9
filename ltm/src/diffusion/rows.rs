use super::{Network, Seen, Text, TokenCost};
use engine::{Error, Result};

/// A text with masks, whose tokens are to be scored.
pub(super) struct Row<'a> {
    pub text: &'a Text,
    /// Masked positions.
    pub masked: Vec<usize>,
    /// How many of them to score: the first.
    pub scored: usize,
    /// What a network may be told of the time.
    pub t: f64,
}

/// Scores rows in as few calls as possible. Hands the costs of every row's tokens to `each`, with what the row came with. The
/// costs of a row do not depend on the others. Rows without a token to score are left out.
pub(super) fn score<'a, T>(
    network: &mut dyn Network,
    rows: impl IntoIterator<Item = (T, Row<'a>)>,
    mut each: impl FnMut(T, &[TokenCost]),
) -> Result<()> {
    let shape = network.shape();
    let mut rows = rows.into_iter().filter(|(_, row)| row.scored > 0).peekable();
    while rows.peek().is_some() {
        let (mut seen, mut asked, mut ends) = (Seen::default(), Vec::new(), Vec::new());
        for (place, (with, row)) in rows.by_ref().take(shape.rows).enumerate() {
            let (text, longest) = (row.text, shape.positions);
            if text.tokens.len() > longest {
                let (id, length) = (text.sample.id, text.tokens.len());
                return Err(Error::new(format!("sample {id} has {length} tokens, must be at most {longest}")));
            }
            seen.push(&text.with_masks(&row.masked, shape.mask()), longest, row.t);
            asked.extend(row.masked[..row.scored].iter().map(|&i| (place * longest + i, text.tokens[i])));
            ends.push((with, asked.len()));
        }
        let costs = network.costs(&seen, &asked)?;
        let mut begin = 0;
        for (with, end) in ends {
            each(with, &costs[begin..end]);
            begin = end;
        }
    }
    Ok(())
}
