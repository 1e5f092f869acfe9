// Attention of one new token to a ring of keys and values. Memory bounds it: the ring is read once.
#include "common.cuh"

// qkv [B, 3d], ring [B, slots, 2d], position [1] → y [B, d], d = heads·head_dim. A block per head and sample; its warps
// take the entries in turns. Shared memory has the scores [window] and the warps' sums [warps, head_dim].
extern "C" __global__ void attend(const T* qkv, const T* ring, const int* position, T* y, int heads, int head_dim, int window, int slots, float scale) {
    SHARED(float, scores);
    __shared__ float reduced[WARP];
    float* sums = scores + window;
    int d = heads * head_dim, warps = blockDim.x / WARP;
    const T* own = qkv + (size_t)blockIdx.y * 3 * d + blockIdx.x * head_dim;
    const T* entries = ring + (size_t)blockIdx.y * slots * 2 * d + blockIdx.x * head_dim;
    // Entry 0 is the oldest that is seen, the last one the token's own.
    int seen = min(position[0], window - 1), oldest = position[0] - seen;
    auto key = [&](int entry) { return entry < seen ? entries + (size_t)((oldest + entry) % slots) * 2 * d : own + d; };

    for (int entry = warp(); entry <= seen; entry += warps) {
        const T* k = key(entry);
        float dot = 0;
        for (int c = lane(); c < head_dim; c += WARP) dot = fmaf(load(own + c), load(k + c), dot);
        dot = warp_sum(dot);
        if (lane() == 0) scores[entry] = dot * scale;
    }
    __syncthreads();
    float most = -infinity();
    for (int entry = threadIdx.x; entry <= seen; entry += blockDim.x) most = fmaxf(most, scores[entry]);
    most = block_max(most, reduced);
    float total = 0;
    for (int entry = threadIdx.x; entry <= seen; entry += blockDim.x) {
        float p = expf(scores[entry] - most);
        scores[entry] = p;
        total += p;
    }
    total = block_sum(total, reduced);
    for (int c = lane(); c < head_dim; c += WARP) {
        float sum = 0;
        // Values lie behind the keys.
        for (int entry = warp(); entry <= seen; entry += warps) sum = fmaf(scores[entry], load(key(entry) + d + c), sum);
        sums[warp() * head_dim + c] = sum;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < head_dim; c += blockDim.x) {
        float sum = 0;
        for (int w = 0; w < warps; w++) sum += sums[w * head_dim + c];
        store(y + (size_t)blockIdx.y * d + blockIdx.x * head_dim + c, sum / total);
    }
}

// Keys and values of qkv [B, 3d] into the slot of position [1] of ring [B, slots, 2d]; n = B·2d elements.
extern "C" __global__ void keep(const T* qkv, const int* position, T* ring, int n, int d, int slots) {
    int slot = position[0] % slots;
    for_my_elements(n, d, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int sample = i / (2 * d), c = i % (2 * d);
        store_pack<N>(ring + ((size_t)sample * slots + slot) * 2 * d + c, load_pack<N>(qkv + (size_t)sample * 3 * d + d + c));
    });
}
