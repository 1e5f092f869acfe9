//! Matrix products by cuBLASLt.

use super::Product;
use crate::{DType, Error, Result, bytes_text};
use cudarc::cublaslt::result::{self as lt, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtMatmulAlgo_t, cublasLtMatmulDescAttributes_t as DescAttribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayoutAttribute_t as LayoutAttribute,
    cudaDataType,
};
use cudarc::driver;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;

/// The size that NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

/// The library, its workspace, and an algorithm for each kind of product so far. The library's heuristic chooses the
/// algorithm without timing, so that every run takes the same one.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    recipes: HashMap<Kind, Recipe>,
}

// SAFETY: any thread may use the library's handle and descriptors, and only the holder of the `Products` does.
unsafe impl Send for Products {}

/// What an algorithm depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    count: usize,
    /// From the a, b and out of a product to those of the next.
    steps: [usize; 3],
    sizes: [usize; 3],
    transposed: [bool; 2],
    factors: DType,
    out: DType,
    /// Powers of two that divide the addresses of all a, b, c and out.
    aligned: [u32; 4],
}

/// How a kind of product is computed.
struct Recipe {
    operation: sys::cublasLtMatmulDesc_t,
    b: sys::cublasLtMatrixLayout_t,
    a: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: cublasLtMatmulAlgo_t,
}

impl Products {
    /// Opens the library for the current context. The library must have been found.
    ///
    /// # Errors
    /// If the library does not start, or memory for its workspace is missing.
    pub fn new() -> Result<Self> {
        let handle = lt::create_handle().map_err(|CublasError(status)| {
            Error::new(format!("cuBLASLt {} does not start on this driver: {status:?}", version()))
        })?;
        // SAFETY: a context is current. Only the library uses the memory.
        let workspace = unsafe { driver::result::malloc_sync(WORKSPACE) };
        let workspace = workspace.map_err(|_| {
            let need = bytes_text(WORKSPACE);
            Error::device(format!(
                "the GPU has no room for cuBLASLt's workspace of {need}; nvidia-smi shows what uses its memory"
            ))
        })?;
        Ok(Self { handle, workspace, recipes: HashMap::new() })
    }

    /// Launches a product on the stream. None of its sizes is zero.
    pub fn launch(&mut self, p: &Product, stream: driver::sys::CUstream) -> std::result::Result<(), CublasError> {
        let c = p.c.unwrap_or(p.out);
        let ((a, a_transposed), (b, b_transposed)) = (p.a.parts(), p.b.parts());
        let steps @ [a_step, b_step, out_step] = if p.count == 1 { [0; 3] } else { p.steps() };
        let addresses = [(a, a_step), (b, b_step), (c, out_step), (p.out, out_step)];
        let kind = Kind {
            count: p.count,
            steps,
            sizes: [p.rows, p.cols, p.inner],
            transposed: [a_transposed, b_transposed],
            factors: a.dtype,
            out: p.out.dtype,
            aligned: addresses.map(|(first, step)| {
                let all = first.address | first.offset(step).address;
                1 << all.trailing_zeros().min(8)
            }),
        };
        let recipe = match self.recipes.entry(kind) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Recipe::new(self.handle, &kind)?),
        };
        let (alpha, beta) = (1.0f32, if p.c.is_some() { 1.0f32 } else { 0.0 });
        let pointer = |address: u64| address as *const c_void;
        // SAFETY: handle, descriptors and algorithm belong together and live as long as `self`. The call reads alpha
        // and beta. The caller guarantees the addresses, as for every launch, and memory is freed only after the
        // stream's work.
        unsafe {
            lt::matmul(
                self.handle,
                recipe.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(b.address),
                recipe.b,
                pointer(a.address),
                recipe.a,
                pointer(c.address),
                recipe.out,
                p.out.address as *mut c_void,
                recipe.out,
                &raw const recipe.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: nothing uses this any more. What cannot be freed here is freed with the context.
        unsafe {
            for recipe in self.recipes.values() {
                let _ = lt::destroy_matmul_desc(recipe.operation);
                for layout in [recipe.a, recipe.b, recipe.out] {
                    let _ = lt::destroy_matrix_layout(layout);
                }
            }
            let _ = lt::destroy_handle(self.handle);
            let _ = driver::result::free_sync(self.workspace);
        }
    }
}

impl Recipe {
    /// The library expects column-major matrices. It reads a row-major matrix as the transpose, so it computes outᵀ =
    /// bᵀ·aᵀ: its first factor is b, its second a, each `[columns, rows]`.
    fn new(handle: sys::cublasLtHandle_t, kind: &Kind) -> std::result::Result<Self, CublasError> {
        let ([rows, cols, inner], [a_step, b_step, out_step]) = (kind.sizes, kind.steps);
        let layout = |dtype, [rows, cols]: [usize; 2], transposed, step: usize| {
            let (rows, cols) = if transposed { (cols, rows) } else { (rows, cols) };
            let layout = lt::create_matrix_layout(data_type(dtype), cols as u64, rows as u64, cols as i64)?;
            let (count, step) = (kind.count as i32, step as i64);
            // SAFETY: the descriptor is new and valid. The number of products is read as i32, the step between them as i64.
            unsafe {
                let attribute = LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
                lt::set_matrix_layout_attribute(layout, attribute, (&raw const count).cast(), 4)?;
                let attribute = LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
                lt::set_matrix_layout_attribute(layout, attribute, (&raw const step).cast(), 8)?;
            }
            Ok(layout)
        };
        let [a_transposed, b_transposed] = kind.transposed;
        // CUBLAS_COMPUTE_32F computes f32 factors in full f32. Modes that may round to TF32 have other names.
        let operation = lt::create_matmul_desc(cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType::CUDA_R_32F)?;
        let b = layout(kind.factors, [inner, cols], b_transposed, b_step)?;
        let a = layout(kind.factors, [rows, inner], a_transposed, a_step)?;
        let out = layout(kind.out, [rows, cols], false, out_step)?;
        let preference = lt::create_matmul_pref()?;
        // SAFETY: the descriptors are new and valid. Each attribute is read from a number of its type: i32 for a
        // transposition, u64 for the workspace's size, u32 for the rest.
        let found = unsafe {
            for (attribute, transposed) in [
                (DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, b_transposed),
                (DescAttribute::CUBLASLT_MATMUL_DESC_TRANSB, a_transposed),
            ] {
                let value = i32::from(transposed);
                lt::set_matmul_desc_attribute(operation, attribute, (&raw const value).cast(), 4)?;
            }
            let bytes = WORKSPACE as u64;
            let attribute = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            lt::set_matmul_pref_attribute(preference, attribute, (&raw const bytes).cast(), 8)?;
            // If a sum is split, its parts are also added in f32.
            let scheme = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
            let [of_a, of_b, of_c, of_out] = kind.aligned;
            for (attribute, value) in [
                (Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, scheme),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_b),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_a),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_c),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_out),
            ] {
                lt::set_matmul_pref_attribute(preference, attribute, (&raw const value).cast(), 4)?;
            }
            let found = lt::get_matmul_algo_heuristic(handle, operation, b, a, out, out, preference);
            lt::destroy_matmul_pref(preference)?;
            found?
        };
        Ok(Self { operation, b, a, out, algorithm: found.algo })
    }
}

fn data_type(dtype: DType) -> cudaDataType {
    if dtype == DType::Bf16 { cudaDataType::CUDA_R_16BF } else { cudaDataType::CUDA_R_32F }
}

/// The library's version, e.g. `13.0.2`. The library must have been found.
pub(crate) fn version() -> String {
    // SAFETY: the library was found.
    let version = unsafe { sys::cublasLtGetVersion() };
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}
