//! How a product is cut into parts that fit into the registers and the caches.

use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use std::marker::PhantomData;

/// Columns in a panel of B.
pub const PANEL: usize = LANES;

/// Upper limits of a block of A and of its k on every instruction set: tests change the instruction set at any time.
pub const MOST_A: usize = 144 * 384;
pub const MOST_DEPTH: usize = 512;

/// Groups of sixteen columns in the registers of `I`: two if a group is one register, to use each broadcast of A twice.
pub const fn groups<I: Isa, T: Real>() -> usize {
    if <T::Lanes<I> as Lanes<T>>::REGISTERS == 1 { 2 } else { 1 }
}

/// Rows that fit into the registers together with a group of B and an element of A: 14 on AVX-512, 6 on AVX2 and NEON,
/// 1 without vectors; 2 for f64 on AVX2 and NEON.
pub const fn rows<I: Isa, T: Real>() -> usize {
    let row = groups::<I, T>() * <T::Lanes<I> as Lanes<T>>::REGISTERS;
    let rows = I::REGISTERS.saturating_sub(row + 1) / row;
    if rows == 0 { 1 } else { rows }
}

/// With one register per group (AVX-512), a panel of A stays in L1 (f32: 28 KiB) and B comes from an L2 of 2 MiB (a
/// block of 1 MiB). With more registers, a panel of B stays in L1 (24 KiB), A comes from an L2 of 512 KiB (a block of
/// 216 KiB), with three eighths of the bytes per multiply-add that B would need, and B stays in L3.
pub const fn blocking<I: Isa, T: Real>() -> Blocking {
    let panel = rows::<I, T>();
    if groups::<I, T>() == 2 {
        Blocking { panel, rows: panel, depth: 512, depth_across: 256, cols: 512 }
    } else {
        Blocking { panel, rows: 144 / panel * panel, depth: 384, depth_across: 384, cols: 2048 }
    }
}

/// The smallest kernel that computes this many rows.
pub const fn height<I: Isa, T: Real>(count: usize) -> usize {
    let most = rows::<I, T>();
    // What `product` and the packing of A have kernels for.
    const { assert!(matches!(rows::<I, T>(), 1 | 2 | 6 | 14)) };
    let height = match count {
        0..=1 => 1,
        2 => 2,
        3..=6 => 6,
        _ => 14,
    };
    if height < most { height } else { most }
}

/// How a product is cut so that its parts fit into the caches.
#[derive(Clone, Copy, Debug)]
pub struct Blocking {
    /// Rows of a panel of A.
    pub panel: usize,
    /// Rows of a block of A, packed together: a multiple of `panel`.
    pub rows: usize,
    /// Most k of a block of A and of a panel of B. Deeper means fewer passes over C.
    pub depth: usize,
    /// Most k if A is contiguous along its columns: a panel then takes a cache line from every k, often a power of two
    /// apart, and L1 can hold only a few of these.
    pub depth_across: usize,
    /// Most columns of a tile of C, and so of a block of B.
    pub cols: usize,
}

/// The blocking for the instruction set in use.
pub fn in_use<T: Real>() -> Blocking {
    simd::dispatch(InUse::<T>(PhantomData))
}

struct InUse<T>(PhantomData<T>);

impl<T: Real> Kernel for InUse<T> {
    type Output = Blocking;

    #[inline(always)]
    fn run<I: Isa>(self) -> Blocking {
        // The packing memory and the panels of A and B rely on this.
        const {
            let Blocking { panel, rows, depth, depth_across, cols } = blocking::<I, T>();
            assert!(rows * depth <= MOST_A && depth <= MOST_DEPTH && depth_across <= depth);
            assert!(rows.is_multiple_of(panel) && cols.is_multiple_of(PANEL));
            assert!(depth.is_multiple_of(4) && depth_across.is_multiple_of(4));
        }
        blocking::<I, T>()
    }
}
