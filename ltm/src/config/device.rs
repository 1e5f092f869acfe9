use super::{Config, parameter_count};
use autograd::Store;
use engine::{Device, Error, Result, bytes_text};

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
    /// Whether a device can do `work` with a resolved configuration: a GPU has the kernels, the machine the memory that is
    /// needed at least. Whether a GPU has the memory is known exactly once the plans are made
    /// ([`check_room`](Self::check_room)).
    ///
    /// # Errors
    /// One of the device, naming the settings concerned.
    pub fn check_device(&self, device: &Device, work: Work) -> Result<()> {
        self.check_kernels(device, work)?;
        if matches!(device, Device::Cuda(_)) {
            return Ok(());
        }
        let (what, needed) = (format!("{work:?}").to_lowercase(), self.least_memory(work).iter().sum());
        compare(&what, needed, machine_memory("MemAvailable"), || self.advice(device, work))
    }

    /// Whether the device's kernels can do `work` with a resolved configuration; the CPU's can always.
    ///
    /// # Errors
    /// One of the device, naming the settings concerned.
    pub fn check_kernels(&self, device: &Device, work: Work) -> Result<()> {
        let Device::Cuda(gpu) = device else { return Ok(()) };
        let (m, name) = (&self.model, gpu.name());
        let (head_dim, dtype) = (m.head_dim(), self.train.precision.to_use_on(device));
        let most = kernels::widest_head(&**gpu, dtype);
        if head_dim > most {
            return Err(Error::device(format!(
                "model.dim = {} by model.heads = {} makes heads of width {head_dim}, but attention in {dtype} on {name} takes at \
                 most {most}: use more heads",
                m.dim, m.heads
            )));
        }
        let most = kernels::longest_window(&**gpu, head_dim);
        if work == Work::Generation && m.window > most {
            return Err(Error::device(format!(
                "model.window = {}, but generation on {name} looks back at most {most} tokens",
                m.window
            )));
        }
        let batch = self.batch_of(work);
        let elements = batch * m.seq * (2 * m.ffn_hidden()).max(3 * m.dim);
        if elements > MOST_ELEMENTS {
            return Err(Error::device(format!(
                "train.batch = {batch} sequences of model.seq = {} make a value of {elements} elements, but kernels on {name} \
                 count to {MOST_ELEMENTS}: lower one of them",
                m.seq
            )));
        }
        Ok(())
    }

    /// Whether the machine's memory holds about the largest single value of a plan: it must exist even if nothing is computed.
    ///
    /// # Errors
    /// One of the device, naming the settings concerned.
    pub fn check_plan(&self) -> Result<()> {
        compare("the largest single value", self.largest_value(), machine_memory("MemTotal"), || {
            let (m, batch) = (&self.model, self.train.batch);
            format!(": lower model.dim = {}, train.batch = {batch} or model.seq = {}", m.dim, m.seq)
        })
    }

    /// Bytes of about the largest single value.
    pub(super) fn largest_value(&self) -> u64 {
        let m = &self.model;
        let (d, ffn, tokens) = (m.dim as u64, m.ffn_hidden() as u64, (self.train.batch * m.seq) as u64);
        F32 * (m.vocab as u64 * d).max(ffn * d).max(tokens * ffn)
    }

    /// Whether the device had room for everything that was planned for `work` in `store`. To be asked before anything runs.
    ///
    /// # Errors
    /// How much is needed, how much there is, and which settings lower it.
    pub fn check_room(&self, store: &Store, work: Work) -> Result<()> {
        store.ready().map_err(|e| Error::device(format!("{e}{}", self.advice(store.device(), work))))
    }

    /// Bytes that a resolved configuration's weights need for `work`, and about what the activations need. Meant to
    /// refuse, before anything is allocated, what cannot be; the plans know exactly and need somewhat more.
    pub(super) fn least_memory(&self, work: Work) -> [u64; 2] {
        let m = &self.model;
        let (d, ffn) = (m.dim as u64, m.ffn_hidden() as u64);
        // Of each weight its gradient and two moments as well; of each token what every layer keeps for the gradient and
        // what stands outside the layers. The constants were read off the plans.
        let (copies, layer, outside) = match work {
            Work::Training => (4, 10 * d + 4 * ffn, 8 * d),
            Work::Evaluation | Work::Generation => (1, 7 * d + 3 * ffn, 6 * d),
        };
        let token = m.layers as u64 * layer + outside;
        // Of each latent vector the posterior with its moments, noise, and what attention keeps.
        let activations = self.batch_of(work) as u64 * (m.seq as u64 * token + m.latent_count() as u64 * 12 * d);
        [copies * parameter_count(m) as u64 * F32, activations * F32]
    }

    fn batch_of(&self, work: Work) -> usize {
        if work == Work::Generation { 1 } else { self.train.batch }
    }

    /// The end of a message that memory is too small for `work`: which settings lower it. Empty where none does, because a
    /// trained model has its size.
    fn advice(&self, device: &Device, work: Work) -> String {
        let (m, [weights, activations]) = (&self.model, self.least_memory(work));
        match work {
            Work::Evaluation | Work::Generation if matches!(device, Device::Cuda(_)) => String::new(),
            _ if weights > activations => format!(": lower model.dim = {} or model.layers = {}", m.dim, m.layers),
            Work::Generation => format!(": lower model.seq = {}", m.seq),
            _ => format!(": lower train.batch = {} or model.seq = {}", self.train.batch, m.seq),
        }
    }
}

/// That the machine has the bytes that are needed, where it tells how many it has.
fn compare(what: &str, needed: u64, there: Option<u64>, advice: impl Fn() -> String) -> Result<()> {
    match there {
        Some(there) if needed > there => Err(Error::device(format!(
            "{what} needs at least {} of memory, the machine has {}{}",
            bytes_text(needed as usize),
            bytes_text(there as usize),
            advice()
        ))),
        _ => Ok(()),
    }
}

/// Bytes that an entry of the system's table of memory says, where there is one.
fn machine_memory(entry: &str) -> Option<u64> {
    read_memory(&std::fs::read_to_string("/proc/meminfo").ok()?, entry)
}

pub(super) fn read_memory(table: &str, entry: &str) -> Option<u64> {
    let rest = table.lines().find_map(|line| line.strip_prefix(entry)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
