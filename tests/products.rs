//! Tests every kind of product on any GPU.

use engine::cuda::{Factor, Pointer, Product};
use engine::{Buffer, DType, Device, Spec};

/// A matrix on the device with small whole numbers, and the numbers.
pub fn matrix(device: &Device, dtype: DType, rows: usize, cols: usize, seed: usize) -> (Buffer, Vec<f64>) {
    let numbers: Vec<f64> = (0..rows * cols).map(|i| ((i * 7 + seed) % 11) as f64 - 5.0).collect();
    let mut buffer = Buffer::new_on(device, Spec::new(dtype, &[rows, cols])).expect("room");
    buffer.set_f64(&numbers);
    (buffer, numbers)
}

/// Tests every kind of product computed by `multiply`.
///
/// # Errors
/// The first product that is wrong, or the device's failure.
pub fn check(device: &Device, multiply: impl Fn(&Product)) -> Result<(), String> {
    for (rows, cols, inner) in [(1, 1, 1), (2, 3, 5), (4, 1, 3), (70, 65, 33)] {
        for (factors, out) in [(DType::F32, DType::F32), (DType::Bf16, DType::Bf16), (DType::Bf16, DType::F32)] {
            for kind in 0..48 {
                let (a_turned, b_turned, adds) = (kind % 2 == 1, kind / 2 % 2 == 1, kind / 4 % 3);
                // One product, three, and three with one factor for all.
                let (count, shared) =
                    [(1, [false; 2]), (3, [false; 2]), (3, [true, false]), (3, [false, true])][kind / 12];
                let of = |i: usize| if shared[i] { 1 } else { count };
                let swap = |turned, rows, cols| if turned { (cols, rows) } else { (rows, cols) };
                let ((ar, ac), (br, bc)) = (swap(a_turned, rows, inner), swap(b_turned, inner, cols));
                let (a, x) = matrix(device, factors, of(0) * ar, ac, 1);
                let (b, y) = matrix(device, factors, of(1) * br, bc, 4);
                let [(c, z), (result, old)] = [2, 6].map(|seed| matrix(device, out, count * rows, cols, seed));
                let factor = |turned, at| if turned { Factor::Transposed(at) } else { Factor::Plain(at) };
                multiply(&Product {
                    count,
                    shared,
                    rows,
                    cols,
                    inner,
                    a: factor(a_turned, Pointer::from(&a)),
                    b: factor(b_turned, Pointer::from(&b)),
                    c: [None, Some(Pointer::from(&c)), Some(Pointer::from(&result))][adds],
                    out: Pointer::from(&result),
                });
                let expected: Vec<f64> = (0..count * rows * cols)
                    .map(|i| {
                        let (number, row, col) = (i / (rows * cols), i / cols % rows, i % cols);
                        let [x, y] = [(&x, ar * ac, 0), (&y, br * bc, 1)]
                            .map(|(x, len, side)| if shared[side] { &x[..] } else { &x[number * len..] });
                        let at_a = |k| if a_turned { x[k * rows + row] } else { x[row * inner + k] };
                        let at_b = |k| if b_turned { y[col * inner + k] } else { y[k * cols + col] };
                        let sum: f64 = (0..inner).map(|k| at_a(k) * at_b(k)).sum();
                        sum + [0.0, z[i], old[i]][adds]
                    })
                    .collect();
                // Whole numbers: exact except for the rounding of stored values.
                let expected = Buffer::from_f64(out, &[count * rows, cols], &expected).to_f64();
                if result.read_f64().map_err(|e| e.to_string())? != expected {
                    return Err(format!("{rows}×{cols}×{inner} {factors} {out} kind {kind}"));
                }
            }
        }
    }
    Ok(())
}
