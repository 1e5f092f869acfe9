// Included by every kernel: the storage type, conversions, packs of numbers, reductions in a fixed order.
#pragma once
#include "ptx.cuh"

// bf16 is the upper half of a float. (ptx.cuh rounds to it.)
using T = STORAGE;

// What to do with a gradient, from `Arg::from(Want)`.
enum Want { SKIP = 0, WRITE = 1, ADD = 2 };

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

// The run-time compiler does not know the names of math.h.
__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
__device__ inline float not_a_number() { return __uint_as_float(0x7fffffffu); }

// exp(x) = 2^(x · LOG2_E).
constexpr float LOG2_E = 1.44269504f;

template <class S> __device__ inline S from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return round_to_bf16(x); }

template <class S> __device__ inline float load(const S* x) { return to_float(*x); }
template <class S> __device__ inline void store(S* x, float value) { *x = from_float<S>(value); }

// Stores a gradient: overwrites or adds.
template <class S> __device__ inline void add_or_write(int want, S* x, float value) {
    store(x, want == ADD ? load(x) + value : value);
}

// N adjacent elements that move in one instruction of up to 16 bytes; the address is a multiple of their size.
template <class S, int N> struct alignas(sizeof(S) * N) Pack {
    S x[N];
};

// The number of T in 16 bytes.
constexpr int WIDE = 16 / sizeof(T);

// N adjacent elements as floats in registers.
template <int N> struct Floats {
    float x[N];
};

template <int N, class S> __device__ inline Pack<S, N> read_pack(const S* from) {
    check_aligned<sizeof(Pack<S, N>)>(from);
    return *reinterpret_cast<const Pack<S, N>*>(from);
}

template <class S, int N> __device__ inline Floats<N> to_floats(Pack<S, N> pack) {
    Floats<N> out;
#pragma unroll
    for (int i = 0; i < N; i++) out.x[i] = to_float(pack.x[i]);
    return out;
}

template <int N, class S> __device__ inline Floats<N> load_pack(const S* from) {
    return to_floats(read_pack<N>(from));
}

template <int N, class S> __device__ inline void store_pack(S* to, Floats<N> values) {
    Pack<S, N> pack;
#pragma unroll
    for (int i = 0; i < N; i++) pack.x[i] = from_float<S>(values.x[i]);
    check_aligned<sizeof pack>(to);
    *reinterpret_cast<Pack<S, N>*>(to) = pack;
}

template <int N, class S> __device__ inline void add_or_write_pack(int want, S* to, Floats<N> values) {
    if (want == ADD) {
        Floats<N> old = load_pack<N>(to);
#pragma unroll
        for (int i = 0; i < N; i++) values.x[i] += old.x[i];
    }
    store_pack<N>(to, values);
}

// The number of adjacent elements that a function gets, known to the compiler.
template <int N> struct Width {
    static constexpr int size = N;
};

// Calls f(Width, i) for this thread's elements of [n]: i is the first of a pack of WIDE elements, or of LEAST elements
// if WIDE would cross the end of a row of `row` elements or of all elements. If `row` is zero, there are no rows.
// Launch it with one thread per WIDE elements.
template <int LEAST = 1, class F> __device__ inline void for_my_elements(int n, int row, F f) {
    unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) * WIDE, end = i + WIDE;
    if (row % WIDE == 0 && end <= (unsigned)n) return f(Width<WIDE>{}, (int)i);
    for (; i < end && i < (unsigned)n; i += LEAST) f(Width<LEAST>{}, (int)i);
}

constexpr int WARP = 32;
constexpr unsigned FULL = 0xffffffffu;

__device__ inline int lane() { return threadIdx.x % WARP; }
__device__ inline int warp() { return threadIdx.x / WARP; }

// The sum over a whole warp, in every lane.
__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

// The maximum over a whole warp, in every lane.
__device__ inline float warp_max(float x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, step));
    return x;
}

// The sum over a block of whole warps, in every thread. `shared` has a float per warp; it may be used again at once.
__device__ inline float block_sum(float x, float* shared) {
    x = warp_sum(x);
    if (lane() == 0) shared[warp()] = x;
    __syncthreads();
    float total = 0;
    for (int w = 0; w < (int)blockDim.x / WARP; w++) total += shared[w];
    __syncthreads();
    return total;
}

// The maximum over a block of whole warps, in every thread, in the same way.
__device__ inline float block_max(float x, float* shared) {
    x = warp_max(x);
    if (lane() == 0) shared[warp()] = x;
    __syncthreads();
    float most = shared[0];
    for (int w = 1; w < (int)blockDim.x / WARP; w++) most = fmaxf(most, shared[w]);
    __syncthreads();
    return most;
}
