// Functions of one element of each input, by the numbers in `Elementwise::row`. The inputs a, b, c have la, lb, lc elements and
// are repeated to the n of the result; those that a derivative does not read are null. All kernels are memory-bound.
#include "common.cuh"

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// 2√(2/π), and that times 0.044715.
constexpr float LINEAR = 1.5957691216f, CUBIC = 0.0713548163f;

__device__ inline float gate(float u) { return sigmoid(u * fmaf(u * u, CUBIC, LINEAR)); }

__device__ inline float value(int f, float p, float q, float a, float b, float c) {
    switch (f) {
    case 0: return a + b;
    case 1: return a - b;
    case 2: return a * b;
    case 3: return a / b;
    case 4: return -a;
    case 5: return expf(a);
    case 6: return logf(a);
    case 7: return sqrtf(a);
    case 8: return powf(a, p);
    case 9: return tanhf(a);
    case 10: return sigmoid(a);
    case 11: return 0.0f > a ? 0.0f : a;
    case 12: return a * sigmoid(a);
    case 13: return a * gate(a);
    case 14: return fabsf(a);
    case 15: {
        float above = p > a ? p : a;
        return q < above ? q : above;
    }
    case 16: return a > 0.0f ? b : c;
    case 17: return (a - b) * (a - b);
    case 18: return (0.0f > a ? 0.0f : a) - a * b + log1pf(expf(-fabsf(a)));
    }
    return not_a_number();
}

// The gradient of input i for the result y and its gradient d.
__device__ inline float gradient(int f, float p, float q, int i, float a, float b, float y, float d) {
    switch (f) {
    case 0: return d;
    case 1: return i == 0 ? d : -d;
    case 2: return i == 0 ? d * b : d * a;
    case 3: return i == 0 ? d / b : -d * y / b;
    case 4: return -d;
    case 5: return d * y;
    case 6: return d / a;
    case 7: return d / (y + y);
    case 8: return p == 0.0f ? 0.0f : d * p * powf(a, p - 1.0f);
    case 9: return d * (1.0f - y * y);
    case 10: return d * y * (1.0f - y);
    case 11: return y > 0.0f ? d : 0.0f;
    case 12: {
        float s = sigmoid(a);
        return d * fmaf(a * s, 1.0f - s, s);
    }
    case 13: {
        // Beyond, s is 0 or 1, and the square must not overflow.
        a = 1e4f < a ? 1e4f : a < -1e4f ? -1e4f : a;
        float s = gate(a);
        return d * fmaf(a * s * (1.0f - s), fmaf(a * a, 3.0f * CUBIC, LINEAR), s);
    }
    case 14: return a > 0.0f ? d : 0.0f > a ? -d : 0.0f;
    case 15: return p > a || a > q ? 0.0f : d;
    case 16: {
        bool first = a > 0.0f;
        return (i == 1) == first ? d : 0.0f;
    }
    case 17: return d * 2.0f * (i == 0 ? a - b : b - a);
    case 18: return i == 0 ? d * (sigmoid(a) - b) : -d * a;
    }
    return not_a_number();
}

// N elements of an operand of `len` elements from index i of the result on, zeros if it is null.
template <int N> __device__ inline Floats<N> operand(const T* x, int len, int n, int i) {
    if (x && len == n) return load_pack<N>(x + i);
    if (x && len > 1) return load_pack<N>(x + i % len);
    Floats<N> out;
    float all = x ? load(x) : 0.0f;
#pragma unroll
    for (int j = 0; j < N; j++) out.x[j] = all;
    return out;
}

// → y [n]. `row` is 0 if packs stay within every repeated input, else 1.
extern "C" __global__ void forward(int f, float p, float q, const T* a, int la, const T* b, int lb, const T* c, int lc, T* y,
                                   int n, int row) {
    for_my_elements(n, row, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> x = operand<N>(a, la, n, i), second = operand<N>(b, lb, n, i), third = operand<N>(c, lc, n, i);
#pragma unroll
        for (int j = 0; j < N; j++) x.x[j] = value(f, p, q, x.x[j], second.x[j], third.x[j]);
        store_pack<N>(y + i, x);
    });
}

// The gradient of input `which`, which is not repeated: y, d_y → d_x, all [n].
extern "C" __global__ void backward(int f, float p, float q, const T* a, int la, const T* b, int lb, const T* c, int lc,
                                    const T* y, const T* d_y, int n, int which, int want, T* d_x, int row) {
    for_my_elements(n, row, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> x = operand<N>(a, la, n, i), second = operand<N>(b, lb, n, i);
        Floats<N> out = operand<N>(y, n, n, i), d = load_pack<N>(d_y + i);
#pragma unroll
        for (int j = 0; j < N; j++) d.x[j] = gradient(f, p, q, which, x.x[j], second.x[j], out.x[j], d.x[j]);
        add_or_write_pack<N>(want, d_x + i, d);
    });
}

// The same for a repeated input: the result as rows of `period` elements, a multiple of the input's; a block adds
// `rows_per_block` rows of some columns → partial [gridDim.y, period].
extern "C" __global__ void sums(int f, float p, float q, const T* a, int la, const T* b, int lb, const T* c, int lc,
                                const T* y, const T* d_y, int n, int which, float* partial, int period, int rows_per_block) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= period) return;
    int rows = (n + period - 1) / period, first = blockIdx.y * rows_per_block, end = min(first + rows_per_block, rows);
    float sum = 0;
    for (int row = first; row < end; row++) {
        int i = row * period + column;
        if (i >= n) break;
        float x = operand<1>(a, la, n, i).x[0], second = operand<1>(b, lb, n, i).x[0], out = operand<1>(y, n, n, i).x[0];
        sum += gradient(f, p, q, which, x, second, out, load(d_y + i));
    }
    partial[(size_t)blockIdx.y * period + column] = sum;
}

// partial [parts] → d_x [own]: a warp adds every own-th number.
extern "C" __global__ void fold(const float* partial, int parts, int want, T* d_x, int own) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (i >= own) return;
    float sum = 0;
    for (size_t j = i + (size_t)lane() * own; j < (size_t)parts; j += (size_t)WARP * own) sum += partial[j];
    sum = warp_sum(sum);
    if (lane() == 0) add_or_write(want, d_x + i, sum);
}
