//! Numeric derivatives with error estimates.

use super::report::{Place, Reason, Report, Worst};
use super::{Options, dot, normal};

/// A value of the function that is differentiated.
#[derive(Clone, Copy)]
pub(super) struct Value {
    pub value: f64,
    /// The sum of the magnitudes of its terms; the rounding error is proportional to it.
    pub scale: f64,
}

/// A numeric derivative and its possible errors.
#[derive(Clone, Copy, Debug)]
struct Derivative {
    value: f64,
    /// The disagreement of other step sizes.
    doubt: f64,
    /// The rounding error, and what it may hide.
    noise: f64,
    /// The difference of the slopes on both sides.
    jump: f64,
}

/// Step of the stencil for entries of size one.
const STEP: f64 = 1e-3;
/// Largest accepted relative difference.
const TOLERANCE: f64 = 1e-6;
/// Each step size is tried together with its quarter. If the two disagree, or see a kink, the next step is smaller by this
/// factor; if they agree but rounding errors dominate, it is larger by this factor.
const NEXT: f64 = 16.0;
/// Number of step sizes to try.
const TRIES: usize = 3;
/// A derivative is unusable if other step sizes and a kink leave more than this many tolerances open.
const TRUST: f64 = 10.0;
/// The difference of the slopes by h and by h/4, in units of the error of the latter: 255 for a smooth function, less where
/// the steps do not resolve it.
const DOUBT: f64 = 4.0;
/// A slope that a function may have without moving at all: rounding of its terms can hide it.
const STILL: f64 = 1e-9;
/// Rounding errors of an entry, as a share of the largest slope of its input.
const LOST: f64 = 1e-12;
/// Rounding errors of a stencil in units of the rounding error of a value.
const ROUNDINGS: f64 = 16.0;

/// Central differences at h and 2h.
struct Stencil {
    slope: f64,
    /// The difference of the slopes on both sides: h·f″ for a smooth f.
    bend: f64,
    /// The largest [`Value::scale`].
    scale: f64,
    /// Whether any value differs from the middle one.
    moves: bool,
}

impl Stencil {
    fn of(f: &mut dyn FnMut(f64) -> Value, middle: f64, h: f64) -> Self {
        let (mut scale, mut moves) = (middle.abs(), false);
        let mut pair = |h: f64| {
            [h, -h].map(|t| {
                let Value { value, scale: s } = f(t);
                scale = scale.max(s);
                moves |= value != middle;
                value
            })
        };
        let (near, far) = (pair(h), pair(2.0 * h));
        let slope = (8.0 * (near[0] - near[1]) - (far[0] - far[1])) / (12.0 * h);
        Self { slope, bend: ((near[0] - middle) + (near[1] - middle)) / h, scale, moves }
    }
}

impl Derivative {
    /// The derivative at 0 of `f`, from five-point stencils of step h and h/4; the error of the latter is a 256th of that
    /// of the former. A third checks it. `f(0)` is `middle`; each value has the error `rounding`.
    fn of(f: &mut dyn FnMut(f64) -> Value, middle: f64, rounding: f64, step: f64) -> Self {
        let mut best: Option<(Self, f64)> = None;
        let mut h = step;
        for _ in 0..TRIES {
            let (coarse, fine) = (Stencil::of(f, middle, h), Stencil::of(f, middle, h / 4.0));
            let (value, scale, moves) = (fine.slope, coarse.scale.max(fine.scale), coarse.moves || fine.moves);
            if best.is_some() && !moves {
                // Smaller steps lie between those of a staircase, or on the flat side of a kink: nothing tells which.
                break;
            }
            let new = Self {
                value,
                doubt: (coarse.slope - value).abs() / DOUBT,
                noise: (ROUNDINGS * (1e-15 * scale + 4.0 * rounding) / h).max(if moves { 0.0 } else { STILL }),
                // The part of the bend that does not shrink with h. Of a kink at h/5 it sees nothing, but `doubt` does.
                jump: (4.0 * fine.bend - coarse.bend).abs() / 3.0,
            };
            if best.is_none_or(|(best, _)| new.total() < best.total()) {
                best = Some((new, h));
            }
            let wanted = TOLERANCE * value.abs();
            if new.total() == f64::INFINITY || new.doubt.max(new.jump) > wanted + new.noise {
                if h > step {
                    break;
                }
                h /= NEXT;
            } else if new.noise > wanted && value != 0.0 && h >= step && h < 1.0 {
                h *= NEXT;
            } else {
                break;
            }
        }
        let (best, h) = best.expect("at least one step size");
        // Agreement may be chance, and rounding larger than estimated: a third stencil shows both.
        let again = (Stencil::of(f, middle, 0.15 * h).slope - best.value).abs();
        Self { doubt: best.doubt + again, ..best }
    }

    /// The total possible error; infinite if anything is not finite.
    fn total(&self) -> f64 {
        let total = self.doubt + self.noise + self.jump;
        if total.is_finite() { total } else { f64::INFINITY }
    }

    /// The reason if this place cannot be checked.
    fn useless(&self, claimed: f64) -> Option<Reason> {
        let size = self.value.abs().max(if claimed.is_finite() { claimed.abs() } else { 0.0 });
        let accepted = TRUST * TOLERANCE * size + self.noise;
        if !(self.total() + self.value).is_finite() {
            Some(Reason::NotFinite)
        } else if self.jump > accepted {
            Some(Reason::Kink)
        } else if self.doubt + self.jump > accepted {
            Some(Reason::Rough)
        } else {
            None
        }
    }

    /// The relative difference of `claimed`, or a reason why it cannot be checked.
    ///
    /// # Errors
    /// The error of the claim, as a multiple of the accepted one.
    fn compare(&self, claimed: f64) -> Result<Result<f64, Reason>, f64> {
        if let Some(reason) = self.useless(claimed) {
            return Ok(Err(reason));
        }
        let size = claimed.abs().max(self.value.abs());
        let difference = (claimed - self.value).abs();
        // What remains of a kink that is too small to be seen.
        let accepted = TOLERANCE * size + self.noise + self.doubt + self.jump;
        // Written so that NaN fails; for an infinite claim any relative difference would be small.
        let close = claimed.is_finite() && difference <= accepted;
        if !close {
            return Err(if difference.is_finite() { difference / accepted } else { f64::INFINITY });
        }
        if size <= self.noise / TOLERANCE { Ok(Err(Reason::TooSmall)) } else { Ok(Ok(difference / size)) }
    }
}

/// The rounding error of values of `f`, from fourth differences of points so close together that only rounding remains,
/// but not so close that `f` does not move: where terms cancel in a sum, `f` is a staircase of their rounding errors. Their
/// median counts, because kinks between the points make some of them large.
fn rounding(f: &mut dyn FnMut(f64) -> Value) -> f64 {
    const POINTS: usize = 12;
    for apart in [1e-8, 1e-7, 1e-6, 1e-5, 1e-4] {
        // On one side of 0 each, because there may be a kink at 0.
        let sides =
            [-apart, apart].map(|apart| -> [f64; POINTS] { std::array::from_fn(|k| f(apart * (k + 1) as f64).value) });
        let moves = |y: &[f64; POINTS]| y.windows(2).filter(|pair| pair[0] != pair[1]).count() > POINTS / 2;
        if sides.iter().all(moves) {
            let fourth = |w: &[f64]| (w[0] - 4.0 * w[1] + 6.0 * w[2] - 4.0 * w[3] + w[4]).abs();
            let mut all: Vec<f64> = sides.iter().flat_map(|y| y.windows(5).map(fourth)).collect();
            all.sort_by(f64::total_cmp);
            // The squares of the weights sum to 70; half of all normal numbers are below 0.67 standard deviations.
            return all[all.len() / 2 - 1] / 70f64.sqrt() / 0.67;
        }
    }
    0.0
}

/// Numeric derivatives for one input: of each entry if the input is small, and along a random direction.
pub(super) struct Numeric {
    entries: Vec<Derivative>,
    direction: Vec<f64>,
    along: Derivative,
}

impl Numeric {
    /// For input number `i` with the values `base`; `value` is the function of this input.
    pub fn of(i: usize, base: &[f64], mut value: impl FnMut(&[f64]) -> Value, options: &Options) -> Self {
        let mut direction = normal(options.seed, 3000 + i as u32, base.len());
        let norm = dot(&direction, &direction).sqrt().max(1e-300);
        direction.iter_mut().for_each(|x| *x /= norm);
        let mut moved = base.to_vec();
        let mut along = |t: f64| {
            moved.iter_mut().zip(base).zip(&direction).for_each(|((m, x), d)| *m = x + t * d);
            value(&moved)
        };
        let middle = along(0.0).value;
        let rounding = rounding(&mut along);
        let along = Derivative::of(&mut along, middle, rounding, STEP);
        let mut entries = Vec::new();
        if base.len() <= options.entrywise {
            moved.copy_from_slice(base);
            for (e, &x) in base.iter().enumerate() {
                let mut f = |t: f64| {
                    moved[e] = x + t;
                    value(&moved)
                };
                entries.push(Derivative::of(&mut f, middle, rounding, STEP * x.abs().max(1.0)));
                moved[e] = x;
            }
        }
        // Sums of terms that large, in the function or in the gradient, round off what is smaller.
        let known = entries.iter().filter(|entry: &&Derivative| entry.useless(entry.value).is_none());
        let lost = LOST * known.map(|entry| entry.value.abs()).fold(0.0, f64::max);
        entries.iter_mut().for_each(|entry| entry.noise += lost);
        Self { entries, direction, along }
    }

    /// Compares the claimed gradient of `input`; returns the worst wrong number.
    pub fn compare(&self, input: &str, grad: &[f64], report: &mut Report) -> Option<Worst> {
        let along = dot(grad, &self.direction);
        // Kinks of several entries can hide each other along a direction.
        let kinked = self.entries.iter().zip(grad).any(|(n, &g)| n.useless(g) == Some(Reason::Kink));
        let entries = self.entries.iter().enumerate().map(|(j, n)| (Place::Entry(j), grad[j], n));
        let mut worst: Option<(f64, Worst)> = None;
        for (place, claimed, numeric) in entries.chain([(Place::Projection, along, &self.along)]) {
            let compared = match place {
                Place::Projection if kinked => Ok(Err(Reason::Kink)),
                _ => numeric.compare(claimed),
            };
            match compared {
                Ok(Ok(relative)) => report.pass(input, relative),
                Ok(Err(reason)) => report.skip(input, place, reason),
                Err(off) => {
                    // An entry is more informative than the projection.
                    let better = |&(most, (at, ..)): &(f64, Worst)| {
                        place != Place::Projection && (off > most || at == Place::Projection)
                    };
                    if worst.as_ref().is_none_or(better) {
                        worst = Some((off, (place, claimed, numeric.value)));
                    }
                }
            }
        }
        worst.map(|(_, worst)| worst)
    }
}
