use super::{Config, parameter_count};
use autograd::Store;
use engine::{Device, Error, Result};

/// What memory is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Fast and slow learning.
    Training,
    /// Scoring a batch.
    Evaluation,
    /// Generating one text at a time.
    Generation,
}

const F32: u64 = size_of::<f32>() as u64;

impl Config {
    /// Bytes that a resolved configuration's weights need for `work`, and about what the activations need. Meant to
    /// refuse, before anything is allocated, what cannot be; the plans know exactly and need somewhat more.
    pub fn least_memory(&self, work: Work) -> [u64; 2] {
        let m = &self.model;
        let (d, ffn) = (m.dim as u64, m.ffn_hidden() as u64);
        let batch = if work == Work::Generation { 1 } else { self.train.batch as u64 };
        // Of each weight its gradient and two moments as well; of each token what every layer keeps for the gradient and
        // what stands outside the layers. The constants were read off the plans.
        let (copies, layer, outside) = match work {
            Work::Training => (4, 10 * d + 4 * ffn, 8 * d),
            Work::Evaluation | Work::Generation => (1, 7 * d + 3 * ffn, 6 * d),
        };
        let token = m.layers as u64 * layer + outside;
        // Of each latent vector the posterior with its moments, noise, and what attention keeps.
        let activations = batch * (m.seq as u64 * token + m.latent_count() as u64 * 12 * d);
        [copies * parameter_count(m) as u64 * F32, activations * F32]
    }

    /// Whether the device had room for everything that was planned for `work` in `store`. To be asked before anything runs.
    ///
    /// # Errors
    /// How much is needed, how much there is, and which settings lower it.
    pub fn check_room(&self, store: &Store, work: Work) -> Result<()> {
        store.ready().map_err(|e| Error::device(format!("{e}: {}", self.advice(store.device(), work))))
    }

    /// What to do where memory is too small for `work`.
    pub fn advice(&self, device: &Device, work: Work) -> String {
        let (m, [weights, activations]) = (&self.model, self.least_memory(work));
        let settings = match (weights > activations, work) {
            (true, _) => format!("model.dim = {} or model.layers = {}", m.dim, m.layers),
            (false, Work::Generation) => format!("model.seq = {}", m.seq),
            (false, _) => format!("train.batch = {} or model.seq = {}", self.train.batch, m.seq),
        };
        match (device, work) {
            (Device::Cpu, _) => format!("lower {settings}"),
            (Device::Cuda(_), Work::Training) => format!("lower {settings}, or use --device cpu"),
            // A trained model is as large as it is.
            (Device::Cuda(_), _) => "use --device cpu".into(),
        }
    }

    /// Bytes of about the largest single value: memory for it must exist even if nothing is ever computed.
    pub fn largest_value(&self) -> u64 {
        let m = &self.model;
        let (d, ffn, tokens) = (m.dim as u64, m.ffn_hidden() as u64, (self.train.batch * m.seq) as u64);
        F32 * (m.vocab as u64 * d).max(ffn * d).max(tokens * ffn)
    }
}
