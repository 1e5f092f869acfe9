// Token ids to vectors, and the gradient of the table. The forward pass is memory-bound. The backward pass runs once
// per update; its time is that of a block's scan over all tokens in the L2 cache and of the longest list of one token's
// places.
#include "common.cuh"

// table [vocab, d], tokens [n] → h [n, d]; NaN where a token is not in the vocabulary. `numbers` = n·d.
extern "C" __global__ void gather(const T* table, const int* tokens, int want, T* h, int numbers, int d, int vocab) {
    for_my_elements(numbers, d, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int token = tokens[i / d];
        Floats<N> v;
        if (token >= 0 && token < vocab) {
            v = load_pack<N>(table + (size_t)token * d + i % d);
        } else {
#pragma unroll
            for (int j = 0; j < N; j++) v.x[j] = not_a_number();
        }
        add_or_write_pack<N>(want, h + i, v);
    });
}

// tokens [n] → places [n]: the token indices, sorted by ranges of `range` ids and in order within a range; starts
// [ranges + 1]: where each range begins. There is one block of 1024 threads per range, and it reads all tokens: it
// counts those of earlier ranges, then lists its own, each warp's share after that of the previous warp.
extern "C" __global__ void __launch_bounds__(1024) list_places(const int* tokens, int n, int range, int* places, int* starts) {
    __shared__ int counts[WARP];
    int first = blockIdx.x * range;
    int warps = blockDim.x / WARP;
    // A warp has a stretch of tokens.
    int stretch = (n + warps - 1) / warps, begin = min(warp() * stretch, n), end = min(begin + stretch, n);
    int earlier = 0, own = 0;
    for (int i = begin; i < end; i += WARP) {
        int token = i + lane() < end ? tokens[i + lane()] : 0x7fffffff;
        earlier += __popc(__ballot_sync(FULL, token < first));
        own += __popc(__ballot_sync(FULL, token >= first && token < first + range));
    }
    if (lane() == 0) counts[warp()] = earlier;
    __syncthreads();
    int at = 0;
    for (int w = 0; w < warps; w++) at += counts[w];
    __syncthreads();
    if (lane() == 0) counts[warp()] = own;
    __syncthreads();
    if (threadIdx.x == 0) starts[blockIdx.x] = at;
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) {
        int total = at;
        for (int w = 0; w < warps; w++) total += counts[w];
        starts[gridDim.x] = total;
    }
    for (int w = 0; w < warp(); w++) at += counts[w];
    for (int i = begin; i < end; i += WARP) {
        int token = i + lane() < end ? tokens[i + lane()] : 0x7fffffff;
        unsigned found = __ballot_sync(FULL, token >= first && token < first + range);
        if (found >> lane() & 1) places[at + __popc(found & ((1u << lane()) - 1))] = i + lane();
        at += __popc(found);
    }
}

// The sum of the rows d_h[places[i]] whose token is `id`, i in [begin, end), in their order: this lane's N columns,
// which exist if `live`.
template <int N>
__device__ Floats<N> sum_rows(const int* tokens, const int* places, int begin, int end, int id, const T* d_h, int d, bool live) {
    Floats<N> sum = {};
    for (int i = begin; i < end; i += WARP) {
        int place = i + lane() < end ? places[i + lane()] : 0;
        unsigned found = __ballot_sync(FULL, i + lane() < end && tokens[place] == id);
        for (; found; found &= found - 1) {
            int row = __shfl_sync(FULL, place, __popc((found & (0u - found)) - 1));
            if (!live) continue;
            Floats<N> v = load_pack<N>(d_h + (size_t)row * d);
#pragma unroll
            for (int j = 0; j < N; j++) sum.x[j] += v.x[j];
        }
    }
    return sum;
}

// Columns [column, column + N) of d_table[id]: every warp sums a stretch of the range's places, the first adds the sums.
template <int N>
__device__ void sum_token(const int* tokens, const int* places, int begin, int end, const T* d_h, int want, T* d_table, int d, int column, float* shared) {
    bool live = column < d;
    int id = blockIdx.x, warps = blockDim.x / WARP, stretch = (end - begin + warps - 1) / warps;
    int from = min(begin + warp() * stretch, end), to = min(from + stretch, end);
    Floats<N> sum = sum_rows<N>(tokens, places, from, to, id, d_h + column, d, live);
#pragma unroll
    for (int j = 0; j < N; j++) shared[(warp() * N + j) * WARP + lane()] = sum.x[j];
    __syncthreads();
    if (warp() != 0 || !live) return;
    for (int w = 1; w < warps; w++) {
#pragma unroll
        for (int j = 0; j < N; j++) sum.x[j] += shared[(w * N + j) * WARP + lane()];
    }
    add_or_write_pack<N>(want, d_table + (size_t)id * d + column, sum);
}

// tokens [n], places and starts of `list_places`, d_h [n, d] → d_table [vocab, d]. A block per id and 32 packs of columns.
extern "C" __global__ void scatter(const int* tokens, const int* places, const int* starts, int range, const T* d_h, int want, T* d_table, int d) {
    SHARED(float, shared);
    int begin = starts[blockIdx.x / range], end = starts[blockIdx.x / range + 1];
    // Adding zeros would change nothing.
    if (want == ADD && begin == end) return;
    int pack = blockIdx.y * WARP + lane();
    if (d % WIDE == 0) sum_token<WIDE>(tokens, places, begin, end, d_h, want, d_table, d, pack * WIDE, shared);
    else sum_token<1>(tokens, places, begin, end, d_h, want, d_table, d, pack, shared);
}
