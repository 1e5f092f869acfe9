//! AMX: the processor's tiles, for products of bf16 matrices only.
//!
//! A tile holds sixteen rows of 64 bytes. The instructions need no library, but the compiler's names for them are not
//! stable yet, so they are written in assembly. The operating system gives the tiles to a process that asks once.

use super::{Block, SIDE};
use crate::Want;
use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// The tiles of this thread, configured until it is dropped: while they are in use, a change of threads saves 8 KiB more.
pub struct Amx(PhantomData<*const ()>);

/// What `ldtilecfg` reads: palette 1, then for each of eight tiles bytes per row and rows.
#[repr(align(64))]
struct Layout([u8; 64]);

const LAYOUT: Layout = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Layout(bytes)
};

impl Amx {
    /// Whether the processor has bf16 tiles, conversions to bf16 and AVX-512, and the operating system lends the tiles.
    pub fn is_available() -> bool {
        Self::is_lent() == Some(true)
    }

    /// Whether the operating system lends the tiles to this process; `None` if the processor lacks them, conversions to
    /// bf16 or AVX-512.
    pub fn is_lent() -> Option<bool> {
        static LENT: OnceLock<Option<bool>> = OnceLock::new();
        *LENT.get_or_init(|| {
            let has = super::x86::Avx512::is_available() && is_x86_feature_detected!("avx512bf16") && has_tiles();
            has.then(permitted)
        })
    }

    /// Configures the tiles of this thread.
    ///
    /// # Panics
    /// If they are not available.
    pub fn begin() -> Self {
        assert!(Self::is_available(), "AMX is not available");
        // SAFETY: the tiles are available. The layout is valid, 64 bytes long, and only read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &LAYOUT.0, options(nostack, readonly)) };
        Self(PhantomData)
    }

    /// `c` = the sum over the blocks of a·b, or `c` += it to [`Want::Add`], by the definition of the bf16 product.
    ///
    /// # Panics
    /// If `a` and `b` differ in length or are empty.
    pub fn multiply(&self, a: &[Block], b: &[Block], how: Want, c: &mut [[f32; SIDE]; SIDE]) {
        let at = c.as_mut_ptr().cast::<f32>();
        let start = (how == Want::Add).then_some((at.cast_const(), SIDE));
        // SAFETY: `c` has 32 rows of 32 numbers without gaps, borrowed for the call.
        unsafe { self.product(a, b, start, at, SIDE) };
    }

    /// 32 rows of 32 numbers at `c`, `stride` numbers apart: those at `start` (a pointer and a stride), or zeros, plus
    /// the sum over the blocks of a·b. Four tiles of C stay in registers; a step loads four tiles for four products. A
    /// stays in L1 for the next call, which needs it again: loads of B are marked as not needed soon (`t1`). Rows of tiles
    /// that straddle two cache lines halve the speed, so matrices should be aligned to 64 bytes.
    ///
    /// # Panics
    /// If `a` and `b` differ in length or are empty.
    ///
    /// # Safety
    /// The 32×32 numbers at `c` can be written, those at `start` read, during the call and by this thread only.
    #[inline(always)]
    pub unsafe fn product(
        &self,
        a: &[Block],
        b: &[Block],
        start: Option<(*const f32, usize)>,
        c: *mut f32,
        stride: usize,
    ) {
        assert!(a.len() == b.len() && !a.is_empty(), "as many blocks of A as of B, and at least one");
        let (start, start_stride) = start.unwrap_or((std::ptr::null(), 0));
        // SAFETY: `begin` configured the tiles. The loop reads `a.len()` blocks of 2 KiB from both factors. The rest is the
        // caller's promise. All tiles are listed as overwritten.
        unsafe {
            asm!(
                "test {start}, {start}",
                "jz 2f",
                "tileloadd tmm0, [{start} + {start_row}*1]",
                "tileloadd tmm1, [{start} + {start_row}*1 + 64]",
                "lea {start}, [{start} + {start_row}*8]",
                "lea {start}, [{start} + {start_row}*8]",
                "tileloadd tmm2, [{start} + {start_row}*1]",
                "tileloadd tmm3, [{start} + {start_row}*1 + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "tileloadd tmm4, [{a} + {row}*1]",
                "tileloaddt1 tmm6, [{b} + {row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloaddt1 tmm7, [{b} + {row}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row}*1 + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {blocks}",
                "jnz 3b",
                "tilestored [{c} + {c_row}*1], tmm0",
                "tilestored [{c} + {c_row}*1 + 64], tmm1",
                "lea {c}, [{c} + {c_row}*8]",
                "lea {c}, [{c} + {c_row}*8]",
                "tilestored [{c} + {c_row}*1], tmm2",
                "tilestored [{c} + {c_row}*1 + 64], tmm3",
                a = inout(reg) a.as_ptr() => _,
                b = inout(reg) b.as_ptr() => _,
                blocks = inout(reg) a.len() => _,
                row = in(reg) 64_usize,
                start = inout(reg) start => _,
                start_row = in(reg) start_stride * size_of::<f32>(),
                c = inout(reg) c => _,
                c_row = in(reg) stride * size_of::<f32>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: `begin` configured the tiles, and no code outside this module relies on their contents.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// CPUID's two bits for tiles and their bf16 product.
fn has_tiles() -> bool {
    // SAFETY: a processor with AVX-512 has leaf 7.
    #[allow(unused_unsafe)]
    let bits = unsafe { std::arch::x86_64::__cpuid_count(7, 0) }.edx;
    bits >> 22 & 1 == 1 && bits >> 24 & 1 == 1
}

/// Asks Linux for the tiles, for all threads of the process: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
fn permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        let result: isize;
        // SAFETY: the call changes nothing but this permission. It overwrites rcx and r11 only.
        unsafe {
            asm!("syscall", inlateout("rax") 158_isize => result, in("rdi") 0x1023_usize, in("rsi") 18_usize,
                lateout("rcx") _, lateout("r11") _, options(nostack));
        }
        result == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}
