// The diagonal Gaussian posterior: σ = exp(λ/2). All kernels are memory-bound.
#include "common.cuh"

__device__ inline float sigma(float logvar) { return expf(0.5f * logvar); }

// mu, logvar, eps [n] → z [n] = mu + σ · eps.
extern "C" __global__ void draw(const T* mu, const T* logvar, const T* eps, T* z, int n) {
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> m = load_pack<N>(mu + i), l = load_pack<N>(logvar + i), e = load_pack<N>(eps + i);
#pragma unroll
        for (int j = 0; j < N; j++) m.x[j] = fmaf(sigma(l.x[j]), e.x[j], m.x[j]);
        store_pack<N>(z + i, m);
    });
}

// logvar, eps, d_z [n] → d_logvar [n] = ½ d_z · eps · σ, d_eps [n] = d_z · σ. Skipped gradients are null. `eps` is null
// if only its own gradient is wanted.
extern "C" __global__ void draw_backward(const T* logvar, const T* eps, const T* d_z, int want_logvar, T* d_logvar, int want_eps, T* d_eps, int n) {
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> l = load_pack<N>(logvar + i), d = load_pack<N>(d_z + i);
#pragma unroll
        for (int j = 0; j < N; j++) d.x[j] *= sigma(l.x[j]);
        if (want_eps != SKIP) add_or_write_pack<N>(want_eps, d_eps + i, d);
        if (want_logvar == SKIP) return;
        Floats<N> e = load_pack<N>(eps + i);
#pragma unroll
        for (int j = 0; j < N; j++) e.x[j] *= 0.5f * d.x[j];
        add_or_write_pack<N>(want_logvar, d_logvar + i, e);
    });
}

// mu, logvar [B, size] → kl [B] = ½ Σ (mu² + σ² − logvar − 1). A block per sample.
extern "C" __global__ void divergence(const T* mu, const T* logvar, float* kl, int size) {
    __shared__ float shared[WARP];
    size_t at = (size_t)blockIdx.x * size;
    float twice = 0;
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        float m = load(mu + at + i), l = load(logvar + at + i), s = sigma(l);
        twice += fmaf(m, m, fmaf(s, s, -l - 1.0f));
    }
    twice = block_sum(twice, shared);
    if (threadIdx.x == 0) kl[blockIdx.x] = 0.5f * twice;
}

// mu, logvar [B, size], d_kl [B] → d_mu = d_kl · mu, d_logvar = ½ d_kl · (σ² − 1); n = B·size. Skipped gradients are
// null, and so are inputs that only they need.
extern "C" __global__ void divergence_backward(const T* mu, const T* logvar, const float* d_kl, int want_mu, T* d_mu, int want_logvar, T* d_logvar, int n, int size) {
    for_my_elements(n, size, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        float d = d_kl[i / size];
        if (want_mu != SKIP) {
            Floats<N> m = load_pack<N>(mu + i);
#pragma unroll
            for (int j = 0; j < N; j++) m.x[j] *= d;
            add_or_write_pack<N>(want_mu, d_mu + i, m);
        }
        if (want_logvar != SKIP) {
            Floats<N> l = load_pack<N>(logvar + i);
#pragma unroll
            for (int j = 0; j < N; j++) {
                float s = sigma(l.x[j]);
                l.x[j] = 0.5f * d * fmaf(s, s, -1.0f);
            }
            add_or_write_pack<N>(want_logvar, d_logvar + i, l);
        }
    });
}
