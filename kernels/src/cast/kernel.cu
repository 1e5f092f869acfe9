// Converts numbers to another type. Memory-bound.
#include "common.cuh"

template <int N, class From, class To> __device__ void convert_pack(const From* from, int want, To* to) {
    add_or_write_pack<N>(want, to, load_pack<N>(from));
}

// from [n] → to [n], or added to it. Each thread has eight numbers, for all types.
template <class From, class To> __device__ void convert(const From* from, int want, To* to, int n) {
    unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) * 8, end = i + 8;
    if (end <= (unsigned)n) return convert_pack<8>(from + i, want, to + i);
    for (; i < (unsigned)n; i++) convert_pack<1>(from + i, want, to + i);
}

extern "C" __global__ void to_f32(const T* from, int want, float* to, int n) { convert(from, want, to, n); }

extern "C" __global__ void to_bf16(const T* from, int want, bf16* to, int n) { convert(from, want, to, n); }
