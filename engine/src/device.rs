use crate::Result;
use crate::cuda::Gpu;
use std::sync::Arc;

/// Where buffers live and ops run.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// This machine's processor; parallel on the rayon pool of the caller.
    #[default]
    Cpu,
    /// A GPU, or the simulated GPU of the tests.
    Cuda(Arc<dyn Gpu>),
}

impl Device {
    /// Waits for all launched work.
    ///
    /// # Errors
    /// If a GPU has failed at any earlier time.
    pub fn finish(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(gpu) => gpu.finish(),
        }
    }
}
