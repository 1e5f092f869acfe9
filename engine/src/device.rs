use crate::Result;
use crate::cuda::Gpu;
use std::sync::Arc;

/// How the CPU computes products of f32 matrices in linear maps, `matmul`, wide self-attention and the head. All else, f64, and
/// what is stored do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// In f32.
    F32,
    /// Both factors rounded to bf16, sums in f32: the same bits on every processor, several times as fast with AMX, and slower
    /// than f32 without.
    Bf16,
}

/// Where buffers live and ops run.
#[derive(Clone, Debug)]
pub enum Device {
    /// This machine's processor; parallel on the rayon pool of the caller.
    Cpu(Products),
    /// A GPU, or the simulated GPU of the tests.
    Cuda(Arc<dyn Gpu>),
}

impl Default for Device {
    fn default() -> Self {
        Self::CPU
    }
}

impl Device {
    /// The processor, with products in f32.
    pub const CPU: Self = Self::Cpu(Products::F32);

    /// `cpu` or `cuda`, for records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }

    /// The same device, with `products` if it is the processor.
    #[must_use]
    pub fn with(&self, products: Products) -> Self {
        match self {
            Self::Cpu(_) => Self::Cpu(products),
            Self::Cuda(_) => self.clone(),
        }
    }

    /// Whether products of f32 matrices round both factors to bf16.
    pub fn rounds_products(&self) -> bool {
        matches!(self, Self::Cpu(Products::Bf16))
    }

    /// Waits for all launched work.
    ///
    /// # Errors
    /// If a GPU has failed at any earlier time.
    pub fn finish(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Cuda(gpu) => gpu.finish(),
        }
    }
}
