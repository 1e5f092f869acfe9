use super::{Config, parameter_count};
use autograd::Store;
use engine::{Device, Error, Result, bytes_text};

/// A kind of work on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Training: fast and slow steps.
    Training,
    /// Scoring a batch.
    Evaluation,
    /// Generating one text at a time.
    Generation,
}

/// The largest count of a value's elements in GPU kernels.
const MOST_ELEMENTS: usize = i32::MAX as usize;

impl Config {
    /// Checks that the device's kernels can do `work` with a resolved configuration; the CPU always can.
    ///
    /// # Errors
    /// A device error that names the settings.
    pub fn check_device(&self, device: &Device, work: Work) -> Result<()> {
        let Device::Cuda(gpu) = device else { return Ok(()) };
        let (m, name) = (&self.model, gpu.name());
        let (head_dim, dtype) = (m.head_dim(), self.train.precision.stored_on(device));
        let most = kernels::widest_head(&**gpu, dtype);
        if head_dim > most {
            return Err(Error::device(format!(
                "model.dim = {} by model.heads = {} makes heads of width {head_dim}, but attention in {dtype} on {name} takes at \
                 most {most}: use more heads",
                m.dim, m.heads
            )));
        }
        let most = kernels::longest_window(&**gpu, head_dim);
        if work == Work::Generation && m.kind.method().is_none() && m.window > most {
            return Err(Error::device(format!(
                "model.window = {}, but generation on {name} supports at most {most} tokens",
                m.window
            )));
        }
        let batch = if work == Work::Generation { 1 } else { self.train.rows() };
        let elements = batch * m.seq * (2 * m.ffn_hidden()).max(3 * m.dim);
        if elements > MOST_ELEMENTS {
            return Err(Error::device(format!(
                "{batch} sequences of model.seq = {} make a value of {elements} elements, but kernels on {name} count to \
                 {MOST_ELEMENTS}: lower that or train.micro, the sequences computed at once",
                m.seq
            )));
        }
        Ok(())
    }

    /// Checks that there is memory for everything planned for `work` in `store`. Call this before anything runs,
    /// because the system provides memory only on the first write.
    ///
    /// # Errors
    /// If memory is missing; the error names the amounts and the settings that lower them.
    pub fn check_room(&self, store: &Store, work: Work) -> Result<()> {
        let machine = || match (&store.device, machine_memory()) {
            (Device::Cpu(_), Some(there)) if store.bytes() > there => Err(Error::new(format!(
                "{} of memory are needed, but the machine has room for {}",
                bytes_text(store.bytes()),
                bytes_text(there)
            ))),
            _ => Ok(()),
        };
        store.ready().and_then(|()| machine()).map_err(|e| Error::device(format!("{e}{}", self.advice(store, work))))
    }

    /// The end of a message that memory is too small for `work`: the settings that lower it. Empty if there is none,
    /// because a trained model has a fixed size.
    fn advice(&self, store: &Store, work: Work) -> String {
        let m = &self.model;
        // In training each weight has a gradient and two moments.
        let weights = parameter_count(m) * size_of::<f32>() * if work == Work::Training { 4 } else { 1 };
        match work {
            Work::Evaluation | Work::Generation if matches!(store.device, Device::Cuda(_)) => String::new(),
            _ if 2 * weights > store.bytes() => format!(": lower model.dim = {} or model.layers = {}", m.dim, m.layers),
            _ if work == Work::Generation || self.train.rows() == 1 => format!(": lower model.seq = {}", m.seq),
            _ => format!(": set train.micro below {}, or lower model.seq = {}", self.train.rows(), m.seq),
        }
    }
}

/// Bytes of memory that the program has or could have, if the system reports it.
fn machine_memory() -> Option<usize> {
    let entry = |path: &str, entry: &str| {
        let table = std::fs::read_to_string(path).ok()?;
        let rest = table.lines().find_map(|line| line.strip_prefix(entry))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
    };
    Some(entry("/proc/meminfo", "MemAvailable:")? + entry("/proc/self/status", "RssAnon:")?)
}
