//! The latents of the oracle: a fixed random code of a story's facts, in place of a posterior.

use crate::corpus::{FACTS, MOST_VALUES};
use engine::rng::Stream;

/// Random-number site of the codes.
const SITE: u32 = 0x4641_4354;

/// Fills `z`, the latents `[L·K, d]` of a story whose facts have these values: the sum of a vector from N(0, I) for every value
/// of every fact, always the same, divided by the root of the number of facts. So the entries of z are also from N(0, 1).
pub fn code(values: [usize; FACTS.len()], z: &mut [f64]) {
    let mut vector = vec![0.0; z.len()];
    z.fill(0.0);
    for (fact, value) in values.into_iter().enumerate() {
        let stream = Stream::new(0, SITE).sample((fact * MOST_VALUES + value) as u32);
        stream.fill_normal(0, &mut vector, |x| x / (FACTS.len() as f64).sqrt());
        z.iter_mut().zip(&vector).for_each(|(z, x)| *z += x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_like_the_prior_and_tell_facts_apart() {
        let of = |values| {
            let mut z = vec![7.0; 1000];
            code(values, &mut z);
            z
        };
        let z = of([0; FACTS.len()]);
        assert_eq!(z, of([0; FACTS.len()]));
        let square = |z: &[f64]| z.iter().map(|x| x * x).sum::<f64>() / 1000.0;
        assert!((square(&z) - 1.0).abs() < 0.2, "{}", square(&z));
        for fact in 0..FACTS.len() {
            let mut values = [0; FACTS.len()];
            values[fact] = MOST_VALUES - 1;
            let moved: Vec<f64> = of(values).iter().zip(&z).map(|(a, b)| a - b).collect();
            // The difference of two vectors of variance 1/7.
            assert!((square(&moved) - 2.0 / 7.0).abs() < 0.06, "{fact}: {}", square(&moved));
        }
    }
}
