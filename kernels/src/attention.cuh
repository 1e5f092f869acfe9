// Tiles of attention, for ops that prepend this file to their kernels.
//
// A block is four warps. Each has 16M rows of one side (queries, or keys) and streams columns of the other through shared
// memory. Scores, probabilities and gradients are products of tiles, of two kinds:
//   rows [16M, D] · columns [8J, D]ᵀ → [16M, 8J]     rows from registers, columns from shared memory
//   p [16M, 8I] · columns [8I, D] → [16M, D]         p from registers
// Results are in a warp's registers in the layout of the tensor cores: of every 16 rows and 8 columns, lane 4g + t has
// columns 2t and 2t + 1 of rows g and g + 8. bf16 tiles are multiplied on the tensor cores, where M = 2 halves the
// reads from shared memory; f32 tiles by plain multiply-adds in the same layout. D = SIZE is the width of a head
// rounded up; columns beyond the head are zero.
#include "common.cuh"

constexpr int D = SIZE;
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
// Groups of sixteen rows of a warp, rows of a warp, and rows of a block: as many as the registers hold.
constexpr int TILES = sizeof(T) == 2 && D <= 64 ? 2 : 1;
constexpr int ROWS = 16 * TILES;
[[maybe_unused]] constexpr int BLOCK = WARPS * ROWS;
// Rows of a tile are padded by one pack, so that eight rows in a column are in different banks.
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

// Rows first to first + N − 1 into a tile [N, STRIDE], zeros for missing rows. The data are there after `copy_wait` and
// a barrier. All threads of the block take part.
template <int N> __device__ inline void load_tile(T* tile, Rows rows, int first) {
    constexpr int PACKS = D / WIDE, STEP = THREADS / PACKS;
    int r = threadIdx.x / PACKS, c = threadIdx.x % PACKS * WIDE, left = rows.count - first - r;
    const T* from = rows.at + (size_t)(first + r) * rows.stride + c;
    T* to = tile + r * STRIDE + c;
    if (rows.width % WIDE == 0) {
        if (c >= rows.width) left = 0;
#pragma unroll
        for (int i = 0; i < N; i += STEP) {
            if (N % STEP == 0 || i + r < N) copy_async(to + i * STRIDE, from, i < left);
            from += (size_t)STEP * rows.stride;
        }
    } else {
#pragma unroll 1
        for (int i = 0; i + r < N; i += STEP) {
#pragma unroll 1
            for (int j = 0; j < WIDE; j++) {
                store(to + i * STRIDE + j, i < left && c + j < rows.width ? load(from + j) : 0.0f);
            }
            from += (size_t)STEP * rows.stride;
        }
    }
}

// 16M rows of a tile as the left side of products: in registers for the tensor cores, else in shared memory.
template <class S, int M> struct LeftOf;
template <int M> struct LeftOf<bf16, M> {
    unsigned a[M][D / 16][4];

    __device__ explicit LeftOf(const bf16* tile) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int k = 0; k < D / 16; k++) ldmatrix(a[m][k], tile + (16 * m + lane() % 16) * STRIDE + 16 * k + lane() / 16 * 8);
        }
    }
};
template <int M> struct LeftOf<float, M> {
    const float* tile;

    __device__ explicit LeftOf(const float* tile) : tile(tile) {}
};
template <int M> using Left = LeftOf<T, M>;

// acc [16M, 8J] += left [16M, D] · right [8J, D]ᵀ, a tile in shared memory.
template <int M, int J> __device__ inline void multiply_transposed(float (&acc)[M][J][4], const LeftOf<bf16, M>& left, const bf16* right) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
        for (int j = 0; j < J; j += 2) {
            unsigned b[4];
            ldmatrix(b, right + (8 * j + lane() / 16 * 8 + lane() % 8) * STRIDE + 16 * k + lane() / 8 % 2 * 8);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(acc[m][j], left.a[m][k], b[0], b[1]);
                mma_bf16(acc[m][j + 1], left.a[m][k], b[2], b[3]);
            }
        }
    }
}

template <int M, int J> __device__ inline void multiply_transposed(float (&acc)[M][J][4], const LeftOf<float, M>& left, const float* right) {
    int g = lane() / 4, t = lane() % 4;
#pragma unroll 1
    for (int k = 0; k < D; k += 4) {
#pragma unroll
        for (int m = 0; m < M; m++) {
            const float* own = left.tile + (16 * m + g) * STRIDE + k;
            Floats<4> a0 = load_pack<4>(own), a1 = load_pack<4>(own + 8 * STRIDE);
#pragma unroll
            for (int j = 0; j < J; j++) {
                const float* rows = right + (8 * j + 2 * t) * STRIDE + k;
                Floats<4> b0 = load_pack<4>(rows), b1 = load_pack<4>(rows + STRIDE);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    acc[m][j][0] = fmaf(a0.x[i], b0.x[i], acc[m][j][0]);
                    acc[m][j][1] = fmaf(a0.x[i], b1.x[i], acc[m][j][1]);
                    acc[m][j][2] = fmaf(a1.x[i], b0.x[i], acc[m][j][2]);
                    acc[m][j][3] = fmaf(a1.x[i], b1.x[i], acc[m][j][3]);
                }
            }
        }
    }
}

// acc [16M, D] += p [16M, 8I] · right [8I, D], a tile in shared memory; p is rounded to the type of the tile.
template <int M, int I> __device__ inline void multiply(float (&acc)[M][D / 8][4], const float (&p)[M][I][4], const bf16* right) {
#pragma unroll
    for (int i = 0; i < I; i += 2) {
        unsigned a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int w = 0; w < 4; w++) a[m][w] = round_to_bf16x2(p[m][i + w / 2][w % 2 * 2], p[m][i + w / 2][w % 2 * 2 + 1]);
        }
#pragma unroll
        for (int j = 0; j < D / 8; j += 2) {
            unsigned b[4];
            ldmatrix_transposed(b, right + (8 * i + lane() % 16) * STRIDE + 8 * j + lane() / 16 * 8);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(acc[m][j], a[m], b[0], b[1]);
                mma_bf16(acc[m][j + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <int M, int I> __device__ inline void multiply(float (&acc)[M][D / 8][4], const float (&p)[M][I][4], const float* right) {
#pragma unroll
    for (int i = 0; i < I; i++) {
#pragma unroll
        for (int c = 0; c < 8; c++) {
            int from = lane() / 4 * 4 + c / 2;
            const float* row = right + (8 * i + c) * STRIDE + 2 * (lane() % 4);
#pragma unroll
            for (int m = 0; m < M; m++) {
                float p0 = __shfl_sync(FULL, p[m][i][c % 2], from), p1 = __shfl_sync(FULL, p[m][i][2 + c % 2], from);
#pragma unroll
                for (int j = 0; j < D / 8; j++) {
                    // Keeps the compiler from loading ahead more than fits into registers.
                    if (D > 64 && j % 8 == 0) __syncwarp();
                    Floats<2> b = load_pack<2>(row + 8 * j);
                    acc[m][j][0] = fmaf(p0, b.x[0], acc[m][j][0]);
                    acc[m][j][1] = fmaf(p0, b.x[1], acc[m][j][1]);
                    acc[m][j][2] = fmaf(p1, b.x[0], acc[m][j][2]);
                    acc[m][j][3] = fmaf(p1, b.x[1], acc[m][j][3]);
                }
            }
        }
    }
}

// Row, within the warp's, of elements 2h and 2h + 1 of the m-th sixteen rows; column, within a tile, of element e of the
// j-th eight columns.
__device__ inline int row_of(int m, int h) { return 16 * m + lane() / 4 + 8 * h; }
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

// Row i sees the existing columns from i − before to i + after.
struct Sight {
    int before, after, columns;

    // Whether none of m rows from `row` on sees one of n columns from `column` on, and whether each sees all.
    __device__ bool none(int row, int m, int column, int n) const {
        return column + n <= row - before || column >= row + m + after || column >= columns;
    }
    __device__ bool all(int row, int m, int column, int n) const {
        return column >= row + m - 1 - before && column + n - 1 <= row + after && column + n <= columns;
    }

    // Masks scores of the warp's rows from `row` on and columns from `column` on: unseen ones become −∞.
    template <int M, int J> __device__ void hide(float (&scores)[M][J][4], int row, int column) const {
        if (all(row, 16 * M, column, 8 * J)) return;
        int own = column + column_of(0, 0);
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int i = row + row_of(m, h), low = i - before - own, high = min(i + after, columns - 1) - own;
#pragma unroll
                for (int j = 0; j < J; j++) {
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        int c = 8 * j + e;
                        if (c < low || c > high) scores[m][j][2 * h + e] = -infinity();
                    }
                }
            }
        }
    }
};

// Streams the rows of two matrices from `begin` on, N at a time: tile i is [2, N, STRIDE] in one half of the shared
// memory, while the next one loads into the other. Optionally also two floats for each row, which are after both
// halves.
template <int N> struct Stream {
    Rows first, second;
    const float* pairs;
    int begin, tiles;
    T* shared;

    // Shared memory of that many elements, and for the pairs.
    static constexpr int SIZE_OF = 4 * N * STRIDE;

    __device__ T* tile(int i) const { return shared + i % 2 * 2 * N * STRIDE; }
    __device__ float* pairs_of(int i) const { return reinterpret_cast<float*>(shared + SIZE_OF) + i % 2 * 2 * N; }

    __device__ void load(int i) const {
        if (i >= tiles) return;
        int row = begin + i * N;
        load_tile<N>(tile(i), first, row);
        load_tile<N>(tile(i) + N * STRIDE, second, row);
        int r = threadIdx.x;
        if (pairs && r < N) copy_async<8>(pairs_of(i) + 2 * r, pairs + 2 * (size_t)(row + r), row + r < first.count);
    }

    // Calls f(first row, first matrix's part, second matrix's part, pairs) for every tile in turn; tile 0 was loaded
    // before. A tile overwrites the one before the last, so it is loaded after the barrier that ends the use of that
    // one.
    template <class F> __device__ void for_each(F f) const {
#pragma unroll 1
        for (int i = 0; i < tiles; i++) {
            copy_wait<0>();
            __syncthreads();
            load(i + 1);
            copy_commit();
            f(begin + i * N, tile(i), tile(i) + N * STRIDE, (const float*)pairs_of(i));
        }
    }
};

// Stores acc [16M, D], each of the lane's rows times its `factor`, to rows first to first + 16M − 1 of a head, written
// or added. It passes through the warp's own rows of a tile, so that stores are whole packs.
template <int M> __device__ inline void store_rows(int want, T* at, Rows like, int first, const float (&acc)[M][D / 8][4], const float (&factor)[M][2], T* tile) {
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                Floats<2> pair = {acc[m][j][2 * h] * factor[m][h], acc[m][j][2 * h + 1] * factor[m][h]};
                store_pack<2>(tile + row_of(m, h) * STRIDE + column_of(j, 0), pair);
            }
        }
    }
    __syncwarp();
    constexpr int PACKS = D / WIDE, STEP = WARP / PACKS;
    int r = lane() / PACKS, c = lane() % PACKS * WIDE, left = like.count - first - r;
    T* to = at + (size_t)(first + r) * like.stride + c;
    tile += r * STRIDE + c;
    for (int i = 0; i < 16 * M && i < left; i += STEP) {
        if (like.width % WIDE == 0) {
            if (c < like.width) add_or_write_pack<WIDE>(want, to, load_pack<WIDE>(tile));
        } else {
            for (int j = 0; j < WIDE && c + j < like.width; j++) add_or_write(want, to + j, load(tile + j));
        }
        to += (size_t)STEP * like.stride;
        tile += STEP * STRIDE;
    }
}

// The online softmax of a lane's rows.
template <int M> struct Softmax {
    // Exponentials are 2^(scale·score + shift); this lane has its share of their sum.
    float scale, shift[M][2], sum[M][2];

    // Scores are multiplied by `by` before exp.
    __device__ explicit Softmax(float by) : scale(by * LOG2_E) {
#pragma unroll
        for (int i = 0; i < 2 * M; i++) shift[i / 2][i % 2] = 3e38f, sum[i / 2][i % 2] = 0;
    }

    // Turns scores into exponentials. If they would grow large, a row's shift is lowered to fit its largest. Then
    // rescale(m, h, factor) multiplies the sums over earlier tiles; this is rarely needed.
    template <int J, class F> __device__ void step(float (&scores)[M][J][4], F rescale) {
        constexpr float LARGE = 8;
        float most[M][2];
        bool grown = false;
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                most[m][h] = scores[m][0][2 * h];
#pragma unroll
                for (int i = 1; i < 2 * J; i++) most[m][h] = fmaxf(most[m][h], scores[m][i / 2][2 * h + i % 2]);
                grown |= fmaf(most[m][h], scale, shift[m][h]) > LARGE;
            }
        }
        if (__any_sync(FULL, grown)) {
#pragma unroll
            for (int m = 0; m < M; m++) {
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float lowered = fminf(row_max(most[m][h]) * -scale, shift[m][h]), factor = exp2_approx(lowered - shift[m][h]);
                    shift[m][h] = lowered;
                    sum[m][h] *= factor;
                    rescale(m, h, factor);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < J; j++) {
#pragma unroll
            for (int m = 0; m < M; m++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    scores[m][j][e] = exp2_approx(fmaf(scores[m][j][e], scale, shift[m][e / 2]));
                    sum[m][e / 2] += scores[m][j][e];
                }
            }
        }
    }

    // At the end: the sum of a whole row, and the base-2 logarithm of the sum of exp(by·score).
    __device__ float total(int m, int h) const { return row_sum(sum[m][h]); }
    __device__ float log(int m, int h, float total) const { return log2f(total) - shift[m][h]; }
};

// Computes y [16M, D] of the warp's queries, from `query` on, and lse of the lane's rows. Keys and values are streamed,
// C at a time; values follow keys. Rows without a query are unused.
template <int C, int M, int N>
__device__ inline void attend(const Left<M>& queries, Stream<N> stream, Sight sight, int query, float scale, float (&y)[M][D / 8][4], float (&inverse)[M][2], float (&lse)[M][2]) {
    Softmax<M> softmax(scale);
    stream.for_each([&](int first, const T* keys, const T* values, const float*) {
#pragma unroll 1
        for (const T* end = values; keys < end; first += C, keys += C * STRIDE) {
            if (sight.none(query, 16 * M, first, C)) continue;
            float p[M][C / 8][4] = {};
            multiply_transposed(p, queries, keys);
            sight.hide(p, query, first);
            softmax.step(p, [&](int m, int h, float factor) {
#pragma unroll
                for (int j = 0; j < D / 8; j++) y[m][j][2 * h] *= factor, y[m][j][2 * h + 1] *= factor;
            });
            multiply(y, p, keys + N * STRIDE);
        }
    });
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = softmax.total(m, h);
            inverse[m][h] = 1.0f / total;
            lse[m][h] = softmax.log(m, h, total) / LOG2_E;
        }
    }
}

// Turns scores into probabilities, and their gradient d_p into the gradient of the scores, d_s, without its factor
// `scale`: p = 2^(score·scale·log2 e − lse), lse to base 2, d_s = p·(d_p − delta). One number of a tile.
__device__ inline void backward_softmax(float scale, float lse, float delta, float& score, float& d_p) {
    score = exp2_approx(fmaf(score, scale * LOG2_E, -lse));
    d_p = score * (d_p - delta);
}

// d_q [16M, D] += d_s · keys for C keys, from `key` on, and the warp's queries, from `query` on.
template <int C, int M>
__device__ inline void query_gradient(const Left<M>& queries, const Left<M>& d_y, const T* keys, const T* values, Sight sight, int query, int key, float scale, const float (&lse)[M][2], const float (&delta)[M][2], float (&d_q)[M][D / 8][4]) {
    float s[M][C / 8][4] = {}, d_s[M][C / 8][4] = {};
    multiply_transposed(s, queries, keys);
    multiply_transposed(d_s, d_y, values);
    sight.hide(s, query, key);
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int j = 0; j < C / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) backward_softmax(scale, lse[m][e / 2], delta[m][e / 2], s[m][j][e], d_s[m][j][e]);
        }
    }
    multiply(d_q, d_s, keys);
}

// d_k [16M, D] += d_sᵀ · queries and d_v [16M, D] += pᵀ · d_y for C queries, from `query` on, and the warp's keys, from
// `key` on. `pairs` has lse and delta of each query. Beyond the last query d_y and delta are zero, so these queries add
// nothing.
template <int C, int M>
__device__ inline void key_gradient(const Left<M>& keys, const Left<M>& values, const T* queries, const T* d_y, const float* pairs, Sight sight, int key, int query, float scale, float (&d_k)[M][D / 8][4], float (&d_v)[M][D / 8][4]) {
    float p[M][C / 8][4] = {}, d_s[M][C / 8][4] = {};
    multiply_transposed(p, keys, queries);
    multiply_transposed(d_s, values, d_y);
    sight.hide(p, key, query);
#pragma unroll
    for (int j = 0; j < C / 8; j++) {
        Floats<4> both = load_pack<4>(pairs + 2 * column_of(j, 0));
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int e = 0; e < 4; e++) backward_softmax(scale, both.x[e % 2 * 2], both.x[e % 2 * 2 + 1], p[m][j][e], d_s[m][j][e]);
        }
    }
    multiply(d_v, p, d_y);
    multiply(d_k, d_s, queries);
}
