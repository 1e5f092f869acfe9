// Softmax, its logarithm and cross-entropy of rows of d numbers. A row has one warp, or all warps of a block if `team` is not
// 1, and is read twice, the second time from a cache. All kernels are memory-bound.
#include "common.cuh"

// This thread's row, and its place among the threads of the row.
struct Place {
    int row, rank, threads;
};

__device__ inline Place my_place(int team) {
    if (team == 1) return {(int)(blockIdx.x * (blockDim.x / WARP)) + warp(), lane(), WARP};
    return {(int)blockIdx.x, (int)threadIdx.x, (int)blockDim.x};
}

__device__ inline float team_sum(float x, int team, float* shared) { return team == 1 ? warp_sum(x) : block_sum(x, shared); }
__device__ inline float team_max(float x, int team, float* shared) { return team == 1 ? warp_max(x) : block_max(x, shared); }

// The largest number of a row, and Σ exp(x − largest).
struct Total {
    float largest, sum;
};

// What a number is relative to: exponentials of −∞ alone are zero.
__device__ inline float shift_of(float largest) { return largest == -infinity() ? 0.0f : largest; }

template <int N> __device__ Total total_of(const T* x, int d, Place place, int team, float* shared) {
    Total own = {-infinity(), 0.0f};
    for (int i = place.rank * N; i < d; i += place.threads * N) {
        Floats<N> v = load_pack<N>(x + i);
        float before = own.largest;
#pragma unroll
        for (int j = 0; j < N; j++) own.largest = fmaxf(own.largest, v.x[j]);
        float shift = shift_of(own.largest);
        own.sum *= expf(before - shift);
#pragma unroll
        for (int j = 0; j < N; j++) own.sum += expf(v.x[j] - shift);
    }
    float largest = team_max(own.largest, team, shared);
    return {largest, team_sum(own.sum * expf(own.largest - shift_of(largest)), team, shared)};
}

template <int N>
__device__ void forward_row(const T* x, int log, T* y, int d, Place place, int team, float* shared) {
    Total total = total_of<N>(x, d, place, team, shared);
    float log_sum = logf(total.sum), factor = 1.0f / total.sum;
    for (int i = place.rank * N; i < d; i += place.threads * N) {
        Floats<N> v = load_pack<N>(x + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float above = v.x[j] - total.largest;
            v.x[j] = log ? above - log_sum : expf(above) * factor;
        }
        store_pack<N>(y + i, v);
    }
}

// x → y, both [rows, d].
extern "C" __global__ void __launch_bounds__(256) forward(const T* x, int log, T* y, int rows, int d, int team) {
    __shared__ float shared[WARP];
    Place place = my_place(team);
    // No block is cut if its warps share a row.
    if (place.row >= rows) return;
    size_t at = (size_t)place.row * d;
    if (d % WIDE == 0) forward_row<WIDE>(x + at, log, y + at, d, place, team, shared);
    else forward_row<1>(x + at, log, y + at, d, place, team, shared);
}

template <int N>
__device__ void backward_row(const T* y, const T* d_y, int log, int want, T* d_x, int d, Place place, int team, float* shared) {
    float sum = 0, all = 0;
    for (int i = place.rank * N; i < d; i += place.threads * N) {
        Floats<N> dy = load_pack<N>(d_y + i), v = {};
        if (!log) v = load_pack<N>(y + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            sum += log ? dy.x[j] : v.x[j] * dy.x[j];
            all += v.x[j];
        }
    }
    sum = team_sum(sum, team, shared);
    // A row that is stored as bf16 does not sum to one, and d_y − sum may cancel.
    if (!log) sum /= team_sum(all, team, shared);
    for (int i = place.rank * N; i < d; i += place.threads * N) {
        Floats<N> v = load_pack<N>(y + i), dy = load_pack<N>(d_y + i);
#pragma unroll
        for (int j = 0; j < N; j++) v.x[j] = log ? fmaf(-expf(v.x[j]), sum, dy.x[j]) : v.x[j] * (dy.x[j] - sum);
        add_or_write_pack<N>(want, d_x + i, v);
    }
}

// y, d_y → d_x, all [rows, d].
extern "C" __global__ void __launch_bounds__(256) backward(const T* y, const T* d_y, int log, int want, T* d_x, int rows, int d, int team) {
    __shared__ float shared[WARP];
    Place place = my_place(team);
    if (place.row >= rows) return;
    size_t at = (size_t)place.row * d;
    if (d % WIDE == 0) backward_row<WIDE>(y + at, d_y + at, log, want, d_x + at, d, place, team, shared);
    else backward_row<1>(y + at, d_y + at, log, want, d_x + at, d, place, team, shared);
}

// logits [rows, vocab] → nll, lse [rows], zero where the target is −1, NaN where it is not in the vocabulary.
extern "C" __global__ void __launch_bounds__(256) losses(const T* logits, const int* targets, float* nll, float* lse, int rows, int vocab, int team) {
    __shared__ float shared[WARP];
    Place place = my_place(team);
    if (place.row >= rows) return;
    const T* x = logits + (size_t)place.row * vocab;
    int target = targets[place.row];
    Total total = {0.0f, 1.0f};
    if (target != -1) {
        total = vocab % WIDE == 0 ? total_of<WIDE>(x, vocab, place, team, shared) : total_of<1>(x, vocab, place, team, shared);
    }
    if (place.rank != 0) return;
    float log_sum = logf(total.sum), loss = not_a_number();
    // Not lse − logit, which cancels if the model is confident.
    if (target >= 0 && target < vocab) loss = log_sum + (total.largest - load(x + target));
    nll[place.row] = target == -1 ? 0.0f : loss;
    lse[place.row] = total.largest + log_sum;
}

// d_logits = d_nll · (exp(logits − lse) − [v = target]), `numbers` = rows · vocab; zero where the target is −1, NaN where it is
// not in the vocabulary.
extern "C" __global__ void gradient(const T* logits, const int* targets, const float* nll, const float* lse, const float* d_nll, int want, T* d_logits, int numbers, int vocab) {
    for_my_elements(numbers, vocab, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int row = i / vocab, column = i % vocab, target = targets[row];
        Floats<N> v = {};
        if (target != -1) {
            float a = lse[row], b = 0.0f, loss = nll[row];
            // If all logits are large, lse has lost digits that nll has not.
            if (loss < fabsf(a)) a = load(logits + (size_t)row * vocab + target), b = loss;
            // NaN if there is no loss.
            float g = loss != loss ? loss : d_nll[row];
            v = load_pack<N>(logits + i);
#pragma unroll
            for (int j = 0; j < N; j++) v.x[j] = g * (expf(v.x[j] - a - b) - (column + j == target ? 1.0f : 0.0f));
        }
        add_or_write_pack<N>(want, d_logits + i, v);
    });
}
