use super::{Config, Work};
use engine::{Device, Error, Result};

/// What a GPU's kernels count elements of one value in.
const MOST_ELEMENTS: usize = i32::MAX as usize;

impl Config {
    /// Whether the device's kernels can do `work` with a resolved configuration; the CPU's can always. Whether it has the
    /// memory is another question.
    ///
    /// # Errors
    /// One of the device, naming the settings concerned.
    pub fn check_device(&self, device: &Device, work: Work) -> Result<()> {
        let Device::Cuda(gpu) = device else { return Ok(()) };
        let (m, name) = (&self.model, gpu.name());
        let (head_dim, dtype) = (m.dim / m.heads, self.train.precision.to_use_on(device));
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
        let batch = if work == Work::Generation { 1 } else { self.train.batch };
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
}
