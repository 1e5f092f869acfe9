// y = x + b, the same b for every row. Both kernels are memory-bound.
#include "common.cuh"

// x, y [rows, width], b [width], n = rows·width elements.
extern "C" __global__ void forward(const T* x, const T* b, T* y, int n, int width) {
    for_my_elements(n, width, [&](auto pack, int i) {
        constexpr int N = decltype(pack)::size;
        Floats<N> sum = load_pack<N>(x + i), bias = load_pack<N>(b + i % width);
#pragma unroll
        for (int j = 0; j < N; j++) sum.x[j] += bias.x[j];
        store_pack<N>(y + i, sum);
    });
}

// d_y [rows, width] → d_b [width]: 32 columns per block, a warp for every 32nd row.
extern "C" __global__ void __launch_bounds__(1024) backward(const T* d_y, int want, T* d_b, int rows, int width) {
    __shared__ float sums[WARP][WARP];
    int column = blockIdx.x * WARP + lane();
    float sum = 0;
    if (column < width) {
        for (int i = warp(); i < rows; i += WARP) sum += load(d_y + (size_t)i * width + column);
    }
    sums[warp()][lane()] = sum;
    __syncthreads();
    if (warp() == 0 && column < width) {
        float total = 0;
        for (int w = 0; w < WARP; w++) total += sums[w][lane()];
        add_or_write(want, d_b + column, total);
    }
}
