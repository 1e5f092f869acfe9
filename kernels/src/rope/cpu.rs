use engine::simd::{self, Isa, Kernel, Real};
use engine::{Want, parallel};

/// Rows that one thread takes at a time.
pub const ROWS: usize = 16;

pub fn table<T: Real>(theta: f64, head_dim: usize, positions: &[i32], table: &mut [T]) {
    parallel::chunks(table, ROWS * head_dim, |c, table| {
        for i in 0..head_dim / 2 {
            let frequency = theta.powf(-((2 * i) as f64) / head_dim as f64);
            for (row, &position) in table.chunks_mut(head_dim).zip(&positions[c * ROWS..]) {
                let (sin, cos) = (f64::from(position) * frequency).sin_cos();
                row[2 * i] = T::from_f64(cos);
                row[2 * i + 1] = T::from_f64(sin);
            }
        }
    });
}

/// Writes or adds to `y` the vector `x` rotated by φ, or by −φ if `sign` is −1. `x` and `y` [B·N, width], `table` [N,
/// head_dim]. `sizes` are the numbers per head, per row, and in the rotated first part of a row.
pub fn rope<T: Real>(sizes: [usize; 3], sign: f32, want: Want, x: &[T], table: &[T], y: &mut [T]) {
    let sign = T::from_f64(sign.into());
    let width = sizes[1];
    parallel::chunks(y, ROWS * width, |c, y| {
        let x = &x[c * ROWS * width..][..y.len()];
        simd::dispatch(Chunk { sizes, sign, want, x, table, first_row: c * ROWS, y });
    });
}

struct Chunk<'a, T> {
    sizes: [usize; 3],
    sign: T,
    want: Want,
    x: &'a [T],
    table: &'a [T],
    first_row: usize,
    y: &'a mut [T],
}

impl<T: Real> Kernel for Chunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let [head_dim, width, rotated] = self.sizes;
        let tokens = self.table.len() / head_dim;
        for (r, (x, y)) in self.x.chunks(width).zip(self.y.chunks_mut(width)).enumerate() {
            let angles = &self.table[(self.first_row + r) % tokens * head_dim..][..head_dim];
            let ((x_rotated, x_rest), (y_rotated, y_rest)) = (x.split_at(rotated), y.split_at_mut(rotated));
            for (x, y) in x_rotated.chunks_exact(head_dim).zip(y_rotated.chunks_exact_mut(head_dim)) {
                match self.want {
                    Want::Add => head(x, angles, y, self.sign, |old, new| old + new),
                    _ => head(x, angles, y, self.sign, |_, new| new),
                }
            }
            match self.want {
                Want::Add => y_rest.iter_mut().zip(x_rest).for_each(|(y, &x)| *y += x),
                _ => y_rest.copy_from_slice(x_rest),
            }
        }
    }
}

/// One head of one row. The compiler vectorises the loop over pairs.
#[inline(always)]
fn head<T: Real>(x: &[T], angles: &[T], y: &mut [T], sign: T, store: impl Fn(T, T) -> T) {
    for ((x, angle), y) in x.as_chunks::<2>().0.iter().zip(angles.as_chunks::<2>().0).zip(y.as_chunks_mut::<2>().0) {
        let (cos, sin) = (angle[0], sign * angle[1]);
        y[0] = store(y[0], Real::mul_add(x[0], cos, -(x[1] * sin)));
        y[1] = store(y[1], Real::mul_add(x[0], sin, x[1] * cos));
    }
}
