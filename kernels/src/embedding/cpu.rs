use crate::copy::{Stretch, stretches};
use crate::lanes::rows_per_chunk;
use engine::simd::{self, Real};
use engine::{Want, parallel};

/// How many elements ahead memory is prefetched, because rows lie in no order.
const FAR: usize = 1024;

/// The same in rows of `d` elements, at least one.
fn ahead(d: usize) -> usize {
    (FAR / d.max(1)).max(1)
}

/// Row `numbers[i]` of the table, of `d` elements, as row i.
pub fn gather<T: Real>(d: usize, want: Want, table: &[T], numbers: &[i32], rows: &mut [T]) {
    let row_of = |number: i32| &table[number as usize * d..][..d];
    stretches(want, d, rows, || {
        |row, column| {
            if let Some(&next) = numbers.get(row + ahead(d)) {
                simd::prefetch(&row_of(next)[..d.min(FAR)]);
            }
            Stretch::From(&row_of(numbers[row])[column..])
        }
    });
}

/// The indices of `numbers`, sorted by number and in order for each number; and where each number ends.
pub fn list_places(numbers: &[i32], places: &mut [i32], ends: &mut [i32]) {
    let rows = ends.len();
    ends.fill(0);
    for &number in numbers {
        assert!((0..rows).contains(&(number as usize)), "row {number} is not among 0..{rows}");
        ends[number as usize] += 1;
    }
    // First the places where numbers begin.
    let mut begin = 0;
    for end in &mut *ends {
        begin += std::mem::replace(end, begin);
    }
    for (&number, place) in numbers.iter().zip(0..) {
        let end = &mut ends[number as usize];
        places[*end as usize] = place;
        *end += 1;
    }
}

/// The sums of the rows with the same number, in order.
pub fn scatter<T: Real>(d: usize, want: Want, places: &[i32], ends: &[i32], rows: &[T], table: &mut [T]) {
    let row_at = |place: i32| &rows[place as usize * d..][..d];
    let chunk = rows_per_chunk(d);
    parallel::chunks(table, chunk * d, |c, sums| {
        for (number, sum) in sums.chunks_exact_mut(d).enumerate().map(|(i, sum)| (c * chunk + i, sum)) {
            let begin = if number == 0 { 0 } else { ends[number - 1] as usize };
            let mut is_new = want == Want::Write;
            for i in begin..ends[number] as usize {
                if let Some(&next) = places.get(i + ahead(d)) {
                    simd::prefetch(&row_at(next)[..d.min(FAR)]);
                }
                let pairs = sum.iter_mut().zip(row_at(places[i]));
                if std::mem::take(&mut is_new) {
                    // Zero is added, so that no sum is −0.
                    pairs.for_each(|(sum, &x)| *sum = T::ZERO + x);
                } else {
                    pairs.for_each(|(sum, &x)| *sum += x);
                }
            }
            if is_new {
                sum.fill(T::ZERO);
            }
        }
    });
}
