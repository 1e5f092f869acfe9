use super::{Config, parameter_count};
use autograd::Store;
use engine::{Device, Error, Result};

/// What a device is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Fast and slow learning.
    Training,
    /// Scoring a batch.
    Evaluation,
    /// Generating one text at a time.
    Generation,
}

/// What a GPU's kernels count elements of one value in.
const MOST_ELEMENTS: usize = i32::MAX as usize;

const F32: u64 = size_of::<f32>() as u64;

impl Config {
    /// Whether the device's kernels can do `work` with a resolved configuration; the CPU's can always. Whether it has the
    /// memory is another question.
    ///
    /// # Errors
    /// One of the device, naming the settings concerned.
    pub fn check_device(&self, device: &Device, work: Work) -> Result<()> {
        let Device::Cuda(gpu) = device else { return Ok(()) };
        let (m, name) = (&self.model, gpu.name());
        let (head_dim, dtype) = (m.head_dim(), self.train.precision.to_use_on(device));
        let most = kernels::widest_head(&**gpu, dtype);
        if head_dim > most {
            return Err(Error::device(format!(
                "model.dim = {} by model.heads = {} makes heads of width {head_dim}, but attention in {dtype} on {name} takes at \
                 most {most}: use more heads, or --device cpu",
                m.dim, m.heads
            )));
        }
        let most = kernels::longest_window(&**gpu, head_dim);
        if work == Work::Generation && m.window > most {
            return Err(Error::device(format!(
                "model.window = {}, but generation on {name} looks back at most {most} tokens: use --device cpu",
                m.window
            )));
        }
        let batch = self.batch_of(work);
        let elements = batch * m.seq * (2 * m.ffn_hidden()).max(3 * m.dim);
        if elements > MOST_ELEMENTS {
            return Err(Error::device(format!(
                "train.batch = {batch} sequences of model.seq = {} make a value of {elements} elements, but kernels on {name} \
                 count to {MOST_ELEMENTS}: lower one of them, or use --device cpu",
                m.seq
            )));
        }
        Ok(())
    }

    fn batch_of(&self, work: Work) -> usize {
        if work == Work::Generation { 1 } else { self.train.batch }
    }

    /// Bytes that a resolved configuration's weights need for `work`, and about what the activations need. Meant to
    /// refuse, before anything is allocated, what cannot be; the plans know exactly and need somewhat more.
    pub fn least_memory(&self, work: Work) -> [u64; 2] {
        let m = &self.model;
        let (d, ffn) = (m.dim as u64, m.ffn_hidden() as u64);
        let batch = self.batch_of(work) as u64;
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
