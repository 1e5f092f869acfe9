//! How many bits of a fact a linear probe reads from the posterior's mean: ridge regression of the values on μ, and a
//! softmax of its outputs at one temperature. It learns from stories that no other number uses.

use ltm::evaluate::Mean;

/// Strengths of the ridge that are tried, in units of the mean squared length of a story's numbers.
const RIDGES: [f64; 6] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];

/// Inverse temperatures that are tried: powers of √2.
const SHARPNESSES: i32 = 24;

/// Stories by their μ, standardised over those that the probe learns from.
pub struct Probe {
    learned: Vec<Vec<f64>>,
    scale: Vec<[f64; 2]>,
}

impl Probe {
    /// A probe of stories with these μ, at least one.
    pub fn new(mut means: Vec<Vec<f64>>) -> Self {
        let n = means.len() as f64;
        let moments = |i: usize| {
            let mean = means.iter().map(|row| row[i]).sum::<f64>() / n;
            let variance = means.iter().map(|row| (row[i] - mean).powi(2)).sum::<f64>() / n;
            // A number that never changes tells nothing.
            [mean, if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 }]
        };
        let scale: Vec<[f64; 2]> = (0..means[0].len()).map(moments).collect();
        means.iter_mut().for_each(|row| standardise(row, &scale));
        Self { learned: means, scale }
    }

    /// Bits of a fact with so many values that the probe reads on average in stories with these `means` and `values`. It
    /// learns from the stories given to [`new`](Self::new), whose values are `known`. It can be below zero, when the probe is surer than
    /// it is right. Stories without the fact, `None`, do not count. NaN without stories.
    pub fn bits(&self, known: &[Option<usize>], means: &[Vec<f64>], values: &[Option<usize>], of: usize) -> Mean {
        let learned: Vec<(&Vec<f64>, usize)> =
            self.learned.iter().zip(known).filter_map(|(row, value)| Some((row, (*value)?))).collect();
        let n = learned.len();
        if n == 0 {
            return Mean { mean: f64::NAN, error: f64::NAN };
        }
        let mut products: Vec<f64> =
            learned.iter().flat_map(|(a, _)| learned.iter().map(move |(b, _)| dot(a, b))).collect();
        let size = (0..n).map(|i| products[i * n + i]).sum::<f64>() / n as f64;
        let size = if size > 0.0 { size } else { 1.0 };
        products.iter_mut().for_each(|x| *x /= size);
        // The value of a story as a vector, without what all have in common.
        let target = |value: usize, class: usize| f64::from(value == class) - 1.0 / of as f64;
        let mut best = (f64::INFINITY, 0.0, Vec::new());
        for ridge in RIDGES {
            let mut matrix = products.clone();
            (0..n).for_each(|i| matrix[i * n + i] += ridge);
            invert(&mut matrix, n);
            let weights: Vec<Vec<f64>> = matrix
                .chunks(n)
                .map(|row| {
                    (0..of).map(|c| row.iter().zip(&learned).map(|(x, (_, v))| x * target(*v, c)).sum()).collect()
                })
                .collect();
            // The output for a story of a probe that learned from all others.
            let others = |i: usize| -> Vec<f64> {
                let (value, own) = (learned[i].1, matrix[i * n + i]);
                (0..of).map(|c| target(value, c) - weights[i][c] / own).collect()
            };
            let outputs: Vec<Vec<f64>> = (0..n).map(others).collect();
            for power in 0..SHARPNESSES {
                let sharpness = if power == 0 { 0.0 } else { 2f64.powf(0.5 * f64::from(power - 1)) };
                let cost = |(output, (_, value)): (&Vec<f64>, &(&Vec<f64>, usize))| surprise(output, sharpness, *value);
                let cost: f64 = outputs.iter().zip(&learned).map(cost).sum();
                if cost < best.0 {
                    best = (cost, sharpness, weights.clone());
                }
            }
        }
        let (_, sharpness, weights) = best;
        let bits = |(row, value): (&Vec<f64>, &Option<usize>)| {
            let (mut row, value) = (row.clone(), (*value)?);
            standardise(&mut row, &self.scale);
            let alike: Vec<f64> = learned.iter().map(|(other, _)| dot(&row, other) / size).collect();
            let output: Vec<f64> =
                (0..of).map(|c| alike.iter().zip(&weights).map(|(x, weights)| x * weights[c]).sum()).collect();
            Some(((of as f64).ln() - surprise(&output, sharpness, value)) / std::f64::consts::LN_2)
        };
        Mean::of(&means.iter().zip(values).filter_map(bits).collect::<Vec<_>>())
    }
}

fn standardise(row: &mut [f64], scale: &[[f64; 2]]) {
    row.iter_mut().zip(scale).for_each(|(x, [mean, factor])| *x = (*x - mean) * factor);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// −log of the softmax of `sharpness` times the outputs at `value`.
fn surprise(outputs: &[f64], sharpness: f64, value: usize) -> f64 {
    let most = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = outputs.iter().map(|output| (sharpness * (output - most)).exp()).sum();
    sum.ln() + sharpness * (most - outputs[value])
}

/// Inverts a positive definite matrix of `n` rows in place, by Gauss-Jordan elimination.
fn invert(matrix: &mut [f64], n: usize) {
    for p in 0..n {
        let pivot = std::mem::replace(&mut matrix[p * n + p], 1.0);
        matrix[p * n..][..n].iter_mut().for_each(|x| *x /= pivot);
        let row = matrix[p * n..][..n].to_vec();
        for (_, other) in matrix.chunks_mut(n).enumerate().filter(|(i, _)| *i != p) {
            let factor = std::mem::replace(&mut other[p], 0.0);
            other.iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rng::Stream;

    #[test]
    fn a_planted_code_is_read_and_noise_is_not() {
        let (stories, width) = (256, 64);
        let values: Vec<Option<usize>> = (0..stories).map(|i| Some((7 * i + i / 16) % 16)).collect();
        let noise = |seed| {
            let mut all = vec![0.0; stories * width];
            Stream::new(seed, 1).fill_normal(0, &mut all, |x| x);
            all.chunks(width).map(<[f64]>::to_vec).collect::<Vec<_>>()
        };
        let code = |value: &Option<usize>| (0..width).map(|i| f64::from(*value == Some(i))).collect::<Vec<f64>>();
        let coded: Vec<Vec<f64>> = values.iter().map(code).collect();
        let mixed: Vec<Vec<f64>> = noise(3)
            .into_iter()
            .zip(&coded)
            .map(|(mut row, code)| {
                row.iter_mut().zip(code).for_each(|(x, y)| *x = 0.3 * *x + 3.0 * y);
                row
            })
            .collect();
        let read = |learned: &[Vec<f64>], means: &[Vec<f64>]| {
            Probe::new(learned.to_vec()).bits(&values, means, &values, 16).mean
        };
        let bits = [read(&coded, &coded), read(&mixed, &coded), read(&noise(1), &noise(2))];
        assert!(bits[0] > 3.9 && bits[1] > 3.5 && bits[2].abs() < 0.2, "{bits:?}");
        assert!(Probe::new(coded.clone()).bits(&values, &coded[..1], &[None], 16).mean.is_nan());
    }
}
