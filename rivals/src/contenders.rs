//! The contenders. All compute the same product of row-major matrices: C [m, n] = A·B.

use engine::{Buffer, DType, Spec, Want};
use kernels::matmul::gemm::{Factor, gemm, pack_b, packed_len};
use kernels::matmul::mat::{Mat, MatMut};
use libloading::Library;

/// Which of the three products of a linear map y = x·wᵀ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// y = x·wᵀ
    Forward,
    /// d_x = d_y·w
    Input,
    /// d_w = d_yᵀ·x
    Weight,
}

/// C [m, n] = A [m, k]·B [k, n], where the form says which factor is transposed in memory.
#[derive(Clone, Copy)]
pub struct Product {
    pub form: Form,
    pub m: usize,
    pub k: usize,
    pub n: usize,
}

impl Product {
    /// The three products of a map from `inputs` to `outputs` numbers, over `rows` tokens.
    pub fn of_map(rows: usize, inputs: usize, outputs: usize) -> [Self; 3] {
        [
            Self { form: Form::Forward, m: rows, k: inputs, n: outputs },
            Self { form: Form::Input, m: rows, k: outputs, n: inputs },
            Self { form: Form::Weight, m: outputs, k: rows, n: inputs },
        ]
    }

    /// Row and column stride of A.
    fn a(self) -> [usize; 2] {
        if self.form == Form::Weight { [1, self.m] } else { [self.k, 1] }
    }

    /// Row and column stride of B.
    fn b(self) -> [usize; 2] {
        if self.form == Form::Forward { [1, self.k] } else { [self.n, 1] }
    }

    fn mat_a(self, a: &[f32]) -> Mat<'_, f32> {
        Mat::with_strides(a, self.m, self.k, self.a()[0], self.a()[1])
    }

    fn mat_b(self, b: &[f32]) -> Mat<'_, f32> {
        Mat::with_strides(b, self.k, self.n, self.b()[0], self.b()[1])
    }
}

/// B packed for [`gemm`].
pub fn pack(product: Product, b: &[f32]) -> Buffer {
    let mut packed = Buffer::new(Spec::new(DType::F32, &[packed_len(product.k, product.n)]));
    pack_b(product.mat_b(b), packed.as_mut_slice());
    packed
}

type Sgemm = unsafe extern "C" fn(
    order: i32,
    transpose_a: i32,
    transpose_b: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: f32,
    a: *const f32,
    lda: i32,
    b: *const f32,
    ldb: i32,
    beta: f32,
    c: *mut f32,
    ldc: i32,
);

/// A contender.
pub enum Contender {
    /// Ours, B packed at every call. The first in the list: ratios refer to it.
    Ours,
    /// Ours, B packed beforehand, like weights that are used for many products.
    Packed,
    /// The crate of that name.
    Gemm(usize),
    /// The crate of that name.
    MatrixMultiply,
    /// The system's library.
    OpenBlas(Sgemm),
}

/// OpenBLAS, by the names under which systems install it.
const OPENBLAS: [&str; 3] = ["libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"];

/// All contenders on this many threads.
///
/// # Errors
/// If OpenBLAS is not installed.
pub fn all(threads: usize) -> Result<Vec<Contender>, String> {
    // SAFETY: the library's initialisation has no requirements.
    let library = OPENBLAS.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
    let missing =
        || format!("none of {} can be loaded: on Debian, apt install libopenblas0-pthread", OPENBLAS.join(", "));
    // The library stays loaded until the process ends.
    let library: &'static Library = Box::leak(Box::new(library.ok_or_else(missing)?));
    // SAFETY: these are the functions' types in cblas.h, for the usual 32-bit integers.
    let (sgemm, set_threads) = unsafe {
        let sgemm = library.get::<Sgemm>(b"cblas_sgemm\0").map_err(|e| e.to_string())?;
        let set = library.get::<unsafe extern "C" fn(i32)>(b"openblas_set_num_threads\0").map_err(|e| e.to_string())?;
        (*sgemm, *set)
    };
    // SAFETY: any positive number is valid.
    unsafe { set_threads(threads as i32) };
    Ok(vec![
        Contender::Ours,
        Contender::Packed,
        Contender::Gemm(threads),
        Contender::MatrixMultiply,
        Contender::OpenBlas(sgemm),
    ])
}

impl Contender {
    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Packed => "packed",
            Self::Gemm(_) => "gemm",
            Self::MatrixMultiply => "matrixmultiply",
            Self::OpenBlas(_) => "OpenBLAS",
        }
    }

    /// C = A·B.
    ///
    /// # Panics
    /// If a matrix has another size than the product says.
    pub fn multiply(&self, product: Product, a: &[f32], b: &[f32], packed: &[f32], c: &mut [f32]) {
        let Product { m, k, n, form } = product;
        assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "sizes of the matrices");
        let ([ar, ac], [br, bc]) = (product.a(), product.b());
        let [rsa, csa, rsb, csb, rsc] = [ar, ac, br, bc, n].map(|stride| stride as isize);
        let (a_at, b_at, c_at) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        match self {
            Self::Ours => gemm(MatMut::new(c, m, n), product.mat_a(a), product.mat_b(b), Want::Write),
            Self::Packed => gemm(MatMut::new(c, m, n), product.mat_a(a), Factor::Packed(packed), Want::Write),
            Self::Gemm(threads) => {
                let threads = if *threads > 1 { gemm::Parallelism::Rayon(*threads) } else { gemm::Parallelism::None };
                // SAFETY: the matrices have the sizes that the strides and m, k, n describe, as asserted above.
                unsafe {
                    gemm::gemm(
                        m, n, k, c_at, 1, rsc, false, a_at, csa, rsa, b_at, csb, rsb, 0.0f32, 1.0, false, false, false,
                        threads,
                    );
                }
            }
            // SAFETY: as above.
            Self::MatrixMultiply => unsafe {
                matrixmultiply::sgemm(m, k, n, 1.0, a_at, rsa, csa, b_at, rsb, csb, 0.0, c_at, rsc, 1);
            },
            Self::OpenBlas(sgemm) => {
                const ROW_MAJOR: i32 = 101;
                let transpose = |is: bool| if is { 112 } else { 111 };
                let (ta, tb) = (transpose(form == Form::Weight), transpose(form == Form::Forward));
                let [m, n, k, lda, ldb] = [m, n, k, ar.max(ac), br.max(bc)].map(|x| x as i32);
                // SAFETY: as above; every size is far below 2³¹.
                unsafe { sgemm(ROW_MAJOR, ta, tb, m, n, k, 1.0, a_at, lda, b_at, ldb, 0.0, c_at, n) }
            }
        }
    }
}
