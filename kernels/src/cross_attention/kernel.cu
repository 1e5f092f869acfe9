// Attention of every token to a layer's K latents, of which there are few: a tile of 16 has them all as a rule. Memory bounds
// it: q and y forward; q, d_y and d_q backward, which reads q and d_y a second time for the gradients of keys and values.

// Latents of a tile, and tokens of a tile of which each warp has a quarter.
constexpr int LATENTS = 16;
constexpr int TOKENS = 64;

// Sizes of the layer: q [B, tokens, d], kv [B, latents, 2d], d = heads·head_dim. Blocks: x of rows, y a head, z a sample.
struct Layer {
    int tokens, latents, heads, head_dim;

    // Element 0 of this block's sample and head.
    __device__ size_t query_start() const { return ((size_t)blockIdx.z * tokens * heads + blockIdx.y) * head_dim; }
    __device__ size_t key_start() const { return ((size_t)blockIdx.z * latents * 2 * heads + blockIdx.y) * head_dim; }
    __device__ size_t value_start() const { return key_start() + heads * head_dim; }
    __device__ Rows queries(const T* x) const { return {x + query_start(), heads * head_dim, tokens, head_dim}; }
    __device__ Rows keys(const T* kv) const { return {kv + key_start(), 2 * heads * head_dim, latents, head_dim}; }
    __device__ Rows values(const T* kv) const { return {kv + value_start(), 2 * heads * head_dim, latents, head_dim}; }
    // Number of this sample's and head's row in a tensor [B, tokens, heads].
    __device__ size_t statistic(int row) const { return ((size_t)blockIdx.z * tokens + row) * heads + blockIdx.y; }
    __device__ Sight sight() const { return {0, latents}; }
    __device__ Stream<LATENTS> stream(const T* kv, T* shared) const {
        return {keys(kv), values(kv), 0, (latents + LATENTS - 1) / LATENTS, shared};
    }
};

// q, kv → y [B, tokens, d]. A block has 64 tokens.
extern "C" __global__ void __launch_bounds__(128) forward(const T* q, const T* kv, T* y, int tokens, int latents, int heads, int head_dim, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, latents, heads, head_dim};
    int first = blockIdx.x * BLOCK, query = first + warp() * ROWS;
    load_tile<BLOCK>(shared, layer.queries(q), first);
    float out[D / 8][4] = {}, inverse[2], lse[2];
    auto stream = layer.stream(kv, shared + BLOCK * STRIDE);
    attend<LATENTS>(shared + warp() * ROWS * STRIDE, stream, layer.sight(), query, scale, out, inverse, lse);
    store_rows(WRITE, y + layer.query_start(), layer.queries(y), query, out, inverse);
}

// → d_q unless it is not wanted, and lse and delta [B, tokens, heads]: log Σ exp of a token's scores, and Σ p · d_p. A block
// has 64 tokens; it goes over the latents once for these and once for d_q.
extern "C" __global__ void __launch_bounds__(128) backward_queries(const T* q, const T* kv, const T* d_y, int want, T* d_q, float* lse, float* delta, int tokens, int latents, int heads, int head_dim, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, latents, heads, head_dim};
    int first = blockIdx.x * BLOCK, query = first + warp() * ROWS;
    const T* queries = shared + warp() * ROWS * STRIDE;
    const T* gradients = queries + BLOCK * STRIDE;
    load_tile<BLOCK>(shared, layer.queries(q), first);
    load_tile<BLOCK>(shared + BLOCK * STRIDE, layer.queries(d_y), first);
    auto stream = layer.stream(kv, shared + 2 * BLOCK * STRIDE);
    Softmax softmax = {{-infinity(), -infinity()}, {0, 0}};
    float own_lse[2], own_delta[2] = {};
    stream.for_each([&](int key, const T* keys, const T* values) {
        float p[LATENTS / 8][4] = {}, d_p[LATENTS / 8][4] = {}, correction[2];
        multiply_transposed(p, queries, keys);
        multiply_transposed(d_p, gradients, values);
        softmax.step(p, layer.sight(), query, key, scale, correction);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            own_delta[h] *= correction[h];
#pragma unroll
            for (int i = 0; i < LATENTS / 4; i++) {
                int j = i / 2, e = 2 * h + i % 2;
                own_delta[h] = fmaf(p[j][e], d_p[j][e], own_delta[h]);
            }
        }
    });
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = row_sum(softmax.sum[h]);
        own_lse[h] = fmaf(softmax.most[h], scale, logf(sum));
        own_delta[h] = row_sum(own_delta[h]) / sum;
        int row = query + row_of(2 * h);
        if (lane() % 4 == 0 && row < tokens) {
            lse[layer.statistic(row)] = own_lse[h];
            delta[layer.statistic(row)] = own_delta[h];
        }
    }
    if (want == SKIP) return;
    float out[D / 8][4] = {};
    query_gradient<LATENTS>(queries, gradients, stream, layer.sight(), query, scale, own_lse, own_delta, out);
    store_rows(want, d_q + layer.query_start(), layer.queries(d_q), query, out, {1, 1});
}

// The sum of the warps' acc [16, D], by way of shared memory for 4·16·D floats, to rows first to first + 15.
__device__ void store_sum(int want, T* at, Rows like, int first, const float (&acc)[D / 8][4], float* shared) {
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) shared[(warp() * ROWS + row_of(e)) * D + column_of(j, e)] = acc[j][e];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * D; i += THREADS) {
        int row = first + i / D, c = i % D;
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += shared[w * ROWS * D + i];
        if (row < like.count && c < like.width) add_or_write(want, at + (size_t)row * like.stride + c, sum);
    }
    __syncthreads();
}

// → d_kv. A block has 16 latents and streams all tokens of its sample, of which each warp has a quarter of every tile; lse
// and delta come from the kernel above.
extern "C" __global__ void __launch_bounds__(128) backward_keys(const T* q, const T* kv, const float* lse, const float* delta, const T* d_y, int want, T* d_kv, int tokens, int latents, int heads, int head_dim, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, latents, heads, head_dim};
    int first = blockIdx.x * ROWS;
    load_tile<ROWS>(shared, layer.keys(kv), first);
    load_tile<ROWS>(shared + ROWS * STRIDE, layer.values(kv), first);
    T* tiles = shared + 2 * ROWS * STRIDE;
    float* statistics = reinterpret_cast<float*>(tiles + 4 * TOKENS * STRIDE);
    Stream<TOKENS> stream = {layer.queries(q), layer.queries(d_y), 0, (tokens + TOKENS - 1) / TOKENS, tiles};
    float d_k[D / 8][4] = {}, d_v[D / 8][4] = {};
    key_gradient<TOKENS / WARPS>(shared, shared + ROWS * STRIDE, stream, layer.sight(), first, warp() * TOKENS / WARPS, scale, lse + layer.statistic(0), delta + layer.statistic(0), heads, statistics, d_k, d_v);
    float* sums = reinterpret_cast<float*>(tiles);
    store_sum(want, d_kv + layer.key_start(), layer.keys(d_kv), first, d_k, sums);
    store_sum(want, d_kv + layer.value_start(), layer.values(d_kv), first, d_v, sums);
}
