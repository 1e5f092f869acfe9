// Self-attention, tile by tile: work and traffic are proportional to the pairs of tokens that see each other. The time is
// that of the tensor cores and the exponentials in bf16, and of plain multiply-adds in f32.

// Columns of a loaded tile, and columns that a warp takes at a time; it skips columns that none of its rows sees.
constexpr int COLUMNS = sizeof(T) == 2 && D <= 64 ? 64 : 32;
constexpr int FORWARD = 32;
constexpr int BACKWARD_QUERIES = 32;
constexpr int BACKWARD_KEYS = sizeof(T) == 2 ? 16 : 8;

// Blocks per SM, forward and backward; with 0 the compiler may use any number of registers.
constexpr int RESIDENT_FORWARD = D <= 64 ? 3 : 0;
constexpr int RESIDENT = D <= 32 ? 2 : 0;

// The tokens of this block's sample that are not padding; all if there are no lengths.
__device__ inline int length_of(const int* lengths, int tokens) {
    return lengths ? min(max(lengths[blockIdx.z], 0), tokens) : tokens;
}

// Sizes of the layer: qkv [B, tokens, 3d], d = heads·head_dim. A token sees itself, the `before` tokens before it and the
// `after` tokens after it, but no padding, which is from token `length` on. Blocks: x of rows, y a head, z a sample.
struct Layer {
    int tokens, heads, head_dim, before, after;
    float scale;
    int length;

    // Element 0 of this block's sample and head in the i-th part (d columns) of a tensor [B, tokens, n·d].
    __device__ size_t start(int n, int i) const {
        return ((size_t)blockIdx.z * tokens * n + i) * heads * head_dim + blockIdx.y * head_dim;
    }
    __device__ Rows rows(const T* x, int n, int i) const { return {x + start(n, i), n * heads * head_dim, length, head_dim}; }
    // Stores the gradients or results acc·factor of rows `first` and following; those of padding are zero.
    template <int M> __device__ void store_part(int want, T* x, int n, int i, int first, float (&acc)[M][D / 8][4], float (&factor)[M][2], T* tile) const {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if (first + row_of(m, h) < length) continue;
                factor[m][h] = 0;
#pragma unroll
                for (int j = 0; j < D / 8; j++) acc[m][j][2 * h] = acc[m][j][2 * h + 1] = 0;
            }
        }
        Rows all = rows(x, n, i);
        all.count = tokens;
        store_rows(want, x + start(n, i), all, first, acc, factor, tile);
    }
    // Index of this sample's and head's row in a tensor [B, tokens, heads], and in a tensor [B, heads, tokens].
    __device__ size_t statistic(int row) const { return ((size_t)blockIdx.z * tokens + row) * heads + blockIdx.y; }
    __device__ size_t pair(int row) const { return ((size_t)blockIdx.z * heads + blockIdx.y) * tokens + row; }

    // Which keys a query sees, and which queries see a key.
    __device__ Sight of_queries() const { return {before, after, length}; }
    __device__ Sight of_keys() const { return {after, before, length}; }

    // Tiles from row `begin` on that a block sees whose last row sees `far` rows after it; none if all of the block is padding.
    __device__ int tiles(int first, int begin, int far) const {
        return first < length ? (min(first + BLOCK + far, length) - begin + COLUMNS - 1) / COLUMNS : 0;
    }

    // Keys and values that a block of queries sees: from the first query's first key to the last query's last.
    __device__ Stream<COLUMNS> keys(const T* qkv, int first, T* shared) const {
        int begin = max(first - before, 0);
        return {rows(qkv, 3, 1), rows(qkv, 3, 2), nullptr, begin, tiles(first, begin, after), shared};
    }
};

// qkv → y [B, tokens, d], lse [B, tokens, heads]. A block has BLOCK queries.
extern "C" __global__ void __launch_bounds__(128, RESIDENT_FORWARD) forward(const T* qkv, T* y, float* lse, int tokens, int heads, int head_dim, int before, int after, float scale, const int* lengths) {
    SHARED(T, shared);
    Layer layer = {tokens, heads, head_dim, before, after, scale, length_of(lengths, tokens)};
    int first = blockIdx.x * BLOCK, query = first + warp() * ROWS;
    T* own = shared + warp() * ROWS * STRIDE;
    auto stream = layer.keys(qkv, first, shared + BLOCK * STRIDE);
    load_tile<BLOCK>(shared, layer.rows(qkv, 3, 0), first);
    stream.load(0);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    Left<TILES> queries(own);
    float out[TILES][D / 8][4] = {}, inverse[TILES][2], own_lse[TILES][2];
    attend<FORWARD>(queries, stream, layer.of_queries(), query, scale, out, inverse, own_lse);
    layer.store_part(WRITE, y, 1, 0, query, out, inverse, own);
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) {
        int row = query + row_of(i / 2, i % 2);
        if (lane() % 4 == 0 && row < tokens) lse[layer.statistic(row)] = row < layer.length ? own_lse[i / 2][i % 2] : 0.0f;
    }
}

// Σ a · b over a row of two tiles, in the four lanes that share it.
__device__ inline float row_dot(const T* a, const T* b) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
        Floats<2> x = load_pack<2>(a + column_of(j, 0)), y = load_pack<2>(b + column_of(j, 0));
        sum = fmaf(x.x[1], y.x[1], fmaf(x.x[0], y.x[0], sum));
    }
    return row_sum(sum);
}

// Computes d_q in d_qkv [B, tokens, 3d], and pairs [B, heads, tokens, 2]: lse to base 2 and delta = Σ y · d_y. A block
// has BLOCK queries.
extern "C" __global__ void __launch_bounds__(128, RESIDENT) backward_queries(const T* qkv, const T* y, const float* lse, const T* d_y, int want, T* d_qkv, float* pairs, int tokens, int heads, int head_dim, int before, int after, float scale, const int* lengths) {
    SHARED(T, shared);
    Layer layer = {tokens, heads, head_dim, before, after, scale, length_of(lengths, tokens)};
    int first = blockIdx.x * BLOCK, query = first + warp() * ROWS;
    T* own = shared + warp() * ROWS * STRIDE;
    auto stream = layer.keys(qkv, first, shared + 2 * BLOCK * STRIDE);
    load_tile<BLOCK>(shared, layer.rows(qkv, 3, 0), first);
    load_tile<BLOCK>(shared + BLOCK * STRIDE, layer.rows(d_y, 1, 0), first);
    // Uses the memory of the second tile until that is loaded.
    static_assert(BLOCK <= 2 * COLUMNS, "a block of y fits into a tile");
    load_tile<BLOCK>(stream.tile(1), layer.rows(y, 1, 0), first);
    stream.load(0);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    float own_lse[TILES][2] = {}, delta[TILES][2];
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int r = row_of(m, h), row = query + r;
            delta[m][h] = row_dot(own + (BLOCK + r) * STRIDE, stream.tile(1) + (warp() * ROWS + r) * STRIDE);
            if (row < layer.length) {
                own_lse[m][h] = lse[layer.statistic(row)] * LOG2_E;
                if (lane() % 4 == 0) store_pack<2>(pairs + 2 * layer.pair(row), Floats<2>{own_lse[m][h], delta[m][h]});
            }
        }
    }
    Left<TILES> queries(own), gradients(own + BLOCK * STRIDE);
    float d_q[TILES][D / 8][4] = {};
    stream.for_each([&](int key, const T* keys, const T* values, const float*) {
#pragma unroll 1
        for (int c = 0; c < COLUMNS; c += BACKWARD_QUERIES) {
            if (layer.of_queries().none(query, ROWS, key + c, BACKWARD_QUERIES)) continue;
            query_gradient<BACKWARD_QUERIES>(queries, gradients, keys + c * STRIDE, values + c * STRIDE, layer.of_queries(), query, key + c, scale, own_lse, delta, d_q);
        }
    });
    float factor[TILES][2];
    for (int i = 0; i < 2 * TILES; i++) factor[i / 2][i % 2] = scale;
    layer.store_part(want, d_qkv, 3, 0, query, d_q, factor, own);
}

// Computes d_k and d_v in d_qkv. A block has BLOCK keys; pairs come from the kernel above.
extern "C" __global__ void __launch_bounds__(128, RESIDENT) backward_keys(const T* qkv, const float* pairs, const T* d_y, int want, T* d_qkv, int tokens, int heads, int head_dim, int before, int after, float scale, const int* lengths) {
    SHARED(T, shared);
    Layer layer = {tokens, heads, head_dim, before, after, scale, length_of(lengths, tokens)};
    int first = blockIdx.x * BLOCK, key = first + warp() * ROWS;
    T* own = shared + warp() * ROWS * STRIDE;
    // From the first query that sees the first key to the last query that sees the last key.
    int begin = max(first - after, 0), tiles = layer.tiles(first, begin, before);
    Stream<COLUMNS> stream = {layer.rows(qkv, 3, 0), layer.rows(d_y, 1, 0), pairs + 2 * layer.pair(0), begin, tiles, shared + 2 * BLOCK * STRIDE};
    load_tile<BLOCK>(shared, layer.rows(qkv, 3, 1), first);
    load_tile<BLOCK>(shared + BLOCK * STRIDE, layer.rows(qkv, 3, 2), first);
    stream.load(0);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    Left<TILES> keys(own), values(own + BLOCK * STRIDE);
    float d_k[TILES][D / 8][4] = {}, d_v[TILES][D / 8][4] = {};
    stream.for_each([&](int query, const T* queries, const T* d_y, const float* pairs) {
#pragma unroll 1
        for (int c = 0; c < COLUMNS; c += BACKWARD_KEYS) {
            if (layer.of_keys().none(key, ROWS, query + c, BACKWARD_KEYS)) continue;
            key_gradient<BACKWARD_KEYS>(keys, values, queries + c * STRIDE, d_y + c * STRIDE, pairs + 2 * c, layer.of_keys(), key, query + c, scale, d_k, d_v);
        }
    });
    float factor[TILES][2], one[TILES][2];
    for (int i = 0; i < 2 * TILES; i++) factor[i / 2][i % 2] = scale, one[i / 2][i % 2] = 1;
    layer.store_part(want, d_qkv, 3, 1, key, d_k, factor, own);
    layer.store_part(want, d_qkv, 3, 2, key, d_v, one, own + BLOCK * STRIDE);
}
