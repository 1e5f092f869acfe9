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

    /// Row and column strides of A and of B.
    fn strides(self) -> [isize; 4] {
        let ([ar, ac], [br, bc]) = (self.a(), self.b());
        [ar, ac, br, bc].map(|stride| stride as isize)
    }

    fn mat_a(self, a: &[f32]) -> Mat<'_, f32> {
        Mat::with_strides(a, self.m, self.k, self.a()[0], self.a()[1])
    }

    fn mat_b(self, b: &[f32]) -> Mat<'_, f32> {
        Mat::with_strides(b, self.k, self.n, self.b()[0], self.b()[1])
    }
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

/// Writes the product to C.
pub type Run<'a> = Box<dyn Fn(&mut [f32]) + 'a>;

/// A contender.
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    /// Prepares the product of A and B; its time does not count.
    pub prepare: Box<dyn for<'a> Fn(Product, &'a [f32], &'a [f32]) -> Run<'a> + Sync>,
}

impl Contender {
    fn new(
        name: &'static str,
        prepare: impl for<'a> Fn(Product, &'a [f32], &'a [f32]) -> Run<'a> + Sync + 'static,
    ) -> Self {
        Self { name, prepare: Box::new(prepare) }
    }
}

/// Aligned to cache lines, as every buffer of the engine is.
fn room(dtype: DType, len: usize) -> Buffer {
    Buffer::new(Spec::new(dtype, &[len]))
}

/// OpenBLAS, by the names under which systems install it.
const OPENBLAS: [&str; 3] = ["libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"];

/// OpenBLAS's product on this many threads.
fn openblas(threads: usize) -> Result<Sgemm, String> {
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
    Ok(sgemm)
}

/// The f32 products on this many threads. Ours are first: with B packed at every call, to which ratios refer, and packed
/// beforehand, like weights that are used for many products.
///
/// # Errors
/// If OpenBLAS is not installed.
pub fn singles(threads: usize) -> Result<Vec<Contender>, String> {
    let sgemm = openblas(threads)?;
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let ours = Contender::new("ours, B packed in the call", |product, a, b| {
        Box::new(move |c| gemm(MatMut::new(c, product.m, product.n), product.mat_a(a), product.mat_b(b), Want::Write))
    });
    let packed = Contender::new("ours, B packed before", |product, a, b| {
        let mut packed = room(DType::F32, packed_len(product.k, product.n));
        pack_b(product.mat_b(b), packed.as_mut_slice());
        Box::new(move |c| {
            let packed = Factor::Packed(packed.as_slice());
            gemm(MatMut::new(c, product.m, product.n), product.mat_a(a), packed, Want::Write);
        })
    });
    let gemm_crate = Contender::new("gemm", move |product, a, b| {
        Box::new(move |c| {
            let Product { m, k, n, .. } = checked(product, a, b, c);
            let [rsa, csa, rsb, csb] = product.strides();
            // SAFETY: the matrices have the sizes that the strides and m, k, n describe, as `checked` asserts.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    c.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    csa,
                    rsa,
                    b.as_ptr(),
                    csb,
                    rsb,
                    0.0f32,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
        })
    });
    let matrixmultiply = Contender::new("matrixmultiply", |product, a, b| {
        Box::new(move |c| {
            let Product { m, k, n, .. } = checked(product, a, b, c);
            let [rsa, csa, rsb, csb] = product.strides();
            let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            // SAFETY: the matrices have their sizes, as `checked` asserts.
            unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, 0.0, c, n as isize, 1) }
        })
    });
    let openblas = Contender::new("OpenBLAS", move |product, a, b| {
        Box::new(move |c| {
            const ROW_MAJOR: i32 = 101;
            let Product { m, k, n, form } = checked(product, a, b, c);
            let transpose = |is: bool| if is { 112 } else { 111 };
            let (ta, tb) = (transpose(form == Form::Weight), transpose(form == Form::Forward));
            let [ar, ac, br, bc] = product.strides();
            let [m, n, k] = [m, n, k].map(|x| x as i32);
            let [lda, ldb] = [ar.max(ac), br.max(bc)].map(|x| x as i32);
            let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            // SAFETY: the matrices have their sizes, as `checked` asserts; every size is far below 2³¹.
            unsafe { sgemm(ROW_MAJOR, ta, tb, m, n, k, 1.0, a, lda, b, ldb, 0.0, c, n) }
        })
    });
    Ok(vec![ours, packed, gemm_crate, matrixmultiply, openblas])
}

/// The product, if the matrices have its sizes.
fn checked(product: Product, a: &[f32], b: &[f32], c: &[f32]) -> Product {
    let Product { m, k, n, .. } = product;
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "sizes of the matrices");
    product
}

/// The bf16 products, B packed beforehand. Ours rounds A, which is f32, at every call; oneDNN gets A in bf16.
///
/// # Errors
/// If the program was built without oneDNN.
#[cfg(onednn)]
pub fn halves() -> Result<Vec<Contender>, String> {
    use half::bf16 as Half;
    use kernels::matmul::bf16;
    use std::ffi::c_void;

    type New = unsafe extern "C" fn(i64, i64, i64, bool, bool, *const f32) -> *mut c_void;
    type Multiply = unsafe extern "C" fn(*mut c_void, *const Half, *mut f32);
    type Free = unsafe extern "C" fn(*mut c_void);

    /// A product of oneDNN, and the functions that run and free it.
    struct OneDnn(*mut c_void, Multiply, Free);

    impl OneDnn {
        /// # Safety
        /// A and C have the product's numbers of elements.
        unsafe fn run(&self, a: &[Half], c: &mut [f32]) {
            // SAFETY: the pointer came from `onednn_new`; the rest is the caller's promise.
            unsafe { self.1(self.0, a.as_ptr(), c.as_mut_ptr()) };
        }
    }

    impl Drop for OneDnn {
        fn drop(&mut self) {
            // SAFETY: the pointer came from `onednn_new` and is freed once.
            unsafe { self.2(self.0) };
        }
    }

    // SAFETY: the library's initialisation has no requirements; it stays loaded until the process ends.
    let library: &'static Library =
        Box::leak(Box::new(unsafe { Library::new(env!("ONEDNN")) }.map_err(|e| e.to_string())?));
    // SAFETY: these are the functions' types in onednn.cpp.
    let (new, multiply, free) = unsafe {
        let new = library.get::<New>(b"onednn_new\0").map_err(|e| e.to_string())?;
        let multiply = library.get::<Multiply>(b"onednn_run\0").map_err(|e| e.to_string())?;
        let free = library.get::<Free>(b"onednn_free\0").map_err(|e| e.to_string())?;
        (*new, *multiply, *free)
    };
    let ours = Contender::new("ours, B packed before", |product, a, b| {
        let mut packed = room(DType::Bf16, bf16::packed_len(product.k, product.n));
        bf16::pack(product.mat_b(b), packed.as_mut_slice());
        Box::new(move |c| {
            let c = MatMut::new(c, product.m, product.n);
            bf16::product(c, product.mat_a(a), packed.as_slice(), Want::Write);
        })
    });
    let onednn = Contender::new("oneDNN", move |product, a, b| {
        let Product { m, k, n, form } = product;
        let sizes = [m, k, n].map(|x| x as i64);
        // SAFETY: B has k·n elements, which oneDNN copies now.
        let handle =
            unsafe { new(sizes[0], sizes[1], sizes[2], form == Form::Weight, form == Form::Forward, b.as_ptr()) };
        assert!(!handle.is_null(), "oneDNN multiplies no bf16 matrices here");
        let onednn = OneDnn(handle, multiply, free);
        let mut rounded = room(DType::Bf16, a.len());
        rounded.as_mut_slice::<Half>().iter_mut().zip(a).for_each(|(half, &a)| *half = Half::from_f32(a));
        Box::new(move |c| {
            assert!(rounded.len() == m * k && c.len() == m * n, "sizes of the matrices");
            // SAFETY: A and C have m·k and m·n elements.
            unsafe { onednn.run(rounded.as_slice(), c) }
        })
    });
    Ok(vec![ours, onednn])
}

/// The bf16 products.
///
/// # Errors
/// Always: the program was built without oneDNN.
#[cfg(not(onednn))]
pub fn halves() -> Result<Vec<Contender>, String> {
    Err("built without oneDNN: on Debian, apt install libdnnl-dev, then touch build.rs and build again".into())
}
