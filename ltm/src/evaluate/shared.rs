//! Sequences that several processes score: what each of them hands to the others.

use super::Draws;
use engine::{Collective, Error, Result};

/// The draws of all processes, in the order of the processes; all get the same bits.
///
/// # Errors
/// If one of the processes has an error, the same for all; or is gone.
pub(super) fn gathered(ranks: &dyn Collective, own: Result<Vec<Draws>>) -> Result<Vec<Draws>> {
    if ranks.size() == 1 {
        return own;
    }
    let (failed, mut words) = match &own {
        Ok(draws) => (0, draws.iter().flat_map(words_of).collect::<Vec<_>>()),
        Err(error) => (1, error.to_string().bytes().map(u64::from).collect()),
    };
    let sizes = ranks.gather(&[failed, words.len() as u64])?;
    let longest = sizes.chunks(2).map(|size| size[1] as usize).max().unwrap_or(0);
    // Of nothing there is nothing to hand over.
    let longest = longest.max(1);
    words.resize(longest, 0);
    let all = ranks.gather(&words)?;
    let each = || all.chunks(longest).zip(sizes.chunks(2)).map(|(words, size)| (size[0], &words[..size[1] as usize]));
    if let Some((rank, (_, said))) = each().enumerate().find(|(_, (failed, _))| *failed > 0) {
        let bytes: Vec<u8> = said.iter().map(|&byte| byte as u8).collect();
        return Err(Error::new(format!("process {rank}: {}", String::from_utf8_lossy(&bytes))));
    }
    let mut draws = Vec::new();
    for (_, words) in each() {
        let mut words = words.iter().copied();
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
