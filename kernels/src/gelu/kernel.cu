// y = u · sigmoid(a), a = 2√(2/π) (u + 0.044715 u³). Both kernels are memory-bound.
#include "common.cuh"

constexpr float LINEAR = 1.5957691216f, CUBIC = 0.0713548163f;

__device__ inline float gate(float u) { return 1.0f / (1.0f + expf(-u * fmaf(u * u, CUBIC, LINEAR))); }

// u → y, both [n].
extern "C" __global__ void forward(const T* u, T* y, int n) {
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> x = load_pack<N>(u + i);
#pragma unroll
        for (int j = 0; j < N; j++) x.x[j] *= gate(x.x[j]);
        store_pack<N>(y + i, x);
    });
}

// u, d_y → d_u = d_y · (s + u·s(1 − s)·a′), all [n].
extern "C" __global__ void backward(const T* u, const T* d_y, int want, T* d_u, int n) {
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> x = load_pack<N>(u + i), d = load_pack<N>(d_y + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float s = gate(x.x[j]);
            d.x[j] *= fmaf(x.x[j] * s * (1.0f - s), fmaf(x.x[j] * x.x[j], 3.0f * CUBIC, LINEAR), s);
        }
        add_or_write_pack<N>(want, d_u + i, d);
    });
}
