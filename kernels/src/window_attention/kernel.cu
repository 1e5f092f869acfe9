// Self-attention within a window, tile by tile: work and traffic are proportional to tokens · window. The tensor cores and
// the exponentials bound it in bf16, plain multiply-adds in f32.

// Columns of a tile: with more, fewer barriers; the backward pass has more to keep in registers.
constexpr int FORWARD = sizeof(T) == 2 ? 64 : 32;
constexpr int BACKWARD = 32;

// Sizes of the layer: qkv [B, tokens, 3d], d = heads·head_dim. Blocks: x of rows, y a head, z a sample.
struct Layer {
    int tokens, heads, head_dim, window;
    float scale;

    // Element 0 of this block's sample and head in a tensor [B, tokens, n·d]: its i-th part of d columns.
    __device__ size_t start(int n, int i) const {
        return ((size_t)blockIdx.z * tokens * n + i) * heads * head_dim + blockIdx.y * head_dim;
    }
    __device__ Rows rows(const T* x, int n, int i) const { return {x + start(n, i), n * heads * head_dim, tokens, head_dim}; }
    // Number of this sample's and head's row in a tensor [B, tokens, heads].
    __device__ size_t statistic(int row) const { return ((size_t)blockIdx.z * tokens + row) * heads + blockIdx.y; }
    __device__ Sight sight() const { return {window, tokens}; }
};

template <int N> __device__ Stream<N> stream_of(Rows first, Rows second, int begin, int end, T* shared) {
    return {first, second, begin, (end - begin + N - 1) / N, shared};
}

// qkv → y [B, tokens, d], lse [B, tokens, heads]. A block has 64 queries.
extern "C" __global__ void __launch_bounds__(128) forward(const T* qkv, T* y, float* lse, int tokens, int heads, int head_dim, int window, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, heads, head_dim, window, scale};
    int first = blockIdx.x * BLOCK, query = first + warp() * ROWS;
    load_tile<BLOCK>(shared, layer.rows(qkv, 3, 0), first);
    // From the first key that the first query sees to the last query's own.
    int begin = max(first - window + 1, 0), end = min(first + BLOCK, tokens);
    auto stream = stream_of<FORWARD>(layer.rows(qkv, 3, 1), layer.rows(qkv, 3, 2), begin, end, shared + BLOCK * STRIDE);
    float out[D / 8][4] = {}, inverse[2], own_lse[2];
    attend<FORWARD>(shared + warp() * ROWS * STRIDE, stream, layer.sight(), query, scale, out, inverse, own_lse);
    store_rows(WRITE, y + layer.start(1, 0), layer.rows(y, 1, 0), query, out, inverse);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = query + row_of(2 * h);
        if (lane() % 4 == 0 && row < tokens) lse[layer.statistic(row)] = own_lse[h];
    }
}

// → d_q in d_qkv [B, tokens, 3d], and delta [B, tokens, heads] = Σ y · d_y of each head. A block has 64 queries.
extern "C" __global__ void __launch_bounds__(128) backward_queries(const T* qkv, const T* y, const float* lse, const T* d_y, int want, T* d_qkv, float* delta, int tokens, int heads, int head_dim, int window, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, heads, head_dim, window, scale};
    int first = blockIdx.x * BLOCK, query = first + warp() * ROWS;
    T* queries = shared + warp() * ROWS * STRIDE;
    T* gradients = queries + BLOCK * STRIDE;
    load_tile<BLOCK>(shared, layer.rows(qkv, 3, 0), first);
    load_tile<BLOCK>(shared + BLOCK * STRIDE, layer.rows(d_y, 1, 0), first);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    float own_lse[2] = {}, own_delta[2] = {};
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = query + row_of(2 * h);
        const T* of_row = y + layer.start(1, 0) + (size_t)row * heads * head_dim;
#pragma unroll
        for (int i = 0; i < D / 4; i++) {
            int c = column_of(i / 2, i % 2);
            if (row < tokens && c < head_dim) own_delta[h] = fmaf(load(of_row + c), load(gradients + row_of(2 * h) * STRIDE + c), own_delta[h]);
        }
        own_delta[h] = row_sum(own_delta[h]);
        if (row < tokens) {
            own_lse[h] = lse[layer.statistic(row)];
            if (lane() % 4 == 0) delta[layer.statistic(row)] = own_delta[h];
        }
    }
    int begin = max(first - window + 1, 0), end = min(first + BLOCK, tokens);
    T* tiles = shared + 2 * BLOCK * STRIDE;
    auto stream = stream_of<BACKWARD>(layer.rows(qkv, 3, 1), layer.rows(qkv, 3, 2), begin, end, tiles);
    float d_q[D / 8][4] = {};
    query_gradient<BACKWARD>(queries, gradients, stream, layer.sight(), query, scale, own_lse, own_delta, d_q);
    store_rows(want, d_qkv + layer.start(3, 0), layer.rows(d_qkv, 3, 0), query, d_q, {1, 1});
}

// → d_k and d_v in d_qkv. A block has 64 keys; delta comes from the kernel above.
extern "C" __global__ void __launch_bounds__(128) backward_keys(const T* qkv, const float* lse, const float* delta, const T* d_y, int want, T* d_qkv, int tokens, int heads, int head_dim, int window, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, heads, head_dim, window, scale};
    int first = blockIdx.x * BLOCK, key = first + warp() * ROWS;
    T* keys = shared + warp() * ROWS * STRIDE;
    load_tile<BLOCK>(shared, layer.rows(qkv, 3, 1), first);
    load_tile<BLOCK>(shared + BLOCK * STRIDE, layer.rows(qkv, 3, 2), first);
    // From the first key's own query to the last that sees the last key.
    int begin = first, end = min(first + BLOCK + window - 1, tokens);
    T* tiles = shared + 2 * BLOCK * STRIDE;
    float* statistics = reinterpret_cast<float*>(tiles + 4 * BACKWARD * STRIDE);
    auto stream = stream_of<BACKWARD>(layer.rows(qkv, 3, 0), layer.rows(d_y, 1, 0), begin, end, tiles);
    float d_k[D / 8][4] = {}, d_v[D / 8][4] = {};
    key_gradient<BACKWARD>(keys, keys + BLOCK * STRIDE, stream, layer.sight(), key, 0, scale, lse + layer.statistic(0), delta + layer.statistic(0), heads, statistics, d_k, d_v);
    store_rows(want, d_qkv + layer.start(3, 1), layer.rows(d_qkv, 3, 1), key, d_k, {1, 1});
    store_rows(want, d_qkv + layer.start(3, 2), layer.rows(d_qkv, 3, 2), key, d_v, {1, 1});
}
