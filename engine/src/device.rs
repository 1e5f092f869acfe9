use crate::cuda::Gpu;
use std::sync::Arc;

/// Where buffers live and ops run.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// This machine's processor; parallel on the rayon pool that the caller is in.
    #[default]
    Cpu,
    /// A GPU, or what stands in for one in tests.
    Cuda(Arc<dyn Gpu>),
}
