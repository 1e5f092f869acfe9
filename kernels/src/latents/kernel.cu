// The fast step, in place. All tensors are f32 [B, size] with size = S·d; a block has a piece of a sample, and a thread
// four adjacent numbers, which share a block of random numbers. A step with kept noise is memory-bound; fresh normals,
// in double precision, take as long again.
#include "noise.cuh"

__device__ inline float sigma(float logvar) { return expf(0.5f * logvar); }

// Normal numbers j to j + N − 1 of a stream.
template <int N> __device__ Floats<N> draw_normals(Stream stream, int j) {
    double four[4];
    normals(stream, j / 4, four);
    Floats<N> out;
    if (N == 4) {
#pragma unroll
        for (int i = 0; i < N; i++) out.x[i] = (float)four[i];
    } else {
        out.x[0] = (float)(j % 4 < 2 ? (j % 4 == 0 ? four[0] : four[1]) : (j % 4 == 2 ? four[2] : four[3]));
    }
    return out;
}

// z = mu + σ · eps.
template <int N> __device__ Floats<N> draw_z(Floats<N> mu, Floats<N> logvar, Floats<N> eps) {
#pragma unroll
    for (int j = 0; j < N; j++) mu.x[j] = fmaf(sigma(logvar.x[j]), eps.x[j], mu.x[j]);
    return mu;
}

// The initial posterior: mu = 0, logvar = mean + std · N(0, 1) from stream `spread`, moments 0, the first noise from
// `table` [.., B, size] or, if that is null, from stream `site`, its z, KL 0, and the clock's t = 0.
extern "C" __global__ void init(const int* samples, const float* table, unsigned long long seed, unsigned site, unsigned spread, double mean, double std, float* mu, float* logvar, float* m_mu, float* v_mu, float* m_logvar, float* v_logvar, float* eps, float* z, float* kl, int* clock, int size) {
    unsigned sample = samples[blockIdx.y], round = clock[1];
    size_t at = (size_t)blockIdx.y * size;
    for_my_elements(size, size, [&](auto width, int j) {
        constexpr int N = decltype(width)::size;
        Floats<N> zero = {}, l, e = table ? load_pack<N>(table + at + j) : draw_normals<N>({seed, site, sample, round}, j);
        float* zeros[] = {mu, m_mu, v_mu, m_logvar, v_logvar};
        for (float* tensor : zeros) store_pack<N>(tensor + at + j, zero);
        l = draw_normals<N>({seed, spread, sample, round}, j);
#pragma unroll
        for (int i = 0; i < N; i++) l.x[i] = (float)fma(std, (double)l.x[i], mean);
        store_pack<N>(logvar + at + j, l);
        store_pack<N>(eps + at + j, e);
        store_pack<N>(z + at + j, draw_z<N>(zero, l, e));
    });
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        kl[blockIdx.y] = 0;
        // No other thread of this kernel reads the clock's step.
        if (blockIdx.y == 0) clock[0] = 0;
    }
}

// The kinds of noise, as `Renewal::code` numbers them, and what a step does with its noise.
enum { KEEP, DRAW, ANTITHETIC, NEGATE };

// The source of the next step's noise.
struct Renewal {
    int what;
    const float* given;
    Stream stream;

    // The noise of the numbers from j on: the old `e`, or other noise, which is stored.
    template <int N> __device__ Floats<N> noise(Floats<N> e, float* eps, int j) const {
        if (what == KEEP) return e;
        if (what == NEGATE) {
#pragma unroll
            for (int i = 0; i < N; i++) e.x[i] = -e.x[i];
        } else {
            e = given ? load_pack<N>(given + j) : draw_normals<N>(stream, j);
        }
        store_pack<N>(eps + j, e);
        return e;
    }
};

// For this block's sample, after step t = clock[0].
__device__ inline Renewal renewal(const int* samples, const float* table, int table_steps, unsigned long long seed, unsigned site, int kind, const int* clock, int size) {
    int next = clock[0] + 1, number = next;
    if (kind == ANTITHETIC) {
        kind = next % 2 ? NEGATE : DRAW;
        number = next / 2;
    }
    Stream stream = {seed, site + number, (unsigned)samples[blockIdx.y], (unsigned)clock[1]};
    const float* given = table ? table + ((size_t)min(number, table_steps - 1) * gridDim.y + blockIdx.y) * size : nullptr;
    return {kind, given, stream};
}

// Fast step t = clock[0], counted from 0: KL, both gradients, AdamW on both, the noise of step t + 1, and z. partial
// [B, pieces] gets the KL of each block's piece. Noise number n comes from table [table_steps, B, size] or, if that is
// null, from stream `site` + n; `kind` says which step uses which number.
extern "C" __global__ void descend(const float* d_z, const float* rates, int steps, const int* samples, const float* table, int table_steps, unsigned long long seed, unsigned site, int kind, double beta1, double beta2, double adam_eps, double weight_decay, const int* clock, float* mu, float* logvar, float* m_mu, float* v_mu, float* m_logvar, float* v_logvar, float* eps, float* z, float* partial, int size) {
    __shared__ Step step;
    __shared__ float shared[WARP];
    int t = clock[0];
    if (threadIdx.x == 0) step = make_step({beta1, beta2, adam_eps, weight_decay}, rates[min(t, steps - 1)], t + 1);
    __syncthreads();
    size_t at = (size_t)blockIdx.y * size;
    Renewal next = renewal(samples, table, table_steps, seed, site, kind, clock, size);
    float kl = 0;
    for_my_elements(size, size, [&](auto width, int j) {
        constexpr int N = decltype(width)::size;
        Floats<N> d = load_pack<N>(d_z + at + j), e = load_pack<N>(eps + at + j);
        Floats<N> p = load_pack<N>(mu + at + j), m = load_pack<N>(m_mu + at + j), v = load_pack<N>(v_mu + at + j);
        Floats<N> q = load_pack<N>(logvar + at + j), n = load_pack<N>(m_logvar + at + j), w = load_pack<N>(v_logvar + at + j);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float s = sigma(q.x[i]), var = s * s;
            kl += 0.5f * fmaf(p.x[i], p.x[i], var - q.x[i] - 1.0f);
            float g_mu = p.x[i] + d.x[i], g_logvar = 0.5f * fmaf(d.x[i] * e.x[i], s, var - 1.0f);
            adamw(step, g_mu, p.x[i], m.x[i], v.x[i]);
            adamw(step, g_logvar, q.x[i], n.x[i], w.x[i]);
        }
        store_pack<N>(mu + at + j, p);
        store_pack<N>(m_mu + at + j, m);
        store_pack<N>(v_mu + at + j, v);
        store_pack<N>(logvar + at + j, q);
        store_pack<N>(m_logvar + at + j, n);
        store_pack<N>(v_logvar + at + j, w);
        e = next.noise<N>(e, eps + at, j);
        store_pack<N>(z + at + j, draw_z<N>(p, q, e));
    });
    kl = block_sum(kl, shared);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = kl;
}

// The factors of a step of the natural gradient.
struct Means {
    float beta, rest, rate;
    // 1 / (1 − betaᵗ).
    float gain;
    // What the mean curvature keeps of its value, and the newest curvature's share of it.
    float kept, share;
};

// The same step by the natural gradient: `g` is the mean of the gradient before correction, `h` that of the curvature.
extern "C" __global__ void natural(const float* d_z, const float* rates, int steps, const int* samples, const float* table, int table_steps, unsigned long long seed, unsigned site, int kind, double beta, double guard, const int* clock, float* mu, float* logvar, float* g, float* h, float* eps, float* z, float* partial, int size) {
    __shared__ Means means;
    __shared__ float shared[WARP];
    int t = clock[0];
    if (threadIdx.x == 0) {
        double share = 2.0 / (t + 2 + (int)guard);
        means.beta = (float)beta;
        means.rest = (float)(1.0 - beta);
        means.kept = (float)(1.0 - share);
        means.share = (float)share;
        means.rate = rates[min(t, steps - 1)];
        means.gain = (float)(1.0 / (1.0 - power(beta, t + 1)));
    }
    __syncthreads();
    size_t at = (size_t)blockIdx.y * size;
    Renewal next = renewal(samples, table, table_steps, seed, site, kind, clock, size);
    float kl = 0;
    for_my_elements(size, size, [&](auto width, int j) {
        constexpr int N = decltype(width)::size;
        Floats<N> d = load_pack<N>(d_z + at + j), e = load_pack<N>(eps + at + j);
        Floats<N> p = load_pack<N>(mu + at + j), q = load_pack<N>(logvar + at + j);
        Floats<N> m = load_pack<N>(g + at + j), c = load_pack<N>(h + at + j);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float s = sigma(q.x[i]);
            kl += 0.5f * fmaf(p.x[i], p.x[i], s * s - q.x[i] - 1.0f);
            m.x[i] = fmaf(m.x[i], means.beta, d.x[i] * means.rest);
            c.x[i] = fmaf(c.x[i], means.kept, d.x[i] * e.x[i] / s * means.share);
            // Written so that a NaN propagates.
            float precision = (c.x[i] < 0.0f ? 0.0f : c.x[i]) + 1.0f;
            p.x[i] = fmaf(-means.rate, fmaf(m.x[i], means.gain, p.x[i]) / precision, p.x[i]);
            q.x[i] = -logf(precision);
        }
        store_pack<N>(mu + at + j, p);
        store_pack<N>(logvar + at + j, q);
        store_pack<N>(g + at + j, m);
        store_pack<N>(h + at + j, c);
        e = next.noise<N>(e, eps + at, j);
        store_pack<N>(z + at + j, draw_z<N>(p, q, e));
    });
    kl = block_sum(kl, shared);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = kl;
}

// A draw from the posterior with the noise of stream `site` and number[0]; partial [B, pieces]: log q(z) − log p(z).
extern "C" __global__ void draw(const float* mu, const float* logvar, const int* samples, const int* number, unsigned long long seed, unsigned site, float* eps, float* z, float* partial, int size) {
    __shared__ float shared[WARP];
    size_t at = (size_t)blockIdx.y * size;
    Stream stream = {seed, site, (unsigned)samples[blockIdx.y], (unsigned)number[0]};
    float ratio = 0;
    for_my_elements(size, size, [&](auto width, int j) {
        constexpr int N = decltype(width)::size;
        Floats<N> l = load_pack<N>(logvar + at + j), e = draw_normals<N>(stream, j);
        Floats<N> drawn = draw_z<N>(load_pack<N>(mu + at + j), l, e);
        store_pack<N>(eps + at + j, e);
        store_pack<N>(z + at + j, drawn);
#pragma unroll
        for (int i = 0; i < N; i++) ratio += 0.5f * fmaf(drawn.x[i], drawn.x[i], -fmaf(e.x[i], e.x[i], l.x[i]));
    });
    ratio = block_sum(ratio, shared);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = ratio;
}

// partial [samples, pieces] → out [samples]; and t + 1 → t, if there is a clock.
extern "C" __global__ void finish(const float* partial, int samples, int pieces, float* out, int* clock) {
    int sample = blockIdx.x * blockDim.x + threadIdx.x;
    if (sample == 0 && clock) clock[0]++;
    if (sample >= samples) return;
    float sum = 0;
    for (int i = 0; i < pieces; i++) sum += partial[sample * pieces + i];
    out[sample] = sum;
}
