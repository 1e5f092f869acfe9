// Instructions that C++ cannot express. Host tests replace this file by one with the same functions, so no other file
// has inline PTX.
#pragma once

struct bf16 {
    unsigned short bits;
};

// To the nearest, ties to even.
__device__ inline bf16 round_to_bf16(float x) {
    bf16 out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
    return out;
}

// Two of them in one word, `low` in the lower half.
__device__ inline unsigned round_to_bf16x2(float low, float high) {
    unsigned out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

// 2^x with an error of two units in the last place; results below 2^-126 are zero.
__device__ inline float exp2_approx(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

// Addresses of packs are multiples of their size. The hardware stops a kernel that violates this; the host tests report
// it.
template <int BYTES> __device__ inline void check_aligned(const void*) {}

// Dynamic shared memory: `SHARED(float, rows);` declares `float* rows`. Once per kernel.
extern __shared__ __align__(128) unsigned char dynamic_shared[];
#define SHARED(type, name) type* name = reinterpret_cast<type*>(dynamic_shared)

__device__ inline unsigned shared_address(const void* shared) {
    return (unsigned)__cvta_generic_to_shared(shared);
}

// Four 8×8 matrices of 16-bit numbers from shared memory, a row of 16 bytes per address: lanes 8i..8i+7 give the rows of
// matrix i, and `out[i]` holds two neighbours of it, row lane/4, columns 2·(lane%4) and the next.
__device__ inline void ldmatrix(unsigned (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same four matrices, each transposed.
__device__ inline void ldmatrix_transposed(unsigned (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a·b on the tensor cores: a [16, 16] and b [16, 8] bf16, d [16, 8] float, spread over a warp. With g = lane/4 and
// t = lane%4, words of two neighbours each:
//   a: rows g, g+8, g, g+8 at columns 2t, 2t, 2t+8, 2t+8      b: rows 2t, 2t+8 (and the next) at column g
//   d: row g at columns 2t, 2t+1; row g+8 at columns 2t, 2t+1
__device__ inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Copies 16 or 8 bytes to shared memory in the background; both addresses are multiples of the size. If not `valid`, it
// writes zeros and does not read `global`.
template <int BYTES = 16> __device__ inline void copy_async(void* shared, const void* global, bool valid = true) {
    static_assert(BYTES == 16 || BYTES == 8, "a copy of 16 or 8 bytes");
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 8 : 0) : "memory");
    }
}

// Closes a group of this thread's copies.
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups are unfinished. Other threads see them after a barrier.
template <int N> __device__ inline void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
