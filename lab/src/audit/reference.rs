//! The reference's way of inference: the published rates and initial λ, beside the run's own way. The noise is fresh, because
//! the reference's code keeps one draw, and its numbers are then no bounds.

use super::{Row, as_trained};
use crate::table::{digits, nats};
use ltm::config::{Config, FastConfig, Noise, Posterior, Schedule};
use ltm::evaluate::Mean;

/// T of the published large model.
const MOST: usize = 64;

/// The caption of its table.
pub(super) const CAPTION: &str = "The same decoder with posteriors fitted the reference's way: AdamW from λ = -5, cosine \
                                  rates from 0.34 to 0.034, fresh noise; both are bounds";

/// T fast steps as published.
pub(super) fn way(steps: usize) -> FastConfig {
    FastConfig {
        steps,
        noise: Noise::Fresh,
        posterior: Posterior::Adamw,
        schedule: Schedule::Cosine,
        rate_start: 0.34,
        rate_end: 0.34,
        init_logvar: -5.0,
        ..FastConfig::default()
    }
}

/// What it costs beside the run's own way with the T of training, and with T = 64 if that is more; and how far its rates
/// carry λ.
pub(super) fn paragraph(rows: &[Row], config: &Config) -> String {
    let trained = as_trained(rows, config);
    let rows = || rows.iter().filter(|row| row.steps == trained.steps || row.steps == MOST.max(trained.steps));
    let costs = rows().map(|row| {
        let more = row.reference_minus_own();
        let (than, size) = if more.mean < 0.0 { ("less", Mean { mean: -more.mean, ..more }) } else { ("more", more) };
        format!("{} nats at T = {}, {} {than}", nats(row.reference.nats()), row.steps, nats(size))
    });
    let numbers = config.model.latent_count() * config.model.dim;
    let reaches = rows().map(|row| {
        let fast = way(row.steps);
        let logvar = without_information(&fast);
        let kl = 0.5 * (logvar.exp() - logvar - 1.0);
        format!(
            "at T = {} the rates add up to {}, and λ ends near {} and costs {} nats of KL, {} for all {numbers} numbers",
            row.steps,
            digits(rates(&fast), 1),
            digits(logvar, 1),
            digits(kl, 2),
            digits(kl * numbers as f64, 0)
        )
    });
    format!(
        "By elbo, the reference's way costs {} than this run's way. A number of z that tells nothing should end at λ = 0, but \
         AdamW moves λ by about its rate at a step: {}.",
        costs.collect::<Vec<_>>().join(" and "),
        reaches.collect::<Vec<_>>().join("; ")
    )
}

/// The sum of all fast steps' rates.
fn rates(fast: &FastConfig) -> f64 {
    (0..fast.steps).map(|t| fast.rate(fast.rate_end, t)).sum()
}

/// The λ at which AdamW leaves a number of z on which the text does not depend: only the KL pulls it, by ½(σ² − 1).
fn without_information(fast: &FastConfig) -> f64 {
    let &FastConfig { beta1, beta2, eps, weight_decay, .. } = fast;
    let (mut logvar, mut m, mut v) = (fast.init_logvar, 0.0, 0.0);
    for t in 0..fast.steps {
        let (rate, grad, count) = (fast.rate(fast.rate_end, t), 0.5 * (f64::exp(logvar) - 1.0), t as i32 + 1);
        m = beta1 * m + (1.0 - beta1) * grad;
        v = beta2 * v + (1.0 - beta2) * grad * grad;
        let root = (v / (1.0 - beta2.powi(count))).sqrt();
        logvar -= rate * (weight_decay * logvar + m / (1.0 - beta1.powi(count)) / (root + eps));
    }
    logvar
}

#[cfg(test)]
mod tests {
    use super::*;
    use autograd::Store;
    use engine::{DType, Device};
    use ltm::config::Config;
    use ltm::data::{Batch, Source};
    use ltm::learn::{Fast, FastOptions, Inputs};
    use ltm::model::Params;
    use ltm::run::{REPORT_SEED, stories};

    /// From −5 the rates reach 0 with T = 64 but not with T = 16.
    #[test]
    fn rates_bound_how_far_lambda_goes() {
        let constant = |rate| FastConfig { schedule: Schedule::Constant, rate_end: rate, ..way(16) };
        for (fast, sum, logvar) in [
            (way(16), 3.145, -1.76),
            (way(64), 12.12, 0.0),
            (constant(0.3), 4.8, -0.18),
            (constant(0.3125), 5.0, -0.01),
        ] {
            assert!((rates(&fast) - sum).abs() < 5e-3, "{}", rates(&fast));
            let found = without_information(&fast);
            assert!((found - logvar).abs() < 0.02, "T = {}, {:?}: {found}", fast.steps, fast.schedule);
        }
    }

    /// A decoder whose weights are all 0 does not depend on z.
    #[test]
    fn the_fast_steps_end_where_it_says() {
        let mut config = Config::preset("demo").unwrap();
        config.set_all("model.dim=16 model.heads=2 train.batch=1").unwrap();
        let config = config.resolved().unwrap();
        let mut store = Store::new(Device::CPU);
        let params = Params::new(&config.model, DType::F32, &mut store);
        let inputs = Inputs::new(&config.model, 1, config.model.seq, DType::F32, &mut store);
        for steps in [16, 64] {
            let fast = FastConfig { init_logvar_std: 0.0, ..way(steps) };
            let fit = Fast::new(&config.model, &fast, &params, &inputs, &mut store, &FastOptions::default()).unwrap();
            let mut batch = Batch::new(1, config.model.seq);
            batch.fill(&*stories(&config, REPORT_SEED, 1).unwrap() as &dyn Source, [Some(0)]).unwrap();
            inputs.load(&mut store, &config.model, &batch).unwrap();
            fit.fit(&mut store, fast.rate_end, 0, |_, _| ());
            let found = store.get(fit.latents.logvar).read_f64().unwrap();
            let wanted = without_information(&fast);
            assert!(found.iter().all(|logvar| (logvar - wanted).abs() < 1e-4), "{wanted} {found:?}");
        }
    }
}
