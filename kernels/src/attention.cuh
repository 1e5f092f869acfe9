// Tiles of attention, for rooms that put this file in front of their kernels.
//
// A block is four warps. Each has 16 rows of one side (queries, or keys) and streams columns of the other through shared
// memory. Scores, probabilities and gradients are products of tiles, of two kinds:
//   rows [16, D] · columns [8J, D]ᵀ → [16, 8J]      both from shared memory
//   p [16, 8I] · columns [8I, D] → [16, D]          p from registers
// Results lie in a warp's registers as the tensor cores put them: lane 4g + t has, of every 8 columns, 2t and 2t + 1 of
// rows g and g + 8. bf16 tiles are multiplied on the tensor cores, f32 tiles by plain multiply-adds in the same layout.
// D = SIZE is the width of a head rounded up; what is beyond the head is zero.
#include "common.cuh"

constexpr int D = SIZE;
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
// Rows of a warp and of a block.
constexpr int ROWS = 16;
constexpr int BLOCK = WARPS * ROWS;
// Tiles have a pack between rows, so that eight rows in a column lie in different banks.
constexpr int STRIDE = D + WIDE;

// Rows of one head in memory.
struct Rows {
    const T* at;
    // From row to row, in elements.
    int stride;
    int count;
    // Width of the head.
    int width;
};

// Rows first to first + N − 1 into a tile [N, STRIDE], zeros where there are none; they have arrived after `copy_wait` and
// a barrier. All threads of the block take part.
template <int N> __device__ void load_tile(T* tile, Rows rows, int first) {
    constexpr int PACKS = D / WIDE;
    bool packed = rows.width % WIDE == 0;
    for (int i = threadIdx.x; i < N * PACKS; i += THREADS) {
        int r = i / PACKS, c = i % PACKS * WIDE, row = first + r;
        T* to = tile + r * STRIDE + c;
        const T* from = rows.at + (size_t)row * rows.stride + c;
        bool there = row < rows.count && c < rows.width;
        if (packed) {
            copy_async(to, there ? from : rows.at, there);
        } else {
            for (int j = 0; j < WIDE; j++) {
                store(to + j, there && c + j < rows.width ? load(from + j) : 0.0f);
            }
        }
    }
}

// acc [16, 8J] += left [16, D] · right [8J, D]ᵀ, tiles in shared memory.
template <int J> __device__ inline void multiply_transposed(float (&acc)[J][4], const bf16* left, const bf16* right) {
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        unsigned a[4], b[4];
        ldmatrix(a, left + lane() % 16 * STRIDE + k + lane() / 16 * 8);
#pragma unroll
        for (int j = 0; j < J; j += 2) {
            ldmatrix(b, right + (8 * j + lane() / 16 * 8 + lane() % 8) * STRIDE + k + lane() / 8 % 2 * 8);
            mma_bf16(acc[j], a, b[0], b[1]);
            mma_bf16(acc[j + 1], a, b[2], b[3]);
        }
    }
}

template <int J> __device__ inline void multiply_transposed(float (&acc)[J][4], const float* left, const float* right) {
    int g = lane() / 4, t = lane() % 4;
    for (int k = 0; k < D; k += 4) {
        Floats<4> a0 = load_pack<4>(left + g * STRIDE + k), a1 = load_pack<4>(left + (g + 8) * STRIDE + k);
#pragma unroll
        for (int j = 0; j < J; j++) {
            const float* rows = right + (8 * j + 2 * t) * STRIDE + k;
            Floats<4> b0 = load_pack<4>(rows), b1 = load_pack<4>(rows + STRIDE);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                acc[j][0] = fmaf(a0.x[i], b0.x[i], acc[j][0]);
                acc[j][1] = fmaf(a0.x[i], b1.x[i], acc[j][1]);
                acc[j][2] = fmaf(a1.x[i], b0.x[i], acc[j][2]);
                acc[j][3] = fmaf(a1.x[i], b1.x[i], acc[j][3]);
            }
        }
    }
}

// acc [16, D] += p [16, 8I] · right [8I, D], a tile in shared memory; p is rounded to the type of the tile.
template <int I> __device__ inline void multiply(float (&acc)[D / 8][4], const float (&p)[I][4], const bf16* right) {
#pragma unroll
    for (int i = 0; i < I; i += 2) {
        unsigned a[4] = {round_to_bf16x2(p[i][0], p[i][1]), round_to_bf16x2(p[i][2], p[i][3]),
                         round_to_bf16x2(p[i + 1][0], p[i + 1][1]), round_to_bf16x2(p[i + 1][2], p[i + 1][3])};
#pragma unroll
        for (int j = 0; j < D / 8; j += 2) {
            unsigned b[4];
            ldmatrix_transposed(b, right + (8 * i + lane() % 16) * STRIDE + 8 * j + lane() / 16 * 8);
            mma_bf16(acc[j], a, b[0], b[1]);
            mma_bf16(acc[j + 1], a, b[2], b[3]);
        }
    }
}

template <int I> __device__ inline void multiply(float (&acc)[D / 8][4], const float (&p)[I][4], const float* right) {
#pragma unroll
    for (int i = 0; i < I; i++) {
#pragma unroll
        for (int c = 0; c < 8; c++) {
            int from = lane() / 4 * 4 + c / 2;
            float p0 = __shfl_sync(FULL, p[i][c % 2], from), p1 = __shfl_sync(FULL, p[i][2 + c % 2], from);
            const float* row = right + (8 * i + c) * STRIDE + 2 * (lane() % 4);
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                Floats<2> b = load_pack<2>(row + 8 * j);
                acc[j][0] = fmaf(p0, b.x[0], acc[j][0]);
                acc[j][1] = fmaf(p0, b.x[1], acc[j][1]);
                acc[j][2] = fmaf(p1, b.x[0], acc[j][2]);
                acc[j][3] = fmaf(p1, b.x[1], acc[j][3]);
            }
        }
    }
}

// Row and column, within the warp's tile, of element e of the j-th eight columns.
__device__ inline int row_of(int e) { return lane() / 4 + e / 2 * 8; }
__device__ inline int column_of(int j, int e) { return 8 * j + lane() % 4 * 2 + e % 2; }

// The maximum and the sum over the four lanes that share a row.
__device__ inline float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL, x, 2));
}
__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(FULL, x, 1);
    return x + __shfl_xor_sync(FULL, x, 2);
}

// Which keys a query sees: the last `window` up to its own number, or, if that is 0, every one.
struct Sight {
    int window, keys;

    __device__ bool one(int query, int key) const {
        return key < keys && (window == 0 || (key <= query && key + window > query));
    }

    // Whether m queries from `query` on all see n keys from `key` on.
    __device__ bool all(int query, int m, int key, int n) const {
        int last_query = query + m - 1, last_key = key + n - 1;
        return last_key < keys && (window == 0 || (last_key <= query && key + window > last_query));
    }
};

// Two matrices' rows from `begin` on, N at a time: tile i is [2, N, STRIDE] in one half of the shared memory, while the next
// arrives in the other.
template <int N> struct Stream {
    Rows first, second;
    int begin, tiles;
    T* shared;

    __device__ T* tile(int i) const { return shared + i % 2 * 2 * N * STRIDE; }

    __device__ void load(int i) const {
        if (i >= tiles) return;
        load_tile<N>(tile(i), first, begin + i * N);
        load_tile<N>(tile(i) + N * STRIDE, second, begin + i * N);
    }

    // Calls f(first row, first matrix's part, second matrix's part) for every tile in turn, between barriers. What else was
    // loaded before has arrived by then.
    template <class F> __device__ void for_each(F f) const {
        load(0);
        copy_commit();
        for (int i = 0; i < tiles; i++) {
            load(i + 1);
            copy_commit();
            copy_wait<1>();
            __syncthreads();
            f(begin + i * N, tile(i), tile(i) + N * STRIDE);
            __syncthreads();
        }
    }
};

// acc [16, D], each of the lane's two rows times its `factor`, to rows first to first + 15 of a head, as wanted.
__device__ inline void store_rows(int want, T* at, Rows like, int first, const float (&acc)[D / 8][4], const float (&factor)[2]) {
    int width = like.width;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = first + row_of(2 * h);
        if (row >= like.count) continue;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            int c = column_of(j, 0);
            T* to = at + (size_t)row * like.stride + c;
            Floats<2> pair = {acc[j][2 * h] * factor[h], acc[j][2 * h + 1] * factor[h]};
            if (width % 2 == 0) {
                if (c < width) add_or_write_pack<2>(want, to, pair);
            } else {
                if (c < width) add_or_write(want, to, pair.x[0]);
                if (c + 1 < width) add_or_write(want, to + 1, pair.x[1]);
            }
        }
    }
}

// The online softmax of a lane's two rows.
struct Softmax {
    // The largest score so far, and this lane's share of the sum of exp(scale·(score − largest)).
    float most[2], sum[2];

    // scores [16, 8J] of the warp's queries and some keys become probabilities before division by the sum; what was summed
    // up of earlier tiles must be multiplied with `correction`.
    template <int J> __device__ void step(float (&scores)[J][4], Sight sight, int query, int key, float scale, float (&correction)[2]) {
        bool all = sight.all(query, ROWS, key, 8 * J);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float largest = most[h];
#pragma unroll
            for (int j = 0; j < J; j++) {
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) {
                    if (!all && !sight.one(query + row_of(e), key + column_of(j, e))) scores[j][e] = -infinity();
                    largest = fmaxf(largest, scores[j][e]);
                }
            }
            largest = row_max(largest);
            // A row that has seen nothing yet: all its exponentials are to be zero.
            float shift = largest == -infinity() ? 0.0f : largest * scale * LOG2_E;
            correction[h] = exp2f(fmaf(most[h], scale * LOG2_E, -shift));
            most[h] = largest;
            sum[h] *= correction[h];
#pragma unroll
            for (int j = 0; j < J; j++) {
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) {
                    scores[j][e] = exp2f(fmaf(scores[j][e], scale * LOG2_E, -shift));
                    sum[h] += scores[j][e];
                }
            }
        }
    }
};

// y [16, D] of the warp's queries, whose tile is `queries`, and lse of the lane's two rows; query is the first of them.
// Keys and values come in a stream. Rows without a query are of no use.
template <int N>
__device__ void attend(const T* queries, Stream<N> stream, Sight sight, int query, float scale, float (&y)[D / 8][4], float (&inverse)[2], float (&lse)[2]) {
    Softmax softmax = {{-infinity(), -infinity()}, {0, 0}};
    stream.for_each([&](int key, const T* keys, const T* values) {
        float p[N / 8][4] = {}, correction[2];
        multiply_transposed(p, queries, keys);
        softmax.step(p, sight, query, key, scale, correction);
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) y[j][e] *= correction[e / 2];
        }
        multiply(y, p, values);
    });
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = row_sum(softmax.sum[h]);
        inverse[h] = 1.0f / sum;
        lse[h] = fmaf(softmax.most[h], scale, logf(sum));
    }
}

// Turns scores into probabilities and d_p, the gradient of these, into d_s, the gradient of scores:
// p = exp(scale·score − lse), d_s = p·(d_p − delta)·scale. One number of a tile.
__device__ inline void backward_softmax(bool seen, float scale, float lse, float delta, float& score, float& d_p) {
    score = seen ? exp2f(fmaf(score, scale, -lse) * LOG2_E) : 0.0f;
    d_p = score * (d_p - delta) * scale;
}

// d_q [16, D] += d_s · keys over a stream of keys and values, for the warp's tiles of queries and d_y.
template <int N>
__device__ void query_gradient(const T* queries, const T* d_y, Stream<N> stream, Sight sight, int query, float scale, const float (&lse)[2], const float (&delta)[2], float (&d_q)[D / 8][4]) {
    stream.for_each([&](int key, const T* keys, const T* values) {
        float s[N / 8][4] = {}, d_s[N / 8][4] = {};
        multiply_transposed(s, queries, keys);
        multiply_transposed(d_s, d_y, values);
        bool all = sight.all(query, ROWS, key, N);
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool seen = all || sight.one(query + row_of(e), key + column_of(j, e));
                backward_softmax(seen, scale, lse[e / 2], delta[e / 2], s[j][e], d_s[j][e]);
            }
        }
        multiply(d_q, d_s, keys);
    });
}

// d_k [16, D] += d_sᵀ · queries and d_v [16, D] += pᵀ · d_y over a stream of N queries and their d_y, of which the warp has
// C from `column` on, for its tiles of keys and values; key is the first of its keys. lse and delta have a number for each
// query, `step` apart; `shared` has room for N of each. Beyond the last query p is one and d_y zero, which adds nothing.
template <int C, int N>
__device__ void key_gradient(const T* keys, const T* values, Stream<N> stream, Sight sight, int key, int column, float scale, const float* lse, const float* delta, int step, float* shared, float (&d_k)[D / 8][4], float (&d_v)[D / 8][4]) {
    stream.for_each([&](int query, const T* queries, const T* d_y) {
        for (int i = threadIdx.x; i < N; i += THREADS) {
            bool there = query + i < stream.first.count;
            shared[i] = there ? lse[(size_t)(query + i) * step] : 0.0f;
            shared[N + i] = there ? delta[(size_t)(query + i) * step] : 0.0f;
        }
        __syncthreads();
        float p[C / 8][4] = {}, d_s[C / 8][4] = {};
        multiply_transposed(p, keys, queries + column * STRIDE);
        multiply_transposed(d_s, values, d_y + column * STRIDE);
        bool all = sight.all(query + column, C, key, ROWS);
#pragma unroll
        for (int j = 0; j < C / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int c = column + column_of(j, e);
                bool seen = all || sight.one(query + c, key + row_of(e));
                backward_softmax(seen, scale, shared[c], shared[N + c], p[j][e], d_s[j][e]);
            }
        }
        multiply(d_v, p, d_y + column * STRIDE);
        multiply(d_k, d_s, queries + column * STRIDE);
    });
}
