// Rows of the middle axis of x [B, S, d]. A sample of x has `sample` elements, the slice `len` from `start` on; all are
// multiples of d. Memory-bound.
#include "common.cuh"

// x → y, n = B·len elements.
extern "C" __global__ void slice(const T* x, T* y, int n, int d, int sample, int start, int len) {
    for_my_elements(n, d, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        store_pack<N>(y + i, load_pack<N>(x + (size_t)(i / len) * sample + start + i % len));
    });
}

// d_y → d_x, n = B·sample elements, zero outside the slice.
extern "C" __global__ void put(const T* d_y, T* d_x, int n, int d, int sample, int start, int len) {
    for_my_elements(n, d, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int within = i % sample - start;
        Floats<N> out = {};
        if (within >= 0 && within < len) out = load_pack<N>(d_y + (size_t)(i / sample) * len + within);
        store_pack<N>(d_x + i, out);
    });
}

// d_x += d_y within the slice, n = B·len elements.
extern "C" __global__ void add(const T* d_y, T* d_x, int n, int d, int sample, int start, int len) {
    for_my_elements(n, d, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        T* to = d_x + (size_t)(i / len) * sample + start + i % len;
        add_or_write_pack<N>(ADD, to, load_pack<N>(d_y + i));
    });
}
