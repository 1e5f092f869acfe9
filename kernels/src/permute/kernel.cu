// Permuted axes. Both kernels are memory-bound.
#include "common.cuh"

// The last axis, of `width` elements, stays: y has rows [.., s1, s2], at strides t0, t1 and t2 in x. n elements.
extern "C" __global__ void rows(const T* x, int want, T* y, int n, int width, int s1, int s2, int t0, int t1, int t2) {
    for_my_elements(n, width | t0 | t1 | t2, [&](auto pack, int i) {
        constexpr int N = decltype(pack)::size;
        int row = i / width;
        const T* from = x + (size_t)(row / s2 / s1) * t0 + (size_t)(row / s2 % s1) * t1 + (size_t)(row % s2) * t2;
        add_or_write_pack<N>(want, y + i, load_pack<N>(from + i % width));
    });
}

constexpr int SIDE = 32;

// x has the axis `across` inside, y the axis `last`: last · across squares of SIDE² are transposed by a block each, for every index
// of the other axes [.., inner]. The strides: of `last` in x, of `across` in y, of both other axes in x and y.
extern "C" __global__ void squares(const T* x, int want, T* y, int last, int across, int x_last, int y_across, int inner, int x_outer, int x_inner, int y_outer, int y_inner) {
    // One column more, so that a column lies in different banks.
    __shared__ float tile[SIDE][SIDE + 1];
    int block = blockIdx.x, wide = (last + SIDE - 1) / SIDE, high = (across + SIDE - 1) / SIDE;
    int j0 = block % wide * SIDE, i0 = block / wide % high * SIDE, other = block / wide / high;
    x += (size_t)(other / inner) * x_outer + (size_t)(other % inner) * x_inner;
    y += (size_t)(other / inner) * y_outer + (size_t)(other % inner) * y_inner;
    for (int k = warp(); k < SIDE; k += blockDim.x / WARP) {
        int i = i0 + lane(), j = j0 + k;
        if (i < across && j < last) tile[k][lane()] = load(x + (size_t)j * x_last + i);
    }
    __syncthreads();
    for (int k = warp(); k < SIDE; k += blockDim.x / WARP) {
        int i = i0 + k, j = j0 + lane();
        if (i < across && j < last) add_or_write(want, y + (size_t)i * y_across + j, tile[lane()][k]);
    }
}
