// y = Σ x, in two steps: one number per block, then one block adds these. The first step is memory-bound; the second
// takes a few microseconds.
#include "common.cuh"

// x [n] → partial [blocks]; a block has `per_block` numbers, a multiple of WIDE.
extern "C" __global__ void sum_blocks(const T* x, float* partial, int n, int per_block) {
    __shared__ float shared[WARP];
    int first = blockIdx.x * per_block, end = min(first + per_block, n);
    float sum = 0;
    for (int i = first + threadIdx.x * WIDE; i < end; i += blockDim.x * WIDE) {
        if (i + WIDE <= end) {
            Floats<WIDE> v = load_pack<WIDE>(x + i);
#pragma unroll
            for (int j = 0; j < WIDE; j++) sum += v.x[j];
        } else {
            for (int j = i; j < end; j++) sum += load(x + j);
        }
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial [n] → y [1]. One block.
extern "C" __global__ void __launch_bounds__(1024) sum_partials(const float* partial, int n, T* y) {
    __shared__ float shared[WARP];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) store(y, sum);
}

// d_y [1] → d_x [n]: the same number everywhere.
extern "C" __global__ void spread(const T* d_y, int want, T* d_x, int n) {
    float d = load(d_y);
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> out;
#pragma unroll
        for (int j = 0; j < N; j++) out.x[j] = d;
        add_or_write_pack<N>(want, d_x + i, out);
    });
}
