// y = x · rstd ⊙ gain and its gradients. A warp has a row: lanes go over it in packs of 16 bytes, twice, the second
// time from the L1 cache. All three kernels are memory-bound.
#include "common.cuh"

template <int N>
__device__ void forward_row(const T* x, const T* gain, T* y, float* rstd, float eps, int d) {
    float squares = 0;
    for (int i = lane() * N; i < d; i += WARP * N) {
        Floats<N> v = load_pack<N>(x + i);
#pragma unroll
        for (int j = 0; j < N; j++) squares = fmaf(v.x[j], v.x[j], squares);
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / d + eps);
    if (lane() == 0) *rstd = scale;
    for (int i = lane() * N; i < d; i += WARP * N) {
        Floats<N> v = load_pack<N>(x + i), g = load_pack<N>(gain + i);
#pragma unroll
        for (int j = 0; j < N; j++) v.x[j] *= scale * g.x[j];
        store_pack<N>(y + i, v);
    }
}

// x [rows, d], gain [d] → y [rows, d], rstd [rows]. A warp per row.
extern "C" __global__ void forward(const T* x, const T* gain, T* y, float* rstd, float eps, int rows, int d) {
    int row = blockIdx.x * (blockDim.x / WARP) + warp();
    if (row >= rows) return;
    size_t at = (size_t)row * d;
    if (d % WIDE == 0) forward_row<WIDE>(x + at, gain, y + at, rstd + row, eps, d);
    else forward_row<1>(x + at, gain, y + at, rstd + row, eps, d);
}

// d_x = rstd · (gain ⊙ d_y − x · rstd² · mean(gain ⊙ d_y ⊙ x)) of one row; nothing if `want` is SKIP.
// sums += d_y ⊙ x · rstd for this lane's columns, if `sums` is not null.
template <int N>
__device__ void backward_row(const T* x, const T* gain, float rstd, const T* d_y, int want, T* d_x, float* sums, int d) {
    float pull = 0;
    if (want != SKIP) {
        for (int i = lane() * N; i < d; i += WARP * N) {
            Floats<N> v = load_pack<N>(x + i), g = load_pack<N>(gain + i), dy = load_pack<N>(d_y + i);
#pragma unroll
            for (int j = 0; j < N; j++) pull = fmaf(g.x[j] * dy.x[j], v.x[j], pull);
        }
        pull = -warp_sum(pull) / d * rstd * rstd;
    }
    for (int i = lane() * N; i < d; i += WARP * N) {
        Floats<N> v = load_pack<N>(x + i), dy = load_pack<N>(d_y + i);
        if (sums) {
            // By packs: with single numbers, lanes N apart would conflict in the same banks.
            Floats<N> sum = load_pack<N>(sums + i);
#pragma unroll
            for (int j = 0; j < N; j++) sum.x[j] = fmaf(v.x[j] * rstd, dy.x[j], sum.x[j]);
            store_pack<N>(sums + i, sum);
        }
        if (want != SKIP) {
            Floats<N> g = load_pack<N>(gain + i), out;
#pragma unroll
            for (int j = 0; j < N; j++) out.x[j] = rstd * fmaf(v.x[j], pull, g.x[j] * dy.x[j]);
            add_or_write_pack<N>(want, d_x + i, out);
        }
    }
}

// x, d_y, d_x [rows, d], gain [d], rstd [rows] → d_x, and partial [blocks, d]: a block's share of d_gain, unless null.
// A block has `rows_per_block` rows, its warps take turns, and each sums its rows' share in shared memory [warps, d].
extern "C" __global__ void backward(const T* x, const T* gain, const float* rstd, const T* d_y, int want, T* d_x, float* partial, int rows, int d, int rows_per_block) {
    SHARED(float, shared);
    int warps = blockDim.x / WARP;
    float* sums = partial ? shared + warp() * d : nullptr;
    if (sums) {
        for (int i = lane(); i < d; i += WARP) sums[i] = 0;
        __syncwarp();
    }
    int first = blockIdx.x * rows_per_block;
    for (int row = first + warp(); row < min(first + rows_per_block, rows); row += warps) {
        size_t at = (size_t)row * d;
        if (d % WIDE == 0) backward_row<WIDE>(x + at, gain, rstd[row], d_y + at, want, d_x + at, sums, d);
        else backward_row<1>(x + at, gain, rstd[row], d_y + at, want, d_x + at, sums, d);
    }
    if (!partial) return;
    __syncthreads();
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
        float total = 0;
        for (int w = 0; w < warps; w++) total += shared[w * d + i];
        partial[(size_t)blockIdx.x * d + i] = total;
    }
}

// partial [n, d] → d_gain [d]: 32 columns per block, a row of the block's threads for every 32nd partial sum.
extern "C" __global__ void __launch_bounds__(1024) sum_partials(const float* partial, int n, int want, T* d_gain, int d) {
    __shared__ float sums[WARP][WARP];
    int column = blockIdx.x * WARP + lane();
    float sum = 0;
    if (column < d) {
        for (int i = warp(); i < n; i += WARP) sum += partial[(size_t)i * d + column];
    }
    sums[warp()][lane()] = sum;
    __syncthreads();
    if (warp() == 0 && column < d) {
        float total = 0;
        for (int w = 0; w < WARP; w++) total += sums[w][lane()];
        add_or_write(want, d_gain + column, total);
    }
}
