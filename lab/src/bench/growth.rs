//! How the time of learning grows with the number of fast steps and with the length of the text.

use super::steps::{random_batch, time, trainer, training_cost};
use super::{Samples, Setup};
use engine::Result;
use ltm::config::Config;

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
/// holds the window. Tells `seen` every T and N before.
///
/// # Errors
/// If the device cannot hold or run the model.
pub fn measure_growth(setup: &Setup, seen: &mut dyn FnMut(usize, usize)) -> Result<[Vec<Growth>; 2]> {
    let Config { model, fast, .. } = &setup.config;
    let parts = |x: usize, least: usize| [4, 2, 1].map(|part| x / part).into_iter().filter(move |&x| x >= least.max(1));
    let mut measured = |steps: usize, tokens: usize| {
        seen(steps, tokens);
        measure(setup, steps, tokens)
    };
    // Without latents there are no fast steps, and T changes nothing.
    let fewest = if model.kind.has_latents() { 1 } else { fast.steps };
    let by_steps = parts(fast.steps, fewest).map(|steps| measured(steps, model.seq)).collect::<Result<Vec<_>>>()?;
    let fewer = parts(model.seq, model.window).filter(|&tokens| tokens < model.seq);
    let mut by_tokens = fewer.map(|tokens| measured(fast.steps, tokens)).collect::<Result<Vec<_>>>()?;
    by_tokens.extend(by_steps.last().cloned());
    Ok([by_steps, by_tokens])
}

fn measure(setup: &Setup, steps: usize, tokens: usize) -> Result<Growth> {
    let mut config = setup.config.clone();
    config.fast.steps = steps;
    if tokens < config.model.seq {
        (config.model.seq, config.model.max_seq) = (tokens, tokens);
    }
    let mut trainer = trainer(&config, &setup.device)?;
    let batch = random_batch(&config);
    let mut step = || time(&setup.device, || trainer.train(&batch).map(drop));
    // The first step touches the memory, and on a GPU records the fast step.
    let count = if step()?[0] > 10.0 { 1 } else { 3 };
    let seconds = (0..count).map(|_| step()).collect::<Result<Vec<_>>>()?.concat();
    let flops = training_cost(&trainer, steps).flops;
    Ok(Growth { steps, tokens, flops, samples: Samples(vec![seconds]) })
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
