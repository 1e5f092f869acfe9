//! Processes that compute one result together.

use crate::{Buffer, Result};
use std::fmt::Debug;
use std::ops::Range;

/// The processes of a computation, a power of two of them, as one of them sees them. All call the same functions in the same
/// order; a function returns once this process has its result.
///
/// An implementation moves numbers; what is added, and in which order, is decided by [`halving`]. So results do not depend on
/// the implementation.
pub trait Collective: Send + Sync + Debug {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// Replaces each of `xs`, f32, by its sum over all processes, in the order of a binary tree: ((x₀ + x₁) + (x₂ + x₃)) + … .
    /// All processes get the same bits.
    ///
    /// # Errors
    /// If a process is gone.
    fn sum(&self, xs: &mut [&mut Buffer]) -> Result<()>;

    /// Replaces `x`, f32, by that of process 0, which has as many numbers.
    ///
    /// # Errors
    /// If a process is gone.
    fn broadcast(&self, x: &mut Buffer) -> Result<()>;

    /// The numbers of all processes in their order, as many from each.
    ///
    /// # Errors
    /// If a process is gone.
    fn gather(&self, own: &[u64]) -> Result<Vec<u64>>;
}

/// A part of a sum: two processes exchange numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The other process.
    pub peer: usize,
    /// The numbers that this process sends.
    pub give: Range<usize>,
    /// The numbers that the other process sends.
    pub take: Range<usize>,
    /// Whether they are added to the own ones or replace them.
    pub adds: bool,
}

/// The exchanges of one of `size` processes that compute the sum of `len` numbers each, in their order. Each process sends
/// and receives 2(R−1)/R of the numbers (Rabenseifner 2004), and neighbours share the most.
pub fn halving(rank: usize, size: usize, len: usize) -> Vec<Exchange> {
    let mut own = 0..len;
    let mut exchanges = Vec::new();
    // At every level two processes each take over a half of what both have, which is the sum of a subtree. The sum of two floats
    // does not depend on their order.
    for level in 0..size.trailing_zeros() {
        let (peer, middle) = (rank ^ (1 << level), own.start + own.len() / 2);
        let (mut keep, mut give) = (own.start..middle, middle..own.end);
        if rank > peer {
            std::mem::swap(&mut keep, &mut give);
        }
        own = keep.clone();
        exchanges.push(Exchange { peer, give, take: keep, adds: true });
    }
    // The way back.
    for i in (0..exchanges.len()).rev() {
        let Exchange { peer, give, take, .. } = exchanges[i].clone();
        exchanges.push(Exchange { peer, give: take, take: give, adds: false });
    }
    exchanges
}

/// [`Collective::sum`] by a function that sends numbers to a process and receives as many as the last argument holds from it.
///
/// # Errors
/// Those of the function and of a GPU that holds numbers.
pub fn sum_by(
    ranks: &dyn Collective,
    xs: &mut [&mut Buffer],
    mut exchange: impl FnMut(usize, &[f32], &mut [f32]) -> Result<()>,
) -> Result<()> {
    let mut sum = |x: &mut [f32]| {
        let mut received = vec![0.0; x.len().div_ceil(2)];
        for Exchange { peer, give, take, adds } in halving(ranks.rank(), ranks.size(), x.len()) {
            let theirs = &mut received[..take.len()];
            exchange(peer, &x[give], theirs)?;
            let own = x[take].iter_mut().zip(theirs);
            own.for_each(|(x, y)| *x = if adds { *x + *y } else { *y });
        }
        Ok(())
    };
    xs.iter_mut().try_for_each(|x| on_host(x, &mut sum))
}

/// Changes f32 numbers, also those of a GPU.
///
/// # Errors
/// Those of `change` and of a GPU that holds `x`.
pub fn on_host(x: &mut Buffer, change: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    if x.gpu().is_none() {
        return change(x.as_mut_slice());
    }
    let mut copy = x.on_host()?.into_owned();
    change(copy.as_mut_slice())?;
    x.copy_from(&copy);
    Ok(())
}

/// A process without company.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [&mut Buffer]) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn gather(&self, own: &[u64]) -> Result<Vec<u64>> {
        Ok(own.to_vec())
    }
}
