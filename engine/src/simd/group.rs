//! Sixteen lanes from native registers, the exponential and the logarithm.

use super::{LANES, Lanes, Real};

/// One native vector register of `T`, or `T` itself, with the operations that an instruction set provides.
pub trait Register<T: Real>: Copy + Send + Sync {
    /// Number of elements in it.
    const WIDTH: usize;
    fn splat(x: T) -> Self;
    /// # Safety
    /// `WIDTH` numbers can be read at `x`, at any alignment.
    unsafe fn load(x: *const T) -> Self;
    /// # Safety
    /// `WIDTH` numbers can be written at `out`, at any alignment.
    unsafe fn store(self, out: *mut T);
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn max(self, b: Self) -> Self;
    fn min(self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self > b ? yes : no`
    fn select(self, b: Self, yes: Self, no: Self) -> Self;
    /// Shifts the bits left by the length of the mantissa, so that the lowest bits become exponent and sign.
    fn mantissa_to_exponent(self) -> Self;
    /// Shifts the bits right by the length of the mantissa, and sets the bits of `or`.
    fn exponent_to_mantissa(self, or: Self) -> Self;
    /// `self₀ b₀ self₁ b₁ …`, as two registers.
    fn interleave(self, b: Self) -> [Self; 2];
    /// Transposes the square in the first `WIDTH` registers. Number the elements row by row. Interleaving the upper
    /// half of the rows with the lower half rotates the bits of this number by one, so log₂ `WIDTH` rounds swap row and
    /// column.
    #[inline(always)]
    fn transpose_square(block: &mut [Self; LANES]) {
        for _ in 0..Self::WIDTH.ilog2() {
            let before = *block;
            for i in 0..Self::WIDTH / 2 {
                [block[2 * i], block[2 * i + 1]] = before[i].interleave(before[i + Self::WIDTH / 2]);
            }
        }
    }
}

/// Implements [`Register`] by functions in the order of the trait; the two shifts by five: to integers, left, right, or, and
/// back. A faster transposition of a square may be added.
macro_rules! register {
    ($register:ty, $t:ty, $width:literal: $splat:expr, $load:expr, $store:expr, $add:expr, $sub:expr, $mul:expr, $div:expr,
     $max:expr, $min:expr, $sqrt:expr, $mul_add:expr, $select:expr, [$to_bits:expr, $left:expr, $right:expr, $or:expr, $from_bits:expr],
     $interleave:expr $(, $transpose:expr)?) => {
        impl Register<$t> for $register {
            const WIDTH: usize = $width;

            #[inline(always)]
            unsafe fn load(x: *const $t) -> Self {
                // SAFETY: the caller's promise, and as below.
                unsafe { $load(x) }
            }

            #[inline(always)]
            unsafe fn store(self, out: *mut $t) {
                // SAFETY: the caller's promise, and as below.
                unsafe { $store(out, self) }
            }

            functions! {
                fn splat(x: $t) -> Self = $splat(x);
                fn add(self, b: Self) -> Self = $add(self, b);
                fn sub(self, b: Self) -> Self = $sub(self, b);
                fn mul(self, b: Self) -> Self = $mul(self, b);
                fn div(self, b: Self) -> Self = $div(self, b);
                fn max(self, b: Self) -> Self = $max(self, b);
                fn min(self, b: Self) -> Self = $min(self, b);
                fn sqrt(self) -> Self = $sqrt(self);
                fn mul_add(self, b: Self, c: Self) -> Self = $mul_add(self, b, c);
                fn select(self, b: Self, yes: Self, no: Self) -> Self = $select(self, b, yes, no);
                fn mantissa_to_exponent(self) -> Self = $from_bits($left($to_bits(self)));
                fn exponent_to_mantissa(self, or: Self) -> Self = $from_bits($or($right($to_bits(self)), $to_bits(or)));
                fn interleave(self, b: Self) -> [Self; 2] = $interleave(self, b);
                $(fn transpose_square(block: &mut [Self; LANES]) -> () = $transpose(block);)?
            }
        }
    };
}

macro_rules! functions {
    ($(fn $name:ident($($arguments:tt)*) -> $out:ty = $call:expr;)*) => {
        $(
            #[inline(always)]
            fn $name($($arguments)*) -> $out {
                // SAFETY: the functions need an instruction set that the processor has. Values of a register's type
                // exist only in kernels that run with its instruction set. The type cannot be named outside `simd`, and
                // `dispatch` runs those kernels only on a processor that has the instruction set.
                #[allow(unused_unsafe)]
                unsafe { $call }
            }
        )*
    };
}

pub(super) use {functions, register};

/// Lane `i` is number `i % WIDTH` of register `i / WIDTH`; `K · WIDTH` = 16.
#[derive(Clone, Copy)]
pub struct Group<R, const K: usize>(pub(super) [R; K]);

/// Methods that work register by register. They use plain loops, because a closure that is not inlined would be
/// compiled without the instruction set.
macro_rules! each_register {
    ($($name:ident($($other:ident),*);)*) => {
        $(
            #[inline(always)]
            fn $name(mut self $(, $other: Self)*) -> Self {
                for i in 0..K {
                    self.0[i] = self.0[i].$name($($other.0[i]),*);
                }
                self
            }
        )*
    };
}

impl<T: Format, R: Register<T>, const K: usize> Lanes<T> for Group<R, K> {
    const REGISTERS: usize = K;

    each_register! {
        add(b);
        sub(b);
        mul(b);
        div(b);
        max(b);
        min(b);
        sqrt();
        mul_add(b, c);
        select(b, yes, no);
    }

    #[inline(always)]
    fn splat(x: T) -> Self {
        Self([R::splat(x); K])
    }

    #[inline(always)]
    fn load(x: &[T]) -> Self {
        const { assert!(K * R::WIDTH == LANES) };
        let x = &x[..LANES];
        let mut out = [R::splat(T::ZERO); K];
        for i in 0..K {
            // SAFETY: i < K and K·WIDTH = 16 = x.len(), so the WIDTH numbers from i·WIDTH are inside `x`.
            out[i] = unsafe { R::load(x.as_ptr().add(i * R::WIDTH)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn store(self, out: &mut [T]) {
        const { assert!(K * R::WIDTH == LANES) };
        let out = &mut out[..LANES];
        for i in 0..K {
            // SAFETY: i < K and K·WIDTH = 16 = out.len(), so the WIDTH numbers from i·WIDTH are inside `out`.
            unsafe { self.0[i].store(out.as_mut_ptr().add(i * R::WIDTH)) };
        }
    }

    #[inline(always)]
    fn store_half(self, out: &mut [T]) {
        let out = &mut out[..LANES / 2];
        if K == 1 {
            // The half of one register.
            return self.store_partial(out);
        }
        for i in 0..K / 2 {
            // SAFETY: i < K / 2 and K·WIDTH = 16, so the WIDTH numbers from i·WIDTH are inside the eight of `out`.
            unsafe { self.0[i].store(out.as_mut_ptr().add(i * R::WIDTH)) };
        }
    }

    #[inline(always)]
    fn neg(self) -> Self {
        // Exact, and flips the sign of zeros too.
        self.mul(Self::splat(-T::ONE))
    }

    #[inline(always)]
    fn exp(mut self) -> Self {
        for i in 0..K {
            self.0[i] = exp(self.0[i]);
        }
        self
    }

    #[inline(always)]
    fn ln(mut self) -> Self {
        for i in 0..K {
            self.0[i] = ln(self.0[i]);
        }
        self
    }

    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut out = rows;
        for i in 0..K {
            for j in 0..K {
                let mut block = [rows[0].0[0]; LANES];
                for row in 0..R::WIDTH {
                    block[row] = rows[i * R::WIDTH + row].0[j];
                }
                R::transpose_square(&mut block);
                for row in 0..R::WIDTH {
                    out[j * R::WIDTH + row].0[i] = block[row];
                }
            }
        }
        out
    }
}

/// Constants of a floating-point format for eˣ and ln x.
pub trait Format: Real {
    /// e to this number or below is zero, because both factors of 2ⁿ are zero. Slightly larger numbers also round to
    /// zero, but only in the last product. There a subnormal result takes some processors a hundred cycles, which is
    /// too slow for the −∞ of masks.
    const EXP_LOW: Self;
    /// e to this number or above overflows.
    const EXP_HIGH: Self;
    /// 1.5·2^(mantissa bits): adding it rounds to an integer, which is then in the lowest bits.
    const INTEGER: Self;
    /// The exponent of 1 as it is stored.
    const BIAS: Self;
    /// log₂ e.
    const LOG2_E: Self;
    /// −ln 2 in two parts, the first short enough that its product with every exponent is exact.
    const MINUS_LN_2: [Self; 2];
    /// The Taylor coefficients 1/k! of eʳ from the highest power down to 1/0!: as many as leave an error below a tenth of
    /// an ulp for |r| ≤ ½ ln 2.
    const TAYLOR: &'static [Self];
    /// 2 to the number of mantissa bits.
    const MANTISSA: Self;
    /// The number of mantissa bits.
    const MANTISSA_BITS: Self;
    /// The smallest normal number.
    const SMALLEST: Self;
    /// The largest number.
    const LARGEST: Self;
    /// 1/n for odd n, from the largest down to 3: as many as leave an error below a tenth of an ulp in artanh(s)/s for
    /// |s| ≤ 0.172.
    const ODD: &'static [Self];
}

impl Format for f32 {
    const EXP_LOW: Self = -176.0;
    const EXP_HIGH: Self = 89.0;
    const INTEGER: Self = 12_582_912.0;
    const BIAS: Self = 127.0;
    const LOG2_E: Self = std::f32::consts::LOG2_E;
    const MINUS_LN_2: [Self; 2] = [-355.0 / 512.0, 2.121_944_4e-4];
    const TAYLOR: &'static [Self] =
        &[1.0 / 5_040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 1.0 / 2.0, 1.0, 1.0];
    const MANTISSA: Self = 8_388_608.0;
    const MANTISSA_BITS: Self = 23.0;
    const SMALLEST: Self = Self::MIN_POSITIVE;
    const LARGEST: Self = Self::MAX;
    const ODD: &'static [Self] = &[1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0];
}

/// 1/k! for k from N − 1 down to 0.
const fn taylor<const N: usize>() -> [f64; N] {
    let (mut coefficients, mut factorial, mut k) = ([1.0; N], 1.0, 1);
    while k < N {
        factorial *= k as f64;
        coefficients[N - 1 - k] = 1.0 / factorial;
        k += 1;
    }
    coefficients
}

impl Format for f64 {
    const EXP_LOW: Self = -1418.0;
    const EXP_HIGH: Self = 710.0;
    const INTEGER: Self = 6_755_399_441_055_744.0;
    const BIAS: Self = 1023.0;
    const LOG2_E: Self = std::f64::consts::LOG2_E;
    const MINUS_LN_2: [Self; 2] = [-0.693_145_751_953_125, -1.428_606_820_309_417_2e-6];
    const TAYLOR: &'static [Self] = &taylor::<14>();
    const MANTISSA: Self = 4_503_599_627_370_496.0;
    const MANTISSA_BITS: Self = 52.0;
    const SMALLEST: Self = Self::MIN_POSITIVE;
    const LARGEST: Self = Self::MAX;
    const ODD: &'static [Self] =
        &[1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0];
}

/// eˣ = 2ⁿ·eʳ with n = round(x / ln 2) and |r| ≤ ½ ln 2; 2ⁿ is split into two factors, so that both are normal numbers
/// even if the result is not.
#[inline(always)]
pub fn exp<T: Format, R: Register<T>>(x: R) -> R {
    // The constant comes first, so that a NaN passes.
    let x = R::splat(T::EXP_HIGH).min(R::splat(T::EXP_LOW).max(x));
    let (integer, bias) = (R::splat(T::INTEGER), R::splat(T::BIAS));
    // Adding `integer` puts n into the lowest bits.
    let shifted = x.mul_add(R::splat(T::LOG2_E), integer);
    let n = shifted.sub(integer);
    let r = n.mul_add(R::splat(T::MINUS_LN_2[1]), n.mul_add(R::splat(T::MINUS_LN_2[0]), x));
    let mut series = R::splat(T::TAYLOR[0]);
    for &coefficient in &T::TAYLOR[1..] {
        series = series.mul_add(r, R::splat(coefficient));
    }
    let half = n.mul_add(R::splat(T::from_f64(0.5)), integer);
    let factors = [half.add(bias), shifted.sub(half).add(R::splat(T::INTEGER + T::BIAS))];
    series.mul(factors[0].mantissa_to_exponent()).mul(factors[1].mantissa_to_exponent())
}

/// ln x = n·ln 2 + 2·artanh(s) with x = m·2ⁿ, m between 1/√2 and √2, and s = (m − 1)/(m + 1). Where n = 0 the first term is
/// exactly zero, so the result keeps its digits around x = 1.
#[inline(always)]
pub fn ln<T: Format, R: Register<T>>(x: R) -> R {
    let (zero, one) = (R::splat(T::ZERO), R::splat(T::ONE));
    // Makes subnormal numbers normal.
    let smallest = R::splat(T::SMALLEST);
    let normal = smallest.select(x, x.mul(R::splat(T::MANTISSA)), x);
    let stored = normal.exponent_to_mantissa(R::splat(T::MANTISSA)).sub(R::splat(T::MANTISSA));
    let n = stored.sub(R::splat(T::BIAS));
    // 2⁻ⁿ in two factors, because n reaches beyond the exponents of normal numbers.
    let half = round(n.mul(R::splat(T::from_f64(0.5))));
    let m = normal.mul(power_of_two(zero.sub(half))).mul(power_of_two(half.sub(n)));
    let root = R::splat(T::from_f64(std::f64::consts::SQRT_2));
    let n = m.select(root, n.add(one), n);
    let m = m.select(root, m.mul(R::splat(T::from_f64(0.5))), m);
    let n = smallest.select(x, n.sub(R::splat(T::MANTISSA_BITS)), n);
    let s = m.sub(one).div(m.add(one));
    let square = s.mul(s);
    let mut series = R::splat(T::ODD[0]);
    for &coefficient in &T::ODD[1..] {
        series = series.mul_add(square, R::splat(coefficient));
    }
    let double = s.add(s);
    let double = double.mul_add(square.mul(series), double);
    let n = zero.sub(n);
    let y = n.mul_add(R::splat(T::MINUS_LN_2[0]), n.mul_add(R::splat(T::MINUS_LN_2[1]), double));
    let y = x.select(R::splat(T::LARGEST), x, y);
    // The root is zero for both zeros and NaN below.
    x.select(zero, y, x.sqrt().sub(R::splat(T::ONE.div(T::ZERO))))
}

/// The nearest integer of a small number.
#[inline(always)]
fn round<T: Format, R: Register<T>>(x: R) -> R {
    x.add(R::splat(T::INTEGER)).sub(R::splat(T::INTEGER))
}

/// 2ⁿ for integers in the range of normal exponents.
#[inline(always)]
fn power_of_two<T: Format, R: Register<T>>(n: R) -> R {
    n.add(R::splat(T::INTEGER + T::BIAS)).mantissa_to_exponent()
}
