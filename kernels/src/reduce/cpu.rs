//! Reductions in at most two levels. The first reduces pieces of the axis, whose length depends on the shape only; the second
//! reduces the results of the pieces. So the order of a sum depends neither on the threads nor on other results.

use crate::lanes::{CHUNK, load, store};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// A tensor `[outer, n, inner]`, which is reduced over n.
#[derive(Clone, Copy)]
pub struct View {
    pub outer: usize,
    pub n: usize,
    pub inner: usize,
}

/// Elements that a task reads or writes.
const TASK: usize = 1 << 17;

/// The least number of rows in a piece: the results of pieces are a small part of the memory traffic.
const ROWS: usize = 64;

impl View {
    /// Length of a piece.
    fn piece(self) -> usize {
        let piece = if self.inner == 1 { CHUNK } else { ROWS.max(CHUNK / self.inner) };
        piece.min(self.n)
    }

    /// The results of the first level, `[outer, pieces, inner]`.
    fn pieces(self) -> Self {
        Self { n: self.n.div_ceil(self.piece()), ..self }
    }

    pub fn results(self) -> usize {
        self.outer * self.inner
    }

    /// Number of the results of pieces; none if there is one piece.
    pub fn partials(self) -> usize {
        let Self { outer, n, inner } = self.pieces();
        if n == 1 { 0 } else { outer * n * inner }
    }
}

/// y = `scale` · Σ x
pub fn sum<T: Real>(view: View, scale: T, x: &[T], partials: &mut [T], y: &mut [T]) {
    if partials.is_empty() {
        return sum_pieces(view, view.n, scale, x, y);
    }
    sum_pieces(view, view.piece(), T::ONE, x, partials);
    sum_pieces(view.pieces(), view.pieces().n, scale, partials, y);
}

/// The sums of pieces of `piece` places: `sums [outer, pieces, inner]`.
fn sum_pieces<T: Real>(view: View, piece: usize, scale: T, x: &[T], sums: &mut [T]) {
    let size = (TASK / piece).max(1);
    parallel::chunks(sums, size, |c, sums| {
        simd::dispatch(Sums { walk: Walk::new(view, piece, c * size), scale, x, sums });
    });
}

/// Adjacent results of one piece.
struct Part {
    /// Number of results.
    width: usize,
    /// First place on the axis.
    place: usize,
    /// Column of the first result.
    column: usize,
    /// Elements of the piece, whole rows of `inner`.
    from: usize,
    to: usize,
}

/// A walk over the results of pieces of `piece` places, `[outer, pieces, inner]`. Rows may be short, so it does not divide at
/// every step.
struct Walk {
    view: View,
    piece: usize,
    /// The next result: its sample, first place and column.
    o: usize,
    place: usize,
    column: usize,
}

impl Walk {
    /// From result number `first` on.
    fn new(view: View, piece: usize, first: usize) -> Self {
        let (row, pieces) = (first / view.inner, view.n.div_ceil(piece));
        Self { view, piece, o: row / pieces, place: row % pieces * piece, column: first % view.inner }
    }

    /// At most `left` results.
    #[inline(always)]
    fn next(&mut self, left: usize) -> Part {
        let Self { view: View { n, inner, .. }, piece, o, place, column } = *self;
        let (width, end) = (left.min(inner - column), n.min(place + piece));
        self.column += width;
        if self.column == inner {
            (self.column, self.place) = (0, end);
        }
        if self.place == n {
            (self.place, self.o) = (0, o + 1);
        }
        Part { width, place, column, from: (o * n + place) * inner, to: (o * n + end) * inner }
    }
}

struct Sums<'a, T> {
    walk: Walk,
    scale: T,
    x: &'a [T],
    sums: &'a mut [T],
}

impl<T: Real> Kernel for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { mut walk, scale, x, sums } = self;
        let inner = walk.view.inner;
        let mut done = 0;
        while done < sums.len() {
            let Part { width, column, from, to, .. } = walk.next(sums.len() - done);
            let out = &mut sums[done..done + width];
            if inner == 1 {
                out[0] = sum_row::<I, T>(&x[from..to]);
            } else {
                sum_columns::<I, T>(&x[from..to], inner, column, out);
            }
            if scale != T::ONE {
                out.iter_mut().for_each(|y| *y *= scale);
            }
            done += width;
        }
    }
}

/// Σ x by four times sixteen running sums; fewer than sixteen numbers one by one.
#[inline(always)]
fn sum_row<I: Isa, T: Real>(x: &[T]) -> T {
    if x.len() < LANES {
        let mut sum = T::ZERO;
        for &x in x {
            sum += x;
        }
        return sum;
    }
    let (body, tail) = x.as_chunks::<{ 4 * LANES }>();
    let mut sums = [T::Lanes::<I>::zero(); 4];
    for x in body {
        for j in 0..4 {
            sums[j] = sums[j].add(T::Lanes::<I>::load(&x[j * LANES..]));
        }
    }
    for i in (0..tail.len()).step_by(LANES) {
        sums[0] = sums[0].add(load::<I, T>(tail, i));
    }
    sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
}

/// The sums of the columns from `column` on of rows of `inner` numbers. Four rows are added to each other first, so that the
/// sums are read and written less often.
#[inline(always)]
fn sum_columns<I: Isa, T: Real>(x: &[T], inner: usize, column: usize, sums: &mut [T]) {
    sums.fill(T::ZERO);
    let width = sums.len();
    if inner < LANES {
        for row in x.chunks_exact(inner) {
            for i in 0..width {
                sums[i] += row[column + i];
            }
        }
        return;
    }
    let mut fours = x.chunks_exact(4 * inner);
    for rows in &mut fours {
        let (a, b) = (&rows[column..][..width], &rows[inner + column..][..width]);
        let (c, d) = (&rows[2 * inner + column..][..width], &rows[3 * inner + column..][..width]);
        for i in (0..width).step_by(LANES) {
            let [low, high] = [load::<I, T>(a, i).add(load::<I, T>(b, i)), load::<I, T>(c, i).add(load::<I, T>(d, i))];
            store::<I, T>(load::<I, T>(sums, i).add(low.add(high)), sums, i);
        }
    }
    for row in fours.remainder().chunks_exact(inner) {
        let row = &row[column..][..width];
        for i in (0..width).step_by(LANES) {
            store::<I, T>(load::<I, T>(sums, i).add(load::<I, T>(row, i)), sums, i);
        }
    }
}

/// Largest numbers and their places on the axis.
pub struct Maxima<'a, T> {
    pub y: &'a mut [T],
    pub index: &'a mut [i32],
}

/// The first of the largest numbers; the first NaN if there is one.
pub fn max<T: Real>(view: View, x: &[T], partials: Maxima<T>, out: Maxima<T>) {
    if partials.y.is_empty() {
        return max_pieces(view, view.n, x, None, out);
    }
    let Maxima { y, index } = partials;
    max_pieces(view, view.piece(), x, None, Maxima { y: &mut *y, index: &mut *index });
    max_pieces(view.pieces(), view.pieces().n, y, Some(index), out);
}

/// The maxima of pieces of `piece` places. `given` has the places of the numbers if they are results of pieces.
fn max_pieces<T: Real>(view: View, piece: usize, x: &[T], given: Option<&[i32]>, out: Maxima<T>) {
    let size = (TASK / piece).max(1);
    parallel::chunks2(out.y, size, out.index, size, |c, y, index| {
        simd::dispatch(Largest { walk: Walk::new(view, piece, c * size), x, given, y, index });
    });
}

struct Largest<'a, T> {
    walk: Walk,
    x: &'a [T],
    given: Option<&'a [i32]>,
    y: &'a mut [T],
    index: &'a mut [i32],
}

impl<T: Real> Kernel for Largest<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { mut walk, x, given, y, index } = self;
        let inner = walk.view.inner;
        let mut done = 0;
        while done < y.len() {
            let Part { width, place, column, from, to } = walk.next(y.len() - done);
            let (out, at) = (&mut y[done..done + width], &mut index[done..done + width]);
            if inner == 1 {
                (out[0], at[0]) = max_row::<I, T>(&x[from..to]);
            } else {
                max_columns::<I, T>(&x[from..to], inner, column, out, at);
            }
            for (i, at) in at.iter_mut().enumerate() {
                *at = match given {
                    Some(given) => given[from + *at as usize * inner + column + i],
                    None => place as i32 + *at,
                };
            }
            done += width;
        }
    }
}

#[allow(clippy::eq_op)]
#[inline(always)]
fn is_nan<T: Real>(x: T) -> bool {
    x != x
}

/// Whether a later number takes the place of the largest so far.
fn replaces<T: Real>(x: T, largest: T) -> bool {
    x > largest || is_nan(x) && !is_nan(largest)
}

/// The largest number first, then its place.
#[inline(always)]
fn max_row<I: Isa, T: Real>(x: &[T]) -> (T, i32) {
    let mut largest = [T::Lanes::<I>::splat(x[0]); 2];
    let mut sums = [T::Lanes::<I>::zero(); 2];
    let (body, tail) = x.as_chunks::<{ 2 * LANES }>();
    for x in body {
        for j in 0..2 {
            let x = T::Lanes::<I>::load(&x[j * LANES..]);
            largest[j] = x.max(largest[j]);
            sums[j] = sums[j].add(x);
        }
    }
    let mut sum = sums[0].add(sums[1]).sum();
    let mut most = simd::max::<I, T>(&largest[0].max(largest[1]).to_array());
    for &x in tail {
        most = if x > most { x } else { most };
        sum += x;
    }
    // The sum is NaN also if both infinities are among the numbers.
    let at = if is_nan(sum) && x.iter().any(|&x| is_nan(x)) { first(x, is_nan) } else { first(x, |x| x == most) };
    (x[at], at as i32)
}

/// The first number for which `is` holds: first its block, because the search in a block cannot compare several at once.
#[inline(always)]
fn first<T: Real>(x: &[T], is: impl Fn(T) -> bool) -> usize {
    const BLOCK: usize = 64;
    let mut blocks = x.chunks(BLOCK);
    let block = blocks.position(|x| x.iter().fold(false, |found, &x| found | is(x))).expect("a number that is there");
    let from = block * BLOCK;
    from + x[from..].iter().position(|&x| is(x)).expect("a number of the block")
}

/// The same for columns from `column` on, four rows at a time, so that the results are read and written less often.
#[inline(always)]
fn max_columns<I: Isa, T: Real>(x: &[T], inner: usize, column: usize, largest: &mut [T], places: &mut [i32]) {
    /// Columns at a time: their places and sums stay in L1.
    const WIDTH: usize = 1024;
    for (block, (largest, places)) in largest.chunks_mut(WIDTH).zip(places.chunks_mut(WIDTH)).enumerate() {
        let (column, width) = (column + block * WIDTH, largest.len());
        let (mut at, mut sums) = ([T::ZERO; WIDTH], [T::ZERO; WIDTH]);
        largest.copy_from_slice(&x[column..][..width]);
        for (four, rows) in x.chunks(4 * inner).enumerate() {
            for i in (0..width).step_by(LANES) {
                let mut most = load::<I, T>(largest, i);
                let (mut place, mut sum) = (T::Lanes::<I>::load(&at[i..]), T::Lanes::<I>::load(&sums[i..]));
                for (k, row) in rows.chunks_exact(inner).enumerate() {
                    let x = load::<I, T>(&row[column..][..width], i);
                    place = x.select(most, T::Lanes::<I>::splat(T::from_f64((4 * four + k) as f64)), place);
                    most = x.max(most);
                    sum = sum.add(x);
                }
                store::<I, T>(most, largest, i);
                place.store(&mut at[i..]);
                sum.store(&mut sums[i..]);
            }
        }
        for i in 0..width {
            places[i] = at[i].to_f64() as i32;
            // Also if both infinities are among the numbers.
            if is_nan(sums[i]) {
                (largest[i], places[i]) = (x[column + i], 0);
                for (k, row) in x.chunks_exact(inner).enumerate() {
                    if replaces(row[column + i], largest[i]) {
                        (largest[i], places[i]) = (row[column + i], k as i32);
                    }
                }
            }
        }
    }
}

/// d_x = `scale` · d_y at every place.
pub fn spread<T: Real>(view: View, scale: T, want: Want, d_y: &[T], d_x: &mut [T]) {
    let inner = view.inner;
    for_each_part(view, d_x, |o, _, d_x| match (inner, want) {
        (1, Want::Add) => d_x.iter_mut().for_each(|d_x| *d_x += scale * d_y[o]),
        (1, _) => d_x.fill(scale * d_y[o]),
        _ => {
            let d_y = &d_y[o * inner..][..inner];
            for row in d_x.chunks_exact_mut(inner) {
                match want {
                    Want::Add => row.iter_mut().zip(d_y).for_each(|(d_x, &d)| *d_x += scale * d),
                    _ => row.iter_mut().zip(d_y).for_each(|(d_x, &d)| *d_x = scale * d),
                }
            }
        }
    });
}

/// d_x = d_y at the place of the maximum, zero elsewhere.
pub fn place<T: Real>(view: View, want: Want, index: &[i32], d_y: &[T], d_x: &mut [T]) {
    let inner = view.inner;
    for_each_part(view, d_x, |o, first, d_x| {
        if want == Want::Write {
            d_x.fill(T::ZERO);
        }
        let results = o * inner..(o + 1) * inner;
        for (i, (&at, &d)) in index[results.clone()].iter().zip(&d_y[results]).enumerate() {
            if let Some(row) = (at as usize).checked_sub(first)
                && let Some(d_x) = d_x.get_mut(row * inner + i)
            {
                *d_x += d;
            }
        }
    });
}

/// Calls `f(o, k, rows)` for adjacent rows of one o, from place k on.
fn for_each_part<T: Real>(
    View { n, inner, .. }: View,
    d_x: &mut [T],
    f: impl Fn(usize, usize, &mut [T]) + Sync + Send,
) {
    let rows = (TASK / inner).max(1);
    parallel::chunks(d_x, rows * inner, |c, mut rest| {
        let mut row = c * rows;
        while !rest.is_empty() {
            let (o, k) = (row / n, row % n);
            let part = rest.split_off_mut(..rest.len().min((n - k) * inner)).expect("not more than the rest");
            row += part.len() / inner;
            f(o, k, part);
        }
    });
}
