// y = (base + factor) ⊙ x + term, and the sums of its gradients over the tokens of a sample. Memory-bound.
#include "common.cuh"

// x [B, tokens, d], factor [B, d] → y [B, tokens, d], written or added; `numbers` = B·tokens·d. The term is [B, d],
// [B, tokens, d] if `each`, or null.
extern "C" __global__ void modulate(const T* x, const T* term, int each, const T* factor, float base, int want, T* y, int numbers, int tokens, int d) {
    for_my_elements(numbers, d, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int of_sample = i / d / tokens * d + i % d;
        Floats<N> v = load_pack<N>(x + i), f = load_pack<N>(factor + of_sample), t = {};
        if (term) t = load_pack<N>(term + (each ? i : of_sample));
#pragma unroll
        for (int j = 0; j < N; j++) v.x[j] = fmaf(base + f.x[j], v.x[j], t.x[j]);
        add_or_write_pack<N>(want, y + i, v);
    });
}

// d_y, x [B, tokens, d] → out [B, d]: the sums over the tokens of d_y ⊙ x, or of d_y if x is null. Blocks: x of 32 columns, y a
// sample; their 32 warps take tokens in turns.
extern "C" __global__ void __launch_bounds__(1024) sums(const T* d_y, const T* x, int want, T* out, int tokens, int d) {
    __shared__ float shared[WARP][WARP];
    int column = blockIdx.x * WARP + lane();
    float sum = 0;
    if (column < d) {
        for (int n = warp(); n < tokens; n += WARP) {
            size_t at = ((size_t)blockIdx.y * tokens + n) * d + column;
            sum = x ? fmaf(load(d_y + at), load(x + at), sum) : sum + load(d_y + at);
        }
    }
    shared[warp()][lane()] = sum;
    __syncthreads();
    if (warp() == 0 && column < d) {
        float total = 0;
        for (int w = 0; w < WARP; w++) total += shared[w][lane()];
        add_or_write(want, out + (size_t)blockIdx.y * d + column, total);
    }
}
