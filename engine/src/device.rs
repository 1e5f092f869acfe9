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
    /// `cpu` or `cuda`, for records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }

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
