// Rotation of adjacent pairs. A table of angles is computed once; the rotation is memory-bound.
#include "common.cuh"

// positions [n] → table [n, head_dim]: cos φ and sin φ of pair i at 2i and 2i + 1, φ = position · theta^(−2i/head_dim),
// in double precision. A thread per pair.
extern "C" __global__ void table(const int* positions, double theta, T* table, int n, int head_dim) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, pairs = head_dim / 2;
    if (i >= n * pairs) return;
    double angle = positions[i / pairs] * pow(theta, -2.0 * (i % pairs) / head_dim);
    store(table + 2 * i, (float)cos(angle));
    store(table + 2 * i + 1, (float)sin(angle));
}

// y = x rotated by φ (`sign` 1) or −φ (−1), written or added as `want` says. x, y [rows, width], rows a multiple of
// `tokens`; n = rows·width. table [tokens, head_dim]. The first `rotated` numbers of a row, whole heads, are rotated,
// the others copied.
extern "C" __global__ void rotate(const T* x, const float* table, float sign, int want, T* y, int n, int tokens, int head_dim, int width, int rotated) {
    for_my_elements<2>(n, head_dim, [&](auto pack, int i) {
        constexpr int N = decltype(pack)::size;
        int row = i / width, column = i % width;
        Floats<N> v = load_pack<N>(x + i);
        if (column < rotated) {
            Floats<N> angle = load_pack<N>(table + (size_t)(row % tokens) * head_dim + column % head_dim);
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                float c = angle.x[j], s = sign * angle.x[j + 1], a = v.x[j], b = v.x[j + 1];
                v.x[j] = a * c - b * s;
                v.x[j + 1] = fmaf(a, s, b * c);
            }
        }
        add_or_write_pack<N>(want, y + i, v);
    });
}
