use super::Walk;
use crate::copy::{Stretch, stretches};
use crate::lanes::store_wanted;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};
use std::array;

/// The side of the squares that are transposed one after the other: both tensors are read and written in stretches of as many
/// elements, several cache lines.
const SIDE: usize = 64;
/// How many rows or columns ahead memory is prefetched.
const AHEAD: usize = 2 * LANES;
/// A task with more columns is divided if threads share the work.
const COLUMNS: usize = 8 * SIDE;

pub fn permute<T: Real>(walk: &Walk, want: Want, x: &[T], y: &mut [T]) {
    let Some(across) = walk.across() else { return rows(walk, want, x, y) };
    let width: usize = walk.sizes[across + 1..].iter().product();
    parallel::chunks(y, SIDE * width, |c, y| {
        let mut lines = y.chunks_mut(width);
        let lines = array::from_fn(|_| lines.next().unwrap_or_default());
        Squares { walk, across, want, x, lines, first: [c * SIDE, 0] }.transpose();
    });
}

/// The last axis stays: rows in another order.
fn rows<T: Real>(walk: &Walk, want: Want, x: &[T], y: &mut [T]) {
    let (count, stride, width) = (walk.sizes[2], walk.strides[2], walk.sizes[3]);
    stretches(want, width, y, || {
        // The next row of the innermost of the other axes, and its place.
        let (mut next, mut place) = (0, 0);
        move |row, column| {
            place = if row == next && row % count != 0 { place + stride } else { walk.place(0..3, row) };
            next = row + 1;
            if let Some(x) = x.get(place + AHEAD * stride..) {
                simd::prefetch(&x[..x.len().min(width).min(SIDE)]);
            }
            Stretch::From(&x[place..][column..width])
        }
    });
}

/// Lines of the output: everything inside an index of the axis `across`, along which the input is contiguous.
struct Squares<'a, 'b, T> {
    walk: &'a Walk,
    across: usize,
    want: Want,
    x: &'a [T],
    /// The same columns of adjacent lines; the slices after the last line are empty.
    lines: [&'b mut [T]; SIDE],
    /// The numbers of the first line and column.
    first: [usize; 2],
}

impl<T: Real> Squares<'_, '_, T> {
    fn transpose(mut self) {
        let columns = self.lines[0].len();
        if columns <= COLUMNS || parallel::threads() == 1 {
            return simd::dispatch(self);
        }
        let middle = (columns / 2).next_multiple_of(SIDE);
        let lines = self.lines.each_mut().map(|line| line.split_off_mut(middle..).unwrap_or_default());
        let [line, column] = self.first;
        let rest = Squares { lines, first: [line, column + middle], ..self };
        parallel::join(|| self.transpose(), || rest.transpose());
    }
}

impl<T: Real> Kernel for Squares<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let Walk { sizes, strides } = self.walk;
        let (across, stride, [first, column]) = (sizes[self.across], strides[3], self.first);
        let (count, columns) = (self.lines.iter().filter(|line| !line.is_empty()).count(), self.lines[0].len());
        let mut i = 0;
        while i < count {
            // Lines that have the same indices on the axes outside.
            let (outside, line) = ((first + i) / across, (first + i) % across);
            let end = count.min(i + across - line);
            let start = self.walk.place(0..self.across, outside) + line;
            let mut j = 0;
            while j < columns {
                let (between, last) = ((column + j) / sizes[3], (column + j) % sizes[3]);
                let len = SIDE.min(sizes[3] - last).min(columns - j);
                let from = start + self.walk.place(self.across + 1..3, between) + last * stride;
                square::<I, T>(self.want, &self.x[from..], stride, &mut self.lines[i..end], j..j + len);
                j += len;
            }
            i = end;
        }
    }
}

/// Line i, column j of these columns gets `x[j · stride + i]`.
#[inline(always)]
fn square<I: Isa, T: Real>(
    want: Want,
    x: &[T],
    stride: usize,
    lines: &mut [&mut [T]],
    columns: std::ops::Range<usize>,
) {
    for i in (0..lines.len()).step_by(LANES) {
        let lines = &mut lines[i..];
        for j in columns.clone().step_by(LANES) {
            let x = &x[(j - columns.start) * stride + i..];
            for k in 0..LANES {
                let ahead = (k + AHEAD) * stride;
                if let Some(x) = x.get(ahead..ahead + LANES) {
                    simd::prefetch(x);
                }
            }
            for line in lines.iter().take(LANES) {
                if let Some(y) = line.get(j + AHEAD..j + AHEAD + LANES) {
                    simd::prefetch(y);
                }
            }
            if lines.len() >= LANES && j + LANES <= columns.end {
                let mut tile = [T::Lanes::<I>::zero(); LANES];
                for k in 0..LANES {
                    tile[k] = T::Lanes::<I>::load(&x[k * stride..]);
                }
                let tile = T::Lanes::<I>::transpose(tile);
                for k in 0..LANES {
                    store_wanted::<I, T>(want, tile[k], lines[k], j);
                }
                continue;
            }
            for (k, line) in lines.iter_mut().take(LANES).enumerate() {
                for (to, from) in line[j..columns.end].iter_mut().take(LANES).zip(x[k..].iter().step_by(stride)) {
                    *to = if want == Want::Add { *to + *from } else { *from };
                }
            }
        }
    }
}
