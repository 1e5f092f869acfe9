// Parts of rows. A row of the larger tensor has `whole` elements; the `len` elements from `start` on are a row of the smaller
// one. `wide` is a multiple of WIDE if all three are. Memory-bound.
#include "common.cuh"

// The place of element i of the smaller tensor in the larger one.
__device__ inline size_t place(int i, int whole, int start, int len) { return (size_t)(i / len) * whole + start + i % len; }

// Larger → smaller; n elements of the smaller tensor.
extern "C" __global__ void take(const T* from, T* to, int n, int wide, int whole, int start, int len, int want) {
    for_my_elements(n, wide, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        add_or_write_pack<N>(want, to + i, load_pack<N>(from + place(i, whole, start, len)));
    });
}

// Smaller → larger, whose other elements stay; n elements of the smaller tensor.
extern "C" __global__ void put(const T* from, T* to, int n, int wide, int whole, int start, int len, int want) {
    for_my_elements(n, wide, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        add_or_write_pack<N>(want, to + place(i, whole, start, len), load_pack<N>(from + i));
    });
}

// Smaller → larger, whose other elements become zero; n elements of the larger tensor.
extern "C" __global__ void pad(const T* from, T* to, int n, int wide, int whole, int start, int len) {
    for_my_elements(n, wide, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int within = i % whole - start;
        Floats<N> out = {};
        if (within >= 0 && within < len) out = load_pack<N>(from + (size_t)(i / whole) * len + within);
        store_pack<N>(to + i, out);
    });
}
