// Attention of every token to a layer's K latents. There are few latents: usually one tile of 16 holds them all.
// Memory-bound: it moves q and y forward, and q, d_y and d_q backward, each once.

// Latents of a tile; tokens of a tile of the backward pass, 16 for each warp; tokens of a block.
constexpr int LATENTS = 16;
constexpr int TOKENS = WARPS * 16;
constexpr int CHUNK = 256;

// Sizes of the layer: q [B, tokens, d], kv [B, latents, 2d], d = heads·head_dim. Blocks: y a head, z a sample.
struct Layer {
    int tokens, latents, heads, head_dim;

    // Element 0 of this block's sample and head.
    __device__ size_t query_start() const { return ((size_t)blockIdx.z * tokens * heads + blockIdx.y) * head_dim; }
    __device__ size_t key_start() const { return ((size_t)blockIdx.z * latents * 2 * heads + blockIdx.y) * head_dim; }
    __device__ size_t value_start() const { return key_start() + heads * head_dim; }
    __device__ Rows queries(const T* x) const { return {x + query_start(), heads * head_dim, tokens, head_dim}; }
    __device__ Rows keys(const T* kv) const { return {kv + key_start(), 2 * heads * head_dim, latents, head_dim}; }
    __device__ Rows values(const T* kv) const { return {kv + value_start(), 2 * heads * head_dim, latents, head_dim}; }
    // Every token sees every latent.
    __device__ Sight sight() const { return {1 << 30, 1 << 30, latents}; }
    __device__ Stream<LATENTS> stream(const T* kv, T* shared) const {
        return {keys(kv), values(kv), nullptr, 0, (latents + LATENTS - 1) / LATENTS, shared};
    }
};

// Blocks of the forward pass per SM: a token takes little work, so many warps must have loads in flight.
constexpr int RESIDENT = sizeof(T) == 2 && D <= 64 ? 5 : 0;

// q, kv → y [B, tokens, d]. A block has TOKENS tokens, a warp 16 of them.
extern "C" __global__ void __launch_bounds__(128, RESIDENT) forward(const T* q, const T* kv, T* y, int tokens, int latents, int heads, int head_dim, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, latents, heads, head_dim};
    int first = blockIdx.x * TOKENS, query = first + warp() * 16;
    T* own = shared + warp() * 16 * STRIDE;
    auto stream = layer.stream(kv, shared + TOKENS * STRIDE);
    load_tile<TOKENS>(shared, layer.queries(q), first);
    stream.load(0);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    Left<1> queries(own);
    float out[1][D / 8][4] = {}, inverse[1][2], lse[1][2];
    attend<LATENTS>(queries, stream, layer.sight(), query, scale, out, inverse, lse);
    store_rows(WRITE, y + layer.query_start(), layer.queries(y), query, out, inverse, own);
}

// Sums the warps' acc [16, D] through shared memory for 4·16·D floats, and stores rows of floats at `at`, from row
// `first` on, with the sizes of `like`.
__device__ inline void store_sum(float* at, Rows like, int first, const float (&acc)[1][D / 8][4], float* shared) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            Floats<2> pair = {acc[0][j][2 * h], acc[0][j][2 * h + 1]};
            store_pack<2>(shared + (warp() * 16 + row_of(0, h)) * D + column_of(j, 0), pair);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * D; i += THREADS) {
        int row = first + i / D, c = i % D;
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += shared[w * 16 * D + i];
        if (row < like.count && c < like.width) at[(size_t)row * like.stride + c] = sum;
    }
}

// Computes d_q and partials [chunks, B, latents, 2d], each chunk's share of d_kv; each only if wanted. A block has
// CHUNK tokens, tile by tile, and for d_kv the `part`-th of `parts` tiles of latents; the other blocks of the chunk
// repeat the computation before it. It goes over the latents once for the softmax, whose lse and delta each warp keeps
// for its tokens, and once for gradients.
extern "C" __global__ void __launch_bounds__(128) backward(const T* q, const T* kv, const T* d_y, int want_q, T* d_q, int parts, float* partials, int tokens, int latents, int heads, int head_dim, float scale) {
    SHARED(T, shared);
    Layer layer = {tokens, latents, heads, head_dim};
    int part = blockIdx.x % parts, chunk = blockIdx.x / parts, begin = chunk * CHUNK;
    int tiles = (latents + LATENTS - 1) / LATENTS;
    T* keys = shared;
    T* values = keys + LATENTS * STRIDE;
    T* pairs_at = values + LATENTS * STRIDE;
    float* pairs = reinterpret_cast<float*>(pairs_at) + warp() * 32;
    Stream<TOKENS> stream = {layer.queries(q), layer.queries(d_y), nullptr, begin, (min(CHUNK, tokens - begin) + TOKENS - 1) / TOKENS, pairs_at + WARPS * 32 * sizeof(float) / sizeof(T)};
    auto load = [&](int tile) {
        load_tile<LATENTS>(keys, layer.keys(kv), tile * LATENTS);
        load_tile<LATENTS>(values, layer.values(kv), tile * LATENTS);
    };
    // Calls f(number) for every tile of latents; a single tile stays in shared memory.
    auto for_each_tile = [&](auto f) {
        for (int i = 0; i < tiles; i++) {
            if (tiles > 1) {
                __syncthreads();
                load(i);
                copy_commit();
                copy_wait<0>();
                __syncthreads();
            }
            f(i);
        }
    };
    load(0);
    stream.load(0);
    copy_commit();
    float d_k[1][D / 8][4] = {}, d_v[1][D / 8][4] = {};
    stream.for_each([&](int first, T* q_tile, T* d_y_tile, const float*) {
        T* own = q_tile + warp() * 16 * STRIDE;
        T* own_d_y = d_y_tile + warp() * 16 * STRIDE;
        int query = first + warp() * 16;
        Softmax<1> softmax(scale);
        float lse[1][2], delta[1][2] = {};
        for_each_tile([&](int tile) {
            float p[1][LATENTS / 8][4] = {}, d_p[1][LATENTS / 8][4] = {};
            multiply_transposed(p, Left<1>(own), keys);
            multiply_transposed(d_p, Left<1>(own_d_y), values);
            layer.sight().hide(p, query, tile * LATENTS);
            softmax.step(p, [&](int m, int h, float factor) { delta[m][h] *= factor; });
#pragma unroll
            for (int i = 0; i < LATENTS / 2; i++) delta[0][i / 2 % 2] = fmaf(p[0][i / 4][i % 4], d_p[0][i / 4][i % 4], delta[0][i / 2 % 2]);
        });
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = softmax.total(0, h);
            lse[0][h] = softmax.log(0, h, total);
            delta[0][h] = row_sum(delta[0][h]) / total;
            if (lane() % 4 == 0) store_pack<2>(pairs + 2 * row_of(0, h), Floats<2>{lse[0][h], delta[0][h]});
        }
        __syncwarp();
        if (partials) {
            for_each_tile([&](int tile) {
                // Missing tokens have zeros.
                if (tile == part) key_gradient<16>(Left<1>(keys), Left<1>(values), own, own_d_y, pairs, Sight{1 << 30, 1 << 30, 1 << 30}, 0, 0, scale, d_k, d_v);
            });
        }
        if (want_q != SKIP && part == 0) {
            float out[1][D / 8][4] = {};
#pragma unroll
            for (int h = 0; h < 2; h++) {
                Floats<2> both = load_pack<2>(pairs + 2 * row_of(0, h));
                lse[0][h] = both.x[0], delta[0][h] = both.x[1];
            }
            for_each_tile([&](int tile) {
                query_gradient<LATENTS>(Left<1>(own), Left<1>(own_d_y), keys, values, layer.sight(), query, tile * LATENTS, scale, lse, delta, out);
            });
            const float factor[1][2] = {{scale, scale}};
            store_rows(want_q, d_q + layer.query_start(), layer.queries(d_q), query, out, factor, own);
        }
    });
    if (!partials) return;
#pragma unroll
    for (int i = 0; i < D / 2; i++) d_k[0][i / 4][i % 4] *= scale;
    partials += (size_t)chunk * gridDim.z * latents * 2 * heads * head_dim;
    float* sums = reinterpret_cast<float*>(stream.shared);
    store_sum(partials + layer.key_start(), layer.keys(kv), part * LATENTS, d_k, sums);
    store_sum(partials + layer.value_start(), layer.values(kv), part * LATENTS, d_v, sums);
}

// partials [chunks, n] → d_kv [n], their sum in order.
extern "C" __global__ void __launch_bounds__(256) sum_partials(const float* partials, int chunks, int want, T* d_kv, int n) {
    for_my_elements(n, n, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> sum = load_pack<N>(partials + i);
        for (int chunk = 1; chunk < chunks; chunk++) {
            Floats<N> more = load_pack<N>(partials + (size_t)chunk * n + i);
#pragma unroll
            for (int j = 0; j < N; j++) sum.x[j] += more.x[j];
        }
        add_or_write_pack<N>(want, d_kv + i, sum);
    });
}
