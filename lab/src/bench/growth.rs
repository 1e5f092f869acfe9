//! How the time of learning grows with the number of fast steps and with the length of the text.

use super::steps::{random_batch, trainer, training_cost};
use super::{Samples, Setup};
use engine::Result;
use ltm::config::Config;
use std::time::Instant;

/// Training steps of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// Fast steps T.
    pub steps: usize,
    /// Tokens per sample N.
    pub tokens: usize,
    /// FLOPs of a training step, by its plans.
    pub flops: u64,
    /// Seconds of a training step.
    pub samples: Samples,
}

/// Measures training steps with T a quarter, a half and all of the configuration's, and then with N likewise, as far as N
/// holds the window. Tells `seen` every one at once.
///
/// # Errors
/// If the device cannot hold or run the model, and those of `seen`.
pub fn measure_growth(setup: &Setup, seen: &mut dyn FnMut(&Growth) -> Result<()>) -> Result<[Vec<Growth>; 2]> {
    let (steps, tokens) = (setup.config.fast.steps, setup.config.model.seq);
    let parts = |x: usize, least: usize| -> Vec<usize> {
        let mut parts: Vec<usize> = [4, 2, 1].map(|part| x / part).into_iter().filter(|&x| x >= least.max(1)).collect();
        parts.dedup();
        parts
    };
    let mut measured = |config: Config| -> Result<Growth> {
        let growth = measure(setup, &config)?;
        seen(&growth)?;
        Ok(growth)
    };
    let mut by_steps = Vec::new();
    // Without latents there are no fast steps, and T changes nothing.
    let fewest = if setup.config.model.kind.has_latents() { 1 } else { steps };
    for steps in parts(steps, fewest) {
        let mut config = setup.config.clone();
        config.fast.steps = steps;
        by_steps.push(measured(config)?);
    }
    let mut by_tokens = Vec::new();
    for seq in parts(tokens, setup.config.model.window) {
        if seq == tokens {
            by_tokens.extend(by_steps.last().cloned());
            continue;
        }
        let mut config = setup.config.clone();
        (config.model.seq, config.model.max_seq) = (seq, seq);
        by_tokens.push(measured(config)?);
    }
    Ok([by_steps, by_tokens])
}

fn measure(setup: &Setup, config: &Config) -> Result<Growth> {
    let mut trainer = trainer(config, &setup.device)?;
    let batch = random_batch(config);
    let mut seconds = Vec::new();
    let began = Instant::now();
    // The first step touches the memory, and on a GPU records the fast step.
    for i in 0..4 {
        let start = Instant::now();
        trainer.train(&batch)?;
        setup.device.finish()?;
        if i > 0 {
            seconds.push(start.elapsed().as_secs_f64().max(1e-9));
        }
        if !seconds.is_empty() && began.elapsed().as_secs_f64() > 20.0 {
            break;
        }
    }
    let flops = training_cost(&trainer, config.fast.steps).flops;
    let (steps, tokens) = (config.fast.steps, config.model.seq);
    Ok(Growth { steps, tokens, flops, samples: Samples::new(seconds)? })
}

/// The straight line through points by least squares: where it meets zero, its slope, and the largest distance of a point
/// from it, relative to the point. `None` for fewer than three points or all of them at one place.
pub fn line(points: &[(f64, f64)]) -> Option<[f64; 3]> {
    let n = points.len() as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let (xx, xy) = (mean(&|p| (p.0 - x).powi(2)), mean(&|p| (p.0 - x) * (p.1 - y)));
    if points.len() < 3 || xx == 0.0 {
        return None;
    }
    let slope = xy / xx;
    let start = y - slope * x;
    let far = points.iter().map(|p| ((start + slope * p.0) / p.1 - 1.0).abs()).fold(0.0, f64::max);
    Some([start, slope, far])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let [start, slope, far] = line(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).unwrap();
        assert!((start - 3.0).abs() < 1e-12 && (slope - 2.0).abs() < 1e-12 && far < 1e-12);
        let quadratic = line(&[(1.0, 1.0), (2.0, 4.0), (4.0, 16.0)]).unwrap();
        assert!(quadratic[2] > 0.2, "a parabola is no line: {quadratic:?}");
        assert_eq!(line(&[(1.0, 1.0), (2.0, 4.0)]), None);
        assert_eq!(line(&[(1.0, 1.0); 3]), None);
    }
}
