// y = a + b, element by element. Memory-bound.
#include "common.cuh"

// a, b → y, all [n]. `y` may be `a` or `b`.
extern "C" __global__ void add(const T* a, const T* b, T* y, int n) {
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> sum = load_pack<N>(a + i), other = load_pack<N>(b + i);
#pragma unroll
        for (int j = 0; j < N; j++) sum.x[j] += other.x[j];
        store_pack<N>(y + i, sum);
    });
}
