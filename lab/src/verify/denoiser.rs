//! Compares the network of masked diffusion with numbers that an independent implementation computed in f64.

use super::golden::Comparison;
use autograd::{Plan, Request, Store};
use engine::{DType, Device, Error, Result};
use kernels::cross_entropy::LmHead;
use ltm::config::{Config, ModelConfig, ModelKind, Work};
use ltm::model::{Costs, Denoiser, MaskedText, MaskedTexts, Params, TimeEmbedding};
use ltm::safetensors::SafeTensors;

/// Logits, losses and gradients of a network that is told nothing (MDLM), σ (SEDD) or the time (MD4).
pub fn compare(file: &SafeTensors, dtype: DType, device: &Device) -> Result<Vec<Comparison>> {
    let size = |key: &str| file.metadata::<usize>(key);
    let (batch, seq) = (size("batch")?, size("seq")?);
    let model = ModelConfig {
        kind: ModelKind::Ar,
        layers: size("n_layers")?,
        dim: size("dim")?,
        heads: size("n_heads")?,
        ffn: size("ffn_hidden")?,
        vocab: size("vocab")?,
        seq,
        max_seq: seq,
        window: seq,
        latents: 1,
        norm_eps: file.metadata("norm_eps")?,
        rope_theta: file.metadata("rope_theta")?,
    };
    let mut config = Config { model: model.clone(), ..Config::default() };
    config.train.batch = batch;
    config.check_ranges()?;
    model.check()?;
    config.check_device(device, Work::Training)?;
    let time = TimeEmbedding { frequencies: size("frequencies")?, width: size("cond_dim")? };
    let mut store = Store::new(device.clone());
    // Weights are in f32 even if activations are not.
    let stored = if dtype == DType::Bf16 { DType::F32 } else { dtype };
    let told = Params::denoiser(&model, Some(time), stored, &mut store).computed_in(dtype);
    told.load(&mut store, file, "w.")?;
    let of_time = |name: &str| name.starts_with("time_embedding.") || name.contains("modulation.");
    let free = told.with_ids(told.iter().map(|p| (!of_time(&p.name)).then_some(p.id)));
    for name in ["tokens", "maskable", "mdlm.masked", "sedd.masked", "md4.masked"] {
        file.expect_shape(name, &[batch, seq])?;
    }
    for name in ["lengths", "times", "sigma.tau", "t.tau"] {
        file.expect_shape(name, &[batch])?;
    }
    let mut golden = Golden { file, model, store, stored, results: Vec::new() };
    golden.method("free", "mdlm", LmHead::CrossEntropy, &free, None)?;
    golden.method("sigma", "sedd", LmHead::ScoreEntropy, &told, Some(time))?;
    golden.method("t", "md4", LmHead::CrossEntropy, &told, Some(time))?;
    Ok(golden.results)
}

struct Golden<'a> {
    file: &'a SafeTensors<'a>,
    model: ModelConfig,
    store: Store,
    /// The type of weights and losses.
    stored: DType,
    results: Vec<Comparison>,
}

impl Golden<'_> {
    fn compare(&mut self, name: &str, ours: &[f64]) -> Result<()> {
        self.results.push(Comparison::of(self.file, name, ours)?);
        Ok(())
    }

    /// The texts with their masks, weights of 1/t over the number of tokens that may be masked, and what the network is told.
    fn texts(&self, network: &str, method: &str, told: bool) -> Result<Vec<MaskedText>> {
        let (n, mask) = (self.model.seq, self.model.vocab as i32);
        let int = |x: i64| i32::try_from(x).map_err(|_| Error::new(format!("{x} is not a token")));
        let ints = |name: &str| self.file.get_i64(name)?.into_iter().map(int).collect::<Result<Vec<_>>>();
        let (tokens, masked, lengths) = (ints("tokens")?, ints(&format!("{method}.masked"))?, ints("lengths")?);
        let maskable: i32 = ints("maskable")?.iter().sum();
        let times = self.file.get_f64("times")?;
        let taus = if told { self.file.get_f64(&format!("{network}.tau"))? } else { vec![0.0; times.len()] };
        let text = |(b, &length): (usize, &i32)| {
            let row = b * n..b * n + (length as usize).min(n);
            let own = || tokens[row.clone()].iter().zip(&masked[row.clone()]);
            MaskedText {
                ids: own().map(|(&token, &masked)| if masked == 1 { mask } else { token }).collect(),
                targets: own().map(|(&token, &masked)| if masked == 1 { token } else { -1 }).collect(),
                weight: 1.0 / times[b] / f64::from(maskable),
                tau: taus[b],
            }
        };
        Ok(lengths.iter().enumerate().map(text).collect())
    }

    /// One method with its network.
    fn method(
        &mut self,
        network: &str,
        method: &str,
        head: LmHead,
        params: &Params,
        time: Option<TimeEmbedding>,
    ) -> Result<()> {
        let (n, vocab) = (self.model.seq, self.model.vocab);
        let texts = self.texts(network, method, time.is_some())?;
        let inputs = MaskedTexts::new(&self.model, time, [texts.len(), n], self.stored, &mut self.store);
        inputs.load(&mut self.store, &texts)?;
        let mut denoiser = Denoiser::record(&self.model, params, &inputs, &mut self.store)?;
        let (logits, Costs { loss, nll, lse }) = (denoiser.logits()?, denoiser.costs(head)?);
        let (wants, keep) = (denoiser.weights.clone(), vec![logits, nll, lse, loss]);
        let request = Request { root: Some(loss), wants, keep, ..Request::default() };
        let plan = Plan::new(&denoiser.graph, &mut self.store, &request)?;
        self.store.ready()?;
        plan.run_all(&mut self.store);

        let read = |value| self.store.get(plan.value(value)).read_f64();
        let (mut logits, nll, lse, loss) = (read(logits)?, read(nll)?, read(lse)?, read(loss)?);
        // The file has no logits of padding.
        for (rows, text) in logits.chunks_mut(n * vocab).zip(&texts) {
            rows[text.ids.len() * vocab..].fill(0.0);
        }
        let maskable: i64 = self.file.get_i64("maskable")?.iter().sum();
        let mut costs = vec![0.0; nll.len()];
        let mut log_z = vec![0.0; nll.len()];
        for (b, text) in texts.iter().enumerate() {
            for (i, _) in text.targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
                let at = b * n + i;
                log_z[at] = lse[at] - (vocab as f64).ln();
                let price = if head == LmHead::ScoreEntropy { log_z[at].exp_m1() - log_z[at] } else { 0.0 };
                costs[at] = text.weight * maskable as f64 * (nll[at] + price);
            }
        }
        let nats: Vec<f64> = costs.chunks(n).map(|row| row.iter().sum()).collect();
        self.compare(&format!("{network}.logits"), &logits)?;
        self.compare(&format!("{network}.log_probs"), &nll.iter().map(|nll| -nll).collect::<Vec<_>>())?;
        self.compare(&format!("{network}.log_z"), &log_z)?;
        self.compare(&format!("{method}.positions"), &costs)?;
        self.compare(&format!("{method}.nats"), &nats)?;
        self.compare(&format!("{method}.loss"), &loss)?;
        for (p, &weight) in params.iter().zip(&denoiser.weights) {
            let gradient = self.store.get(plan.grad(weight)).read_f64()?;
            for part in p.parts() {
                self.compare(&format!("{method}.grad.{}", part.name), &gradient[part.range])?;
            }
        }
        Ok(())
    }
}
