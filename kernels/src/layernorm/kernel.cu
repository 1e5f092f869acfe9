// y = (x − mean) · rstd ⊙ gain + bias and its gradients. A warp has a row: lanes go over it in packs of 16 bytes, in
// the backward pass twice, the second time from the L1 cache. All three kernels are memory-bound.
#include "common.cuh"

// A row [d] in packs of N; each lane has every 32nd pack. It keeps its first KEPT packs in registers, so that a row of
// up to 32·KEPT·N numbers is read only once for all passes.
constexpr int KEPT = 4;

template <int N> struct Row {
    const T* at;
    int d;
    Pack<T, N> kept[KEPT];

    __device__ Row(const T* at, int d) : at(at), d(d) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int i = (k * WARP + lane()) * N;
            if (i < d) kept[k] = read_pack<N>(at + i);
        }
    }

    // f(column of the first number, pack as floats).
    template <class F> __device__ void for_each(F f) const {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int i = (k * WARP + lane()) * N;
            if (i < d) f(i, to_floats(kept[k]));
        }
#pragma unroll 1
        for (int i = (KEPT * WARP + lane()) * N; i < d; i += WARP * N) f(i, load_pack<N>(at + i));
    }
};

template <int N>
__device__ void forward_row(const T* x, const T* gain, const T* bias, T* y, float* mean, float* rstd, float eps, int d) {
    Row<N> row(x, d);
    float sum = 0, squares = 0;
    row.for_each([&](int, Floats<N> v) {
#pragma unroll
        for (int j = 0; j < N; j++) sum += v.x[j];
    });
    float middle = warp_sum(sum) / d;
    row.for_each([&](int, Floats<N> v) {
#pragma unroll
        for (int j = 0; j < N; j++) squares = fmaf(v.x[j] - middle, v.x[j] - middle, squares);
    });
    float scale = 1.0f / sqrtf(warp_sum(squares) / d + eps);
    if (lane() == 0) {
        *mean = middle;
        *rstd = scale;
    }
    row.for_each([&](int i, Floats<N> v) {
        Floats<N> g = load_pack<N>(gain + i), b = load_pack<N>(bias + i);
#pragma unroll
        for (int j = 0; j < N; j++) v.x[j] = fmaf((v.x[j] - middle) * scale, g.x[j], b.x[j]);
        store_pack<N>(y + i, v);
    });
}

// x [rows, d], gain, bias [d] → y [rows, d], mean, rstd [rows]. A warp per row.
extern "C" __global__ void forward(const T* x, const T* gain, const T* bias, T* y, float* mean, float* rstd, float eps, int rows, int d) {
    int row = blockIdx.x * (blockDim.x / WARP) + warp();
    if (row >= rows) return;
    size_t at = (size_t)row * d;
    if (d % WIDE == 0) forward_row<WIDE>(x + at, gain, bias, y + at, mean + row, rstd + row, eps, d);
    else forward_row<1>(x + at, gain, bias, y + at, mean + row, rstd + row, eps, d);
}

// d_x = rstd · (h − mean(h) − (x − mean) · rstd² · mean(h ⊙ (x − mean))) of one row, h = gain ⊙ d_y.
template <int N>
__device__ void backward_row(const T* x, float mean, float rstd, const T* d_y, const T* gain, int want, T* d_x, int d) {
    float level = 0, pull = 0;
    for (int i = lane() * N; i < d; i += WARP * N) {
        Floats<N> v = load_pack<N>(x + i), g = load_pack<N>(gain + i), dy = load_pack<N>(d_y + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            level = fmaf(g.x[j], dy.x[j], level);
            pull = fmaf(g.x[j] * dy.x[j], v.x[j] - mean, pull);
        }
    }
    level = warp_sum(level) / d;
    pull = -warp_sum(pull) / d * rstd * rstd;
    for (int i = lane() * N; i < d; i += WARP * N) {
        Floats<N> v = load_pack<N>(x + i), g = load_pack<N>(gain + i), dy = load_pack<N>(d_y + i);
#pragma unroll
        for (int j = 0; j < N; j++) v.x[j] = rstd * fmaf(v.x[j] - mean, pull, fmaf(g.x[j], dy.x[j], -level));
        add_or_write_pack<N>(want, d_x + i, v);
    }
}

// x, d_y, d_x [rows, d], gain [d], mean, rstd [rows] → d_x. A warp per row.
extern "C" __global__ void backward(const T* x, const float* mean, const float* rstd, const T* d_y, const T* gain, int want, T* d_x, int rows, int d) {
    int row = blockIdx.x * (blockDim.x / WARP) + warp();
    if (row >= rows) return;
    size_t at = (size_t)row * d;
    if (d % WIDE == 0) backward_row<WIDE>(x + at, mean[row], rstd[row], d_y + at, gain, want, d_x + at, d);
    else backward_row<1>(x + at, mean[row], rstd[row], d_y + at, gain, want, d_x + at, d);
}

// x, d_y [rows, d], mean, rstd [rows] → d_gain, d_bias [d], each if it is wanted; without d_gain, x and the statistics
// are not read. 32 columns per block, a warp for every 32nd row.
extern "C" __global__ void __launch_bounds__(1024) backward_learned(const T* x, const float* mean, const float* rstd, const T* d_y, int want_gain, T* d_gain, int want_bias, T* d_bias, int rows, int d) {
    __shared__ float gains[WARP][WARP], biases[WARP][WARP];
    int column = blockIdx.x * WARP + lane();
    float gain = 0, bias = 0;
    if (column < d) {
        for (int row = warp(); row < rows; row += WARP) {
            size_t at = (size_t)row * d + column;
            float dy = load(d_y + at);
            bias += dy;
            if (want_gain != SKIP) gain = fmaf((load(x + at) - mean[row]) * rstd[row], dy, gain);
        }
    }
    gains[warp()][lane()] = gain;
    biases[warp()][lane()] = bias;
    __syncthreads();
    if (warp() != 0 || column >= d) return;
    float total_gain = 0, total_bias = 0;
    for (int w = 0; w < WARP; w++) {
        total_gain += gains[w][lane()];
        total_bias += biases[w][lane()];
    }
    if (want_gain != SKIP) add_or_write(want_gain, d_gain + column, total_gain);
    if (want_bias != SKIP) add_or_write(want_bias, d_bias + column, total_bias);
}
