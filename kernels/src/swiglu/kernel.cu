// y = silu(u₁) ⊙ u₃ with u₁ and u₃ side by side. Both kernels are memory-bound: two numbers in, one out; three in, two
// out.
#include "common.cuh"

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// u [rows, 2f] → y [rows, f], n = rows·f elements.
extern "C" __global__ void forward(const T* u, T* y, int n, int f) {
    for_my_elements(n, f, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        const T* at = u + (size_t)(i / f) * 2 * f + i % f;
        Floats<N> u1 = load_pack<N>(at), u3 = load_pack<N>(at + f);
#pragma unroll
        for (int j = 0; j < N; j++) u1.x[j] *= sigmoid(u1.x[j]) * u3.x[j];
        store_pack<N>(y + i, u1);
    });
}

// u, d_u [rows, 2f], d_y [rows, f]: d_u1 = d_y · u₃ · s(1 + u₁(1 − s)), d_u3 = d_y · u₁ · s, with s = sigmoid(u₁).
extern "C" __global__ void backward(const T* u, const T* d_y, int want, T* d_u, int n, int f) {
    for_my_elements(n, f, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        size_t at = (size_t)(i / f) * 2 * f + i % f;
        Floats<N> u1 = load_pack<N>(u + at), u3 = load_pack<N>(u + at + f), d = load_pack<N>(d_y + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float s = sigmoid(u1.x[j]), silu = u1.x[j] * s;
            u1.x[j] = d.x[j] * u3.x[j] * fmaf(silu, 1.0f - s, s);
            u3.x[j] = d.x[j] * silu;
        }
        add_or_write_pack<N>(want, d_u + at, u1);
        add_or_write_pack<N>(want, d_u + at + f, u3);
    });
}
