//! What processes that compute one result together tell each other.

use crate::data::checksum::checksum;
use engine::{Collective, Error, Result};

/// The words of all processes, in the order of the processes, any number of each.
///
/// # Errors
/// If one of the processes has an error: all return the same one, so that none waits for another. Or if one is gone.
pub fn gather(ranks: &dyn Collective, own: Result<Vec<u64>>) -> Result<Vec<Vec<u64>>> {
    if ranks.size() == 1 {
        return own.map(|words| vec![words]);
    }
    let (failed, mut words) = match own {
        Ok(words) => (0, words),
        Err(error) => (1, error.to_string().bytes().map(u64::from).collect()),
    };
    let sizes = ranks.gather(&[failed, words.len() as u64])?;
    let longest = sizes.chunks(2).map(|size| size[1] as usize).max().unwrap_or(0);
    let mut all = vec![Vec::new(); ranks.size()];
    if longest > 0 {
        words.resize(longest, 0);
        let words = ranks.gather(&words)?;
        let each = words.chunks(longest).zip(sizes.chunks(2));
        all = each.map(|(words, size)| words[..size[1] as usize].to_vec()).collect();
    }
    match sizes.chunks(2).position(|size| size[0] > 0) {
        None => Ok(all),
        Some(rank) => {
            let said: Vec<u8> = all[rank].iter().map(|&byte| byte as u8).collect();
            // Process 0 says it as a process without company does.
            let who = if rank == 0 { String::new() } else { format!("process {rank}: ") };
            Err(Error::new(format!("{who}{}", String::from_utf8_lossy(&said))))
        }
    }
}

/// What this process has done, if all of them have.
///
/// # Errors
/// As [`gather`].
pub fn all<T>(ranks: &dyn Collective, done: Result<T>) -> Result<T> {
    let (done, error) = done.map_or_else(|error| (None, Some(error)), |done| (Some(done), None));
    gather(ranks, error.map_or(Ok(Vec::new()), Err))?;
    Ok(done.expect("no process has an error"))
}

/// Whether any of the processes has `asked`.
///
/// # Errors
/// If a process is gone.
pub fn any(ranks: &dyn Collective, asked: bool) -> Result<bool> {
    Ok(ranks.gather(&[asked.into()])?.contains(&1))
}

/// Checks that all processes have the same facts, each a name and a text.
///
/// # Errors
/// A usage error that names the first process which differs from process 0, and in what. Or if a process is gone.
pub fn agree(ranks: &dyn Collective, facts: &[(&str, String)]) -> Result<()> {
    let own: Vec<u64> = facts.iter().map(|(_, text)| checksum(text.as_bytes())).collect();
    let all = ranks.gather(&own)?;
    for (rank, other) in all.chunks(own.len()).enumerate() {
        if let Some(i) = (0..own.len()).find(|&i| other[i] != all[i]) {
            return Err(Error::usage(format!("process {rank} differs from process 0 in its {}", facts[i].0)));
        }
    }
    Ok(())
}
