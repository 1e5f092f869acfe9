// Kernels that test the host shim.
#include "common.cuh"
#include "noise.cuh"

extern "C" __global__ void to_bf16(const float* x, bf16* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) store(y + i, x[i]);
}

extern "C" __global__ void noise(unsigned long long seed, unsigned site, unsigned sample, unsigned step, double* y) {
    int block = blockIdx.x * blockDim.x + threadIdx.x;
    double four[4];
    normals({seed, site, sample, step}, block, four);
    for (int i = 0; i < 4; i++) y[4 * block + i] = four[i];
}

// a [16, 16], b [16, 8] → a·b, by one warp.
extern "C" __global__ void matrices(const bf16* x, float* y, int) {
    SHARED(bf16, shared);
    for (int i = lane() * 8; i < 384; i += 256) copy_async(shared + i, x + i);
    copy_commit();
    copy_wait<0>();
    __syncthreads();  // copies
    unsigned a[4], b[4];
    // Rows 0-7 and 8-15 of the left half, then of the right.
    ldmatrix(a, shared + lane() % 16 * 16 + lane() / 16 * 8);
    // b is row-major, and the product needs its transpose. The upper two matrices repeat the lower.
    ldmatrix_transposed(b, shared + 256 + lane() % 16 * 8);
    float d[4] = {0, 0, 0, 0};
    mma_bf16(d, a, b[0], b[1]);
    int row = lane() / 4, column = lane() % 4 * 2;
    for (int i = 0; i < 4; i++) y[(row + i / 2 * 8) * 8 + column + i % 2] = d[i];
}

extern "C" __global__ void reductions(const float* x, float* y, int) {
    __shared__ float sums[3];
    int i = threadIdx.x;
    block_sum(1.0f, sums);
    y[3 * i] = block_sum(x[i], sums);
    y[3 * i + 1] = warp_max(x[i]);
    unsigned below = (1u << lane()) - 1;
    y[3 * i + 2] = __popc(__ballot_sync(FULL, x[i] > 0) & below);
}

extern "C" __global__ void divergent_barriers(const float* x, float* y, int) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        y[threadIdx.x] = x[0];
        __syncthreads();
    }
}

extern "C" __global__ void early_return(const float*, float*, int) {
    if (threadIdx.x == 5) return;
    __syncthreads();
}

extern "C" __global__ void absent_lane(const float* x, float* y, int) {
    if (threadIdx.x == 3) return;
    y[threadIdx.x] = warp_sum(x[threadIdx.x]);
}

extern "C" __global__ void past_the_end(const float*, float* y, int n) {
    if ((int)threadIdx.x <= n) y[threadIdx.x + 1] = 1;
}

extern "C" __global__ void in_front(const float*, float* y, int) {
    *(y + threadIdx.x - 1) = 1;
}

extern "C" __global__ void past_shared(const float*, float*, int) {
    SHARED(float, shared);
    if (threadIdx.x <= 16) shared[threadIdx.x] = 1;
}

extern "C" __global__ void crooked_load(const float* x, float* y, int) { y[threadIdx.x] = load_pack<2>(x + 1).x[0]; }

extern "C" __global__ void crooked_store(const float*, float* y, int) { store_pack<4>(y + 2, Floats<4>{}); }

extern "C" __global__ void three_parameters(const float*, float*, double) {}

extern "C" __global__ void unwritten(const float*, float* y, int) {
    SHARED(float, dynamic);
    __shared__ float fixed[64];
    y[threadIdx.x] = threadIdx.x % 2 ? dynamic[threadIdx.x] : fixed[threadIdx.x];
}
