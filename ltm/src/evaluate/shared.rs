//! Sequences that several processes score: what each of them hands to the others.

use super::Draws;
use crate::ranks;
use engine::{Collective, Result};

/// The draws of all processes, in the order of the processes; all get the same bits.
///
/// # Errors
/// As [`ranks::gather`].
pub(super) fn gathered(ranks: &dyn Collective, own: Result<Vec<Draws>>) -> Result<Vec<Draws>> {
    if ranks.size() == 1 {
        return own;
    }
    let mut draws = Vec::new();
    for words in ranks::gather(ranks, own.map(|draws| draws.iter().flat_map(words_of).collect()))? {
        let mut words = words.into_iter();
        while words.len() > 0 {
            draws.push(draws_of(&mut words));
        }
    }
    Ok(draws)
}

/// The numbers of a sequence as words of 64 bits.
fn words_of(draws: &Draws) -> Vec<u64> {
    let Draws { id, tokens, bytes, exact, told, nll, token_nll, log_ratio, own_nll, kl, log_z, kl_by_latent } = draws;
    let mut words = vec![u64::from(*id), *tokens as u64];
    words.extend([*bytes, *told, *kl].map(f64::to_bits));
    for list in [exact.as_slice(), own_nll.as_slice(), log_z.as_slice(), nll, token_nll, log_ratio, kl_by_latent] {
        words.push(list.len() as u64);
        words.extend(list.iter().map(|x| x.to_bits()));
    }
    words
}

/// The sequence whose words come next.
fn draws_of(words: &mut impl Iterator<Item = u64>) -> Draws {
    let mut next = || words.next().expect("all words of a sequence");
    let (id, tokens) = (next() as u32, next() as usize);
    let [bytes, told, kl] = std::array::from_fn(|_| f64::from_bits(next()));
    let mut list = || (0..next()).map(|_| f64::from_bits(next())).collect::<Vec<_>>();
    let [exact, own_nll, log_z] = std::array::from_fn(|_| list().pop());
    let [nll, token_nll, log_ratio, kl_by_latent] = std::array::from_fn(|_| list());
    Draws { id, tokens, bytes, exact, told, nll, token_nll, log_ratio, own_nll, kl, log_z, kl_by_latent }
}
