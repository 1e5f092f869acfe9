use super::{Predictor, Reveal, Revealer, Seen};
use crate::generate::Sampler;
use engine::Result;

/// Replaces the masks of `text` by tokens drawn from the network, call by call; `show` gets the text after each call, with the
/// masks that are left. Other tokens never change, so they may be a prompt in front, or stand anywhere. Draws are made in f64,
/// by the sampler's options, among the ids below `ids`, since a model may have more than its tokenizer; its seed is not used.
///
/// # Errors
/// If a logit is not finite, and those of the network and of `show`.
///
/// # Panics
/// If the text is longer than the network's positions, or the network has fewer ids.
pub fn fill(
    network: &mut dyn Predictor,
    text: &mut [i32],
    reveals: &[Reveal],
    sampler: &Sampler,
    ids: usize,
    show: &mut dyn FnMut(&[i32]) -> Result<()>,
) -> Result<()> {
    let shape = network.shape();
    for reveal in reveals {
        let mut seen = Seen::default();
        seen.push(text, shape.positions, reveal.t);
        let known: Vec<u16> = text.iter().filter(|&&id| id != shape.mask()).map(|&id| id as u16).collect();
        let at: Vec<usize> = reveal.positions.iter().map(|&(i, _)| i).collect();
        let logits = network.logits(&seen, &at)?;
        for (&(i, u), logits) in reveal.positions.iter().zip(logits.chunks(shape.vocab)) {
            text[i] = sampler.pick(&logits[..ids], &known, u)?.into();
        }
        show(text)?;
    }
    Ok(())
}

/// Writes `text` on to `length` tokens; `show` gets all of it after each call. If not all of it fits the network's positions, each
/// window keeps its first half, the last tokens so far, and fills in the rest. Options and errors are those of [`fill`]; the
/// draws are those of `revealer` for text number `sample`, by position in the whole text.
pub fn write(
    network: &mut dyn Predictor,
    text: &mut Vec<i32>,
    length: usize,
    revealer: Revealer,
    sample: u32,
    sampler: &Sampler,
    ids: usize,
    show: &mut dyn FnMut(&[i32]) -> Result<()>,
) -> Result<()> {
    let shape = network.shape();
    while text.len() < length {
        let begun = text.len();
        // The last window sees as much as fits.
        let first = begun.saturating_sub(shape.positions / 2).min(length.saturating_sub(shape.positions));
        let end = length.min(first + shape.positions);
        text.resize(end, shape.mask());
        let mut reveals = revealer.reveals(&(begun..end).collect::<Vec<_>>(), sample);
        reveals.iter_mut().flat_map(|reveal| &mut reveal.positions).for_each(|(i, _)| *i -= first);
        let (before, window) = text.split_at_mut(first);
        fill(network, window, &reveals, sampler, ids, &mut |now| show(&[&*before, now].concat()))?;
    }
    Ok(())
}
