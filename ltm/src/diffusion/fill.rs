use super::{Network, Reveal, Seen};
use crate::generate::Sampler;
use engine::Result;

/// Replaces the masks of `text` by tokens drawn from the network, call by call; `show` gets the text after each call, with the
/// masks that are left. Other tokens never change, so they may be a prompt in front, or stand anywhere. Draws are made in f64,
/// by the sampler's options; its seed is not used.
///
/// # Errors
/// If a logit is not finite, and those of the network and of `show`.
///
/// # Panics
/// If the text is longer than the network's positions.
pub fn fill(
    network: &mut dyn Network,
    text: &mut [i32],
    reveals: &[Reveal],
    sampler: &Sampler,
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
            text[i] = sampler.pick(logits, &known, u)?.into();
        }
        show(text)?;
    }
    Ok(())
}
