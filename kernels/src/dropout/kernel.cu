// y = x · m / (1 − p). A thread has eight elements, which share a block of random words: sixteen bits each. Memory-bound.
#include "common.cuh"
#include "noise.cuh"

constexpr int PER_BLOCK = 8;

// x → y, both [n]; elements whose bits are below `dropped` become zero, the others are scaled.
extern "C" __global__ void dropout(const T* x, const int* step, int want, T* y, int n, unsigned long long seed, unsigned site, unsigned dropped, float scale) {
    unsigned block = blockIdx.x * blockDim.x + threadIdx.x, first = block * PER_BLOCK;
    if (first >= (unsigned)n) return;
    Words random = words({seed, site, 0, (unsigned)*step}, block);
#pragma unroll
    for (int start = 0; start < PER_BLOCK; start += WIDE) {
        auto mask = [&](auto width, int k) {
            constexpr int N = decltype(width)::size;
            Floats<N> v = load_pack<N>(x + first + k);
#pragma unroll
            for (int j = 0; j < N; j++) {
                unsigned bits = random.x[(k + j) / 2] >> ((k + j) % 2 * 16) & 0xffffu;
                v.x[j] *= bits >= dropped ? scale : 0.0f;
            }
            add_or_write_pack<N>(want, y + first + k, v);
        };
        if (first + start + WIDE <= (unsigned)n) mask(Width<WIDE>{}, start);
        else for (int k = start; k < start + WIDE && first + k < (unsigned)n; k++) mask(Width<1>{}, k);
    }
}
