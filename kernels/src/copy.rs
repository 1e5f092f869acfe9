//! Copies row by row, for the ops that only move numbers.

use crate::lanes::CHUNK;
use engine::simd::Real;
use engine::{Want, parallel};

/// What adjacent elements of an output get.
pub enum Stretch<'a, T> {
    /// These numbers.
    From(&'a [T]),
    /// This many zeros.
    Zeros(usize),
}

/// Stretches shorter than this are copied in a loop, because a call takes longer.
const SHORT: usize = 16;

/// Writes all of `out`, or adds to it. A row of it has `width` elements. `walker` makes a function per task, which gets the row
/// and column of one stretch after the other and returns the stretch; it ends in the row at the latest.
pub fn stretches<'a, T: Real, At>(want: Want, width: usize, out: &mut [T], walker: impl Fn() -> At + Sync + Send)
where
    At: FnMut(usize, usize) -> Stretch<'a, T>,
{
    parallel::chunks(out, CHUNK, |c, mut out| {
        let mut at = walker();
        let (mut row, mut column) = (c * CHUNK / width, c * CHUNK % width);
        while !out.is_empty() {
            let stretch = at(row, column);
            let len = out.len().min(match stretch {
                Stretch::From(from) => from.len(),
                Stretch::Zeros(len) => len,
            });
            let (to, rest) = out.split_at_mut(len);
            match (want, stretch) {
                (Want::Write, Stretch::From(from)) if len >= SHORT => to.copy_from_slice(&from[..len]),
                (Want::Write, Stretch::From(from)) => to.iter_mut().zip(from).for_each(|(to, &from)| *to = from),
                (Want::Write, Stretch::Zeros(_)) => to.fill(T::ZERO),
                (Want::Add, Stretch::From(from)) => to.iter_mut().zip(from).for_each(|(to, &from)| *to += from),
                (Want::Add, Stretch::Zeros(_)) | (Want::Skip, _) => {}
            }
            out = rest;
            column += len;
            if column == width {
                (row, column) = (row + 1, 0);
            }
        }
    });
}
