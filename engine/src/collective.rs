//! Processes that compute one result together.

use crate::Result;
use std::fmt::Debug;
use std::ops::Range;

/// The processes of a computation, a power of two of them, as one of them sees them. All call the same functions in the same
/// order; a function returns once this process has its result.
///
/// An implementation moves bytes; what is added, and in which order, is decided here. So results do not depend on the
/// implementation.
pub trait Collective: Send + Sync + Debug {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// Sends numbers to another process and receives as many as `receive` holds from it, which sends as many.
    ///
    /// # Errors
    /// If the other process is gone.
    fn exchange(&self, peer: usize, send: &[f32], receive: &mut [f32]) -> Result<()>;

    /// Replaces `bytes` by those of process 0, which has as many.
    ///
    /// # Errors
    /// If a process is gone.
    fn broadcast(&self, bytes: &mut [u8]) -> Result<()>;

    /// The numbers of all processes in their order, as many from each.
    ///
    /// # Errors
    /// If a process is gone.
    fn gather(&self, own: &[u64]) -> Result<Vec<u64>>;

    /// Replaces `x` by its sum over all processes, in the order of a binary tree: ((x₀ + x₁) + (x₂ + x₃)) + … . All processes get
    /// the same bits. Each sends and receives 2(R−1)/R of `x` (Rabenseifner 2004), and neighbours share the most.
    ///
    /// # Errors
    /// If a process is gone.
    fn sum(&self, x: &mut [f32]) -> Result<()> {
        let (rank, levels) = (self.rank(), self.size().trailing_zeros());
        let mut own = 0..x.len();
        let mut halves: Vec<(usize, [Range<usize>; 2])> = Vec::new();
        let mut received = vec![0.0; x.len().div_ceil(2)];
        // At every level two processes each take over a half of what both have, which is the sum of a subtree.
        for level in 0..levels {
            let (peer, middle) = (rank ^ (1 << level), own.start + own.len() / 2);
            let mut parts = [own.start..middle, middle..own.end];
            if rank > peer {
                parts.reverse();
            }
            let [keep, give] = parts.clone();
            let theirs = &mut received[..keep.len()];
            self.exchange(peer, &x[give], theirs)?;
            // The sum of two floats does not depend on their order.
            x[keep.clone()].iter_mut().zip(theirs).for_each(|(x, y)| *x += *y);
            own = keep;
            halves.push((peer, parts));
        }
        for (peer, [keep, give]) in halves.into_iter().rev() {
            let theirs = &mut received[..give.len()];
            self.exchange(peer, &x[keep], theirs)?;
            x[give].copy_from_slice(theirs);
        }
        Ok(())
    }
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

    fn exchange(&self, peer: usize, _: &[f32], _: &mut [f32]) -> Result<()> {
        unreachable!("a process without company has no process {peer}")
    }

    fn broadcast(&self, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn gather(&self, own: &[u64]) -> Result<Vec<u64>> {
        Ok(own.to_vec())
    }
}
