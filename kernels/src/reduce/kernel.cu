// Reduces x [outer, n, inner] over n, in one launch or two: the second reduces the results of pieces of the axis. All kernels
// are memory-bound; the second launch takes a few microseconds.
#include "common.cuh"

// A sum so far, or the largest number and its place. A NaN is larger than any number; of equals the first is taken.
template <bool MAX> struct Fold {
    float value = MAX ? -infinity() : 0.0f;
    int at = 0x7fffffff;

    __device__ void take(float x, int place) {
        if (!MAX) {
            value += x;
            return;
        }
        bool both = x != x && value != value;
        bool larger = !both && (x > value || x != x), equal = both || x == value;
        if (larger || (equal && place < at)) {
            value = x;
            at = place;
        }
    }
};

// Over the warp, in every lane.
template <bool MAX> __device__ Fold<MAX> warp_fold(Fold<MAX> fold) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        float value = __shfl_xor_sync(FULL, fold.value, step);
        fold.take(value, MAX ? __shfl_xor_sync(FULL, fold.at, step) : 0);
    }
    return fold;
}

// `count` numbers of x, thread `rank` of `threads`. Their places follow `first`, unless `given` has them.
template <bool MAX, int N, class S>
__device__ Fold<MAX> fold_row(const S* x, const int* given, int first, int count, int rank, int threads) {
    Fold<MAX> fold;
    for (int i = rank * N; i < count; i += threads * N) {
        if (i + N <= count) {
            Floats<N> v = load_pack<N>(x + i);
#pragma unroll
            for (int j = 0; j < N; j++) fold.take(v.x[j], given ? given[i + j] : first + i + j);
        } else {
            for (int j = i; j < count; j++) fold.take(load(x + j), given ? given[j] : first + j);
        }
    }
    return fold;
}

// Rows of n adjacent numbers: a row's piece has one warp, or all warps of a block if `team` is not 1.
template <bool MAX, class S, class R>
__device__ void fold_rows(const S* x, const int* given, float scale, R* y, int* at, int rows, int n, int per_piece, int team) {
    __shared__ float values[WARP];
    __shared__ int places[WARP];
    int pieces = (n + per_piece - 1) / per_piece;
    int result = team == 1 ? blockIdx.x * (blockDim.x / WARP) + warp() : blockIdx.x;
    // No block is cut if its warps share a row.
    if (result >= rows * pieces) return;
    int row = result / pieces, first = result % pieces * per_piece, count = min(per_piece, n - first);
    size_t from = (size_t)row * n + first;
    const int* known = given ? given + from : nullptr;
    int rank = team == 1 ? lane() : threadIdx.x, threads = team * WARP;
    constexpr int N = 16 / sizeof(S);
    Fold<MAX> fold;
    // Pieces begin at a multiple of N.
    if (rows == 1 || n % N == 0) fold = fold_row<MAX, N>(x + from, known, first, count, rank, threads);
    else fold = fold_row<MAX, 1>(x + from, known, first, count, rank, threads);
    fold = warp_fold(fold);
    if (team > 1) {
        if (lane() == 0) {
            values[warp()] = fold.value;
            places[warp()] = fold.at;
        }
        __syncthreads();
        fold = Fold<MAX>();
        for (int w = 0; w < team; w++) fold.take(values[w], places[w]);
    }
    if (rank != 0) return;
    store(y + result, fold.value * scale);
    if (MAX) at[result] = fold.at;
}

constexpr int WARPS = 8;

// Columns: a block has a piece of 32 packs of adjacent ones, and its warps take rows in turns.
template <bool MAX, int N, class S, class R>
__device__ void fold_columns(const S* x, const int* given, float scale, R* y, int* at, int n, int inner, int per_piece) {
    __shared__ float values[WARPS][WARP * N];
    __shared__ int places[WARPS][WARP * N];
    int blocks = (inner + WARP * N - 1) / (WARP * N), pieces = (n + per_piece - 1) / per_piece;
    int column = (blockIdx.x % blocks * WARP + lane()) * N, piece = blockIdx.x / blocks;
    int first = piece % pieces * per_piece, end = min(first + per_piece, n);
    bool live = column < inner;
    Fold<MAX> fold[N];
    if (live) {
        size_t sample = (size_t)(piece / pieces) * n;
        for (int k = first + warp(); k < end; k += WARPS) {
            size_t from = (sample + k) * inner + column;
            Floats<N> v = load_pack<N>(x + from);
#pragma unroll
            for (int j = 0; j < N; j++) fold[j].take(v.x[j], given ? given[from + j] : k);
        }
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        values[warp()][j * WARP + lane()] = fold[j].value;
        places[warp()][j * WARP + lane()] = fold[j].at;
    }
    __syncthreads();
    if (warp() != 0 || !live) return;
    size_t to = (size_t)piece * inner + column;
#pragma unroll
    for (int j = 0; j < N; j++) {
        for (int w = 1; w < WARPS; w++) fold[j].take(values[w][j * WARP + lane()], places[w][j * WARP + lane()]);
        store(y + to + j, fold[j].value * scale);
        if (MAX) at[to + j] = fold[j].at;
    }
}

template <bool MAX, class S, class R>
__device__ void reduce(const S* x, const int* given, float scale, R* y, int* at, int outer, int n, int inner, int per_piece, int team) {
    constexpr int N = 16 / sizeof(S);
    if (inner == 1) fold_rows<MAX>(x, given, scale, y, at, outer, n, per_piece, team);
    else if (inner % N == 0) fold_columns<MAX, N>(x, given, scale, y, at, n, inner, per_piece);
    else fold_columns<MAX, 1>(x, given, scale, y, at, n, inner, per_piece);
}

// x [outer, n, inner] → y [outer, inner], `scale` times the sum, or the largest and its place `at`.
extern "C" __global__ void __launch_bounds__(256) whole(const T* x, int largest, float scale, T* y, int* at, int outer, int n, int inner, int team) {
    if (largest) reduce<true>(x, nullptr, scale, y, at, outer, n, inner, n, team);
    else reduce<false>(x, nullptr, scale, y, at, outer, n, inner, n, team);
}

// x [outer, n, inner] → y, at [outer, pieces, inner].
extern "C" __global__ void __launch_bounds__(256) pieces(const T* x, int largest, float* y, int* at, int outer, int n, int inner, int per_piece, int team) {
    if (largest) reduce<true>(x, nullptr, 1.0f, y, at, outer, n, inner, per_piece, team);
    else reduce<false>(x, nullptr, 1.0f, y, at, outer, n, inner, per_piece, team);
}

// Results of pieces, x and their places `given` [outer, n, inner] → y, at [outer, inner].
extern "C" __global__ void __launch_bounds__(256) combine(const float* x, const int* given, int largest, float scale, T* y, int* at, int outer, int n, int inner, int team) {
    if (largest) reduce<true>(x, given, scale, y, at, outer, n, inner, n, team);
    else reduce<false>(x, nullptr, scale, y, at, outer, n, inner, n, team);
}

// Calls f(Width, i, result) for this thread's elements of x [outer, n, inner], `count` in all. With N adjacent elements
// from i on, `result` is the first of N adjacent results, or the only one if inner = 1.
template <class F> __device__ void for_my_results(int count, int n, int inner, F f) {
    int row = inner > 1 ? inner : n < count ? n : 0;
    for_my_elements(count, row, [&](auto width, int i) { f(width, i, i / inner / n * inner + i % inner); });
}

// d_y [outer, inner] → d_x [outer, n, inner] = scale · d_y.
extern "C" __global__ void spread(const T* d_y, float scale, int want, T* d_x, int count, int n, int inner) {
    for_my_results(count, n, inner, [&](auto width, int i, int result) {
        constexpr int N = decltype(width)::size;
        Floats<N> d;
        if (inner > 1) {
            d = load_pack<N>(d_y + result);
        } else {
#pragma unroll
            for (int j = 0; j < N; j++) d.x[j] = load(d_y + result);
        }
#pragma unroll
        for (int j = 0; j < N; j++) d.x[j] *= scale;
        add_or_write_pack<N>(want, d_x + i, d);
    });
}

// d_y, at [outer, inner] → d_x [outer, n, inner]: d_y at its place, zero elsewhere.
extern "C" __global__ void place(const T* d_y, const int* at, T* d_x, int count, int n, int inner) {
    for_my_results(count, n, inner, [&](auto width, int i, int result) {
        constexpr int N = decltype(width)::size;
        Floats<N> d;
#pragma unroll
        for (int j = 0; j < N; j++) {
            int own = inner > 1 ? result + j : result, k = (inner > 1 ? i / inner : i + j) % n;
            d.x[j] = at[own] == k ? load(d_y + own) : 0.0f;
        }
        store_pack<N>(d_x + i, d);
    });
}

// d_x += d_y at its place. A thread per result.
extern "C" __global__ void add_at(const T* d_y, const int* at, T* d_x, int results, int n, int inner) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= results) return;
    add_or_write(ADD, d_x + ((size_t)(i / inner) * n + at[i]) * inner + i % inner, load(d_y + i));
}
