// Attention of one new token to a ring of keys and values. Memory-bound: the ring is read once.
#include "common.cuh"

// What a token sees in one head of one sample: `seen` entries of the ring, the oldest in slot `oldest`, and last its
// own.
struct Head {
    const T *own, *ring;
    // Numbers of a token in all heads, and in this one.
    int d, width;
    int seen, oldest, slots;

    // The value lies d numbers after the key.
    __device__ const T* key(int entry) const {
        int slot = oldest + entry;
        if (slot >= slots) slot -= slots;
        return entry < seen ? ring + (size_t)slot * 2 * d : own + d;
    }
};

// y of one head. Each entry has a group of lanes, as many as hold its columns in packs of N. So a load of a warp covers
// several entries, and no entry waits for another. Shared memory has the warps' sums [warps, width], a float for each,
// and the scores [window].
template <int N> __device__ void attend_head(Head head, float scale, float* sums, T* y) {
    int warps = blockDim.x / WARP;
    float *reduced = sums + warps * head.width, *scores = reduced + warps;
    int group = 1;
    while (group < WARP && group * N < head.width) group *= 2;
    int groups = blockDim.x / group, first = threadIdx.x / group, column = lane() % group * N;
    float most = -infinity();
    for (int entry = first; entry - first <= head.seen; entry += groups) {
        float dot = 0;
        if (entry <= head.seen) {
            const T* key = head.key(entry);
            for (int c = column; c < head.width; c += group * N) {
                Floats<N> q = load_pack<N>(head.own + c), k = load_pack<N>(key + c);
#pragma unroll
                for (int j = 0; j < N; j++) dot = fmaf(q.x[j], k.x[j], dot);
            }
        }
        for (int step = group / 2; step > 0; step /= 2) dot += __shfl_xor_sync(FULL, dot, step);
        if (entry > head.seen) continue;
        if (column == 0) scores[entry] = dot * scale;
        most = fmaxf(most, dot * scale);
    }
    // The barriers inside also wait for the scores.
    most = block_max(most, reduced);
    float total = 0;
    for (int entry = threadIdx.x; entry <= head.seen; entry += blockDim.x) {
        scores[entry] = expf(scores[entry] - most);
        total += scores[entry];
    }
    total = block_sum(total, reduced);
    for (int begin = 0; begin < head.width; begin += group * N) {
        int c = begin + column;
        Floats<N> sum = {};
        for (int entry = first; entry <= head.seen && c < head.width; entry += groups) {
            Floats<N> v = load_pack<N>(head.key(entry) + head.d + c);
#pragma unroll
            for (int j = 0; j < N; j++) sum.x[j] = fmaf(scores[entry], v.x[j], sum.x[j]);
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            for (int step = group; step < WARP; step *= 2) sum.x[j] += __shfl_xor_sync(FULL, sum.x[j], step);
        }
        if (lane() < group && c < head.width) store_pack<N>(sums + warp() * head.width + c, sum);
    }
    __syncthreads();
    for (int c = threadIdx.x; c < head.width; c += blockDim.x) {
        float sum = 0;
        for (int w = 0; w < warps; w++) sum += sums[w * head.width + c];
        store(y + c, sum / total);
    }
}

// qkv [B, 3d], ring [B, slots, 2d], position [1] → y [B, d], d = heads·head_dim. A block per head and sample.
extern "C" __global__ void __launch_bounds__(1024) attend(const T* qkv, const T* ring, const int* position, T* y, int heads, int head_dim, int window, int slots, float scale) {
    SHARED(float, sums);
    int d = heads * head_dim, seen = min(position[0], window - 1), at = blockIdx.x * head_dim;
    Head head = {qkv + (size_t)blockIdx.y * 3 * d + at, ring + (size_t)blockIdx.y * slots * 2 * d + at, d, head_dim, seen, (position[0] - seen) % slots, slots};
    y += (size_t)blockIdx.y * d + at;
    if (head_dim % WIDE == 0) attend_head<WIDE>(head, scale, sums, y);
    else attend_head<1>(head, scale, sums, y);
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
