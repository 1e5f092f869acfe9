//! Every kind of product, put to cuBLASLt by the backend, and by the engine's own kernel.

use crate::settings;
use engine::cuda::{Factor, PRODUCT, Pointer, Product};
use engine::{Buffer, DType, Device, Result, Spec};
use tests::driver::{ask, in_child, panic_of};
use tests::shim::{Fault, Order, Shim, gpu, loaded};

/// A matrix on the device with small whole numbers, and the numbers.
fn matrix(device: &Device, dtype: DType, rows: usize, cols: usize, seed: usize) -> (Buffer, Vec<f64>) {
    let numbers: Vec<f64> = (0..rows * cols).map(|i| ((i * 7 + seed) % 11) as f64 - 5.0).collect();
    let mut buffer = Buffer::new_on(device, Spec::new(dtype, &[rows, cols])).expect("room");
    buffer.set_f64(&numbers);
    (buffer, numbers)
}

/// Every kind of product, by `multiply`: the first that is wrong.
fn products(device: &Device, multiply: impl Fn(&Product)) -> Result<Option<String>> {
    for (rows, cols, inner) in [(1, 1, 1), (2, 3, 5), (4, 1, 3), (70, 65, 33)] {
        for (factors, out) in [(DType::F32, DType::F32), (DType::Bf16, DType::Bf16), (DType::Bf16, DType::F32)] {
            for kind in 0..12 {
                let (a_turned, b_turned, adds) = (kind % 2 == 1, kind / 2 % 2 == 1, kind / 4);
                let swap = |turned, rows, cols| if turned { (cols, rows) } else { (rows, cols) };
                let ((ar, ac), (br, bc)) = (swap(a_turned, rows, inner), swap(b_turned, inner, cols));
                let ((a, x), (b, y)) = (matrix(device, factors, ar, ac, 1), matrix(device, factors, br, bc, 4));
                let ((c, z), (result, old)) = (matrix(device, out, rows, cols, 2), matrix(device, out, rows, cols, 6));
                let factor = |turned, at| if turned { Factor::Transposed(at) } else { Factor::Plain(at) };
                multiply(&Product {
                    rows,
                    cols,
                    inner,
                    a: factor(a_turned, Pointer::from(&a)),
                    b: factor(b_turned, Pointer::from(&b)),
                    c: [None, Some(Pointer::from(&c)), Some(Pointer::from(&result))][adds],
                    out: Pointer::from(&result),
                });
                let expected: Vec<f64> = (0..rows * cols)
                    .map(|i| {
                        let (row, col) = (i / cols, i % cols);
                        let at_a = |k| if a_turned { x[k * rows + row] } else { x[row * inner + k] };
                        let at_b = |k| if b_turned { y[col * inner + k] } else { y[k * cols + col] };
                        let sum: f64 = (0..inner).map(|k| at_a(k) * at_b(k)).sum();
                        sum + [0.0, z[i], old[i]][adds]
                    })
                    .collect();
                // Whole numbers: exact but for the rounding of what is stored.
                let expected = Buffer::from_f64(out, &[rows, cols], &expected).to_f64();
                if result.read_f64()? != expected {
                    return Ok(Some(format!("{rows}×{cols}×{inner} {factors} {out} kind {kind}")));
                }
            }
        }
    }
    Ok(None)
}

#[test]
fn products_by_cublas() {
    in_child("products::products_by_cublas", &[], || {
        let (device, _) = Device::open("cuda", &[], &settings()).unwrap_or_else(|e| panic!("{e}"));
        let gpu = gpu(&device);
        let read = |buffer: &Buffer| buffer.read_f64().expect("a sound device");
        assert_eq!(products(&device, |product| gpu.product(product)), Ok(None));
        let searches = ask("libcublasLt.so", "fake_searches");
        assert_eq!(products(&device, |product| gpu.product(product)), Ok(None));
        assert_eq!(ask("libcublasLt.so", "fake_searches"), searches, "an algorithm is searched once");
        // Nothing to sum over, and nothing at all.
        let (a, _) = matrix(&device, DType::F32, 3, 3, 1);
        let (out, _) = matrix(&device, DType::F32, 3, 3, 1);
        let at = Pointer::from(&a);
        let empty = Product {
            rows: 3,
            cols: 3,
            inner: 0,
            a: Factor::Plain(at),
            b: Factor::Plain(at),
            c: None,
            out: Pointer::from(&out),
        };
        gpu.product(&empty);
        assert_eq!(read(&out), [0.0; 9]);
        gpu.product(&Product { c: Some(at), ..empty });
        assert_eq!(read(&out), read(&a));
        gpu.product(&Product { rows: 0, ..empty });
        assert_eq!(read(&out), read(&a));
        // Addresses that are not those of whole allocations.
        let one = Product {
            rows: 1,
            cols: 1,
            inner: 2,
            a: Factor::Plain(at.offset(1)),
            out: Pointer::from(&out).offset(3),
            ..empty
        };
        gpu.product(&one);
        let x = read(&a);
        assert_eq!(read(&out)[3], x[1] * x[0] + x[2] * x[1]);
        let wrong = panic_of(|| gpu.product(&Product { a: Factor::Plain(at.cast(DType::Bf16)), ..empty }));
        assert_eq!(wrong, "a product of bf16 and f32, with f32 added, into f32");
    });
}

/// Products by the engine's kernel with threads in several orders: whether one is wrong.
fn check_kernel(device: impl Fn(Order) -> Device) -> Result<Option<String>> {
    for order in Order::ALL {
        let device = loaded(device(order), &[&PRODUCT]);
        let wrong = products(&device, |product| product.launch(&**gpu(&device)))?;
        if wrong.is_some() {
            return Ok(wrong);
        }
    }
    Ok(None)
}

#[test]
fn products_by_the_kernel_of_the_engine() {
    assert_eq!(check_kernel(Shim::device), Ok(None));
}

#[test]
fn mistakes_in_the_kernel_are_found() {
    for (find, replace) in [
        ("        __syncthreads();\n#pragma unroll\n        for (int k = 0", "#pragma unroll\n        for (int k = 0"),
        ("        __syncthreads();\n    }\n", "    }\n"),
        ("k0 + ka < inner", "k0 + ka <= inner"),
        ("row >= rows || col >= cols", "row > rows || col >= cols"),
        ("(added ? added[at] : 0.0f)", "(added ? 0.0f : 0.0f)"),
    ] {
        let fault = Fault { file: "product", find, replace };
        assert_ne!(check_kernel(|order| Shim::faulty(order, fault)), Ok(None), "nobody noticed {replace:?}");
    }
}
