// out = a·b + c if cuBLASLt is missing: any strides, sums in float in the order of `inner`. A block computes a tile of
// 64×64 of the result and a thread 4×4 of it. The factors pass through shared memory in slices of 16.
#include "common.cuh"

constexpr int TILE = 64, DEPTH = 16, EACH = 4, SIDE = TILE / EACH;

// Element (row, k) of a is at row·a_row + k·a_inner, (k, col) of b at k·b_inner + col·b_col. c (none if null) and out are
// row-major; float if `wide`, else T. The next product's a and b begin a_step and b_step elements later, its c and out after
// those of this one. Blocks: the tiles, row by row, product by product, of 256 threads.
extern "C" __global__ void __launch_bounds__(256) product(const T* a, int a_row, int a_inner, const T* b, int b_inner, int b_col, const void* c, void* out, int wide, int rows, int cols, int inner, unsigned long long a_step, unsigned long long b_step) {
    __shared__ float as[DEPTH][TILE + 1], bs[DEPTH][TILE + 1];
    int across = (cols + TILE - 1) / TILE, tiles = across * ((rows + TILE - 1) / TILE);
    int number = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    int row0 = tile / across * TILE, col0 = tile % across * TILE;
    a += number * a_step;
    b += number * b_step;
    int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
    float sums[EACH][EACH] = {};
    for (int k0 = 0; k0 < inner; k0 += DEPTH) {
        for (int i = threadIdx.x; i < DEPTH * TILE; i += SIDE * SIDE) {
            // Adjacent threads read adjacent elements, whether or not the factor is transposed.
            int ka = a_inner == 1 ? i % DEPTH : i / TILE, r = a_inner == 1 ? i / DEPTH : i % TILE;
            int kb = b_inner == 1 ? i % DEPTH : i / TILE, s = b_inner == 1 ? i / DEPTH : i % TILE;
            bool in_a = k0 + ka < inner && row0 + r < rows, in_b = k0 + kb < inner && col0 + s < cols;
            as[ka][r] = in_a ? load(a + (size_t)(row0 + r) * a_row + (size_t)(k0 + ka) * a_inner) : 0.0f;
            bs[kb][s] = in_b ? load(b + (size_t)(k0 + kb) * b_inner + (size_t)(col0 + s) * b_col) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
#pragma unroll
            for (int i = 0; i < EACH; i++) {
#pragma unroll
                for (int j = 0; j < EACH; j++) sums[i][j] = fmaf(as[k][y + SIDE * i], bs[k][x + SIDE * j], sums[i][j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int row = row0 + y + SIDE * i, col = col0 + x + SIDE * j;
            if (row >= rows || col >= cols) continue;
            size_t at = ((size_t)number * rows + row) * cols + col;
            if (wide) {
                const float* added = static_cast<const float*>(c);
                static_cast<float*>(out)[at] = sums[i][j] + (added ? added[at] : 0.0f);
            } else {
                const T* added = static_cast<const T*>(c);
                store(static_cast<T*>(out) + at, sums[i][j] + (added ? load(added + at) : 0.0f));
            }
        }
    }
}
