// Computes losses and the gradient of the logits, in place. The logits of a chunk of n tokens have a row for each entry
// of the vocabulary, [vocab, n]. So a row is as long as the chunk, and the library's products find it aligned for any
// vocabulary. All kernels are memory-bound.
#include "common.cuh"

// Rows that a thread loads before it computes.
constexpr int AT_ONCE = 4;

// Calls f(v, row, step, rows) for the rows of this thread in the block's slab: v has N adjacent tokens of `rows` ≤
// AT_ONCE rows, from `row` on and `step` apart. The block's warps take rows in turns.
template <int N, class L, class F>
__device__ void for_my_rows(L* logits, int vocab, int n, int per_block, int column, F f) {
    int warps = blockDim.x / WARP, end = min(((int)blockIdx.x + 1) * per_block, vocab);
    for (int row = blockIdx.x * per_block + warp(); row < end; row += AT_ONCE * warps) {
        Floats<N> v[AT_ONCE];
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) {
            if (row + r * warps < end) v[r] = load_pack<N>(logits + (size_t)(row + r * warps) * n + column);
        }
        f(v, row, warps, (end - row + warps - 1) / warps);
    }
}

// For N adjacent tokens of a slab of the vocabulary: the largest logit and the sum of exp(logit − largest), NaN if a
// logit is not finite. `shared` has 2·N·32 floats for each warp.
template <int N>
__device__ void sum_slab(const T* logits, int vocab, int n, int per_block, float* most, float* sums, float* shared) {
    int column = (blockIdx.y * WARP + lane()) * N, warps = blockDim.x / WARP;
    bool live = column < n;
    Floats<N> largest, sum = {};
#pragma unroll
    for (int j = 0; j < N; j++) largest.x[j] = -infinity();
    if (live) {
        for_my_rows<N>(logits, vocab, n, per_block, column, [&](const Floats<N>(&v)[AT_ONCE], int, int, int rows) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                float before = largest.x[j];
#pragma unroll
                for (int r = 0; r < AT_ONCE; r++) {
                    if (r < rows) largest.x[j] = fmaxf(largest.x[j], v[r].x[j]);
                }
                sum.x[j] *= exp2_approx((before - largest.x[j]) * LOG2_E);
                // The maximum may lose a NaN, and exp turns −∞ into zero; 0·v is NaN in both cases.
#pragma unroll
                for (int r = 0; r < AT_ONCE; r++) {
                    if (r < rows) sum.x[j] += fmaf(v[r].x[j], 0.0f, exp2_approx((v[r].x[j] - largest.x[j]) * LOG2_E));
                }
            }
        });
    }
    float* others = shared + warps * WARP * N;
    store_pack<N>(shared + threadIdx.x * N, largest);
    store_pack<N>(others + threadIdx.x * N, sum);
    __syncthreads();
    if (warp() != 0 || !live) return;
    for (int w = 1; w < warps; w++) {
        Floats<N> other = load_pack<N>(shared + (w * WARP + lane()) * N);
#pragma unroll
        for (int j = 0; j < N; j++) largest.x[j] = fmaxf(largest.x[j], other.x[j]);
    }
    sum = {};
    for (int w = 0; w < warps; w++) {
        Floats<N> own = load_pack<N>(shared + (w * WARP + lane()) * N), part = load_pack<N>(others + (w * WARP + lane()) * N);
        // A warp without a row has −∞ and zero.
#pragma unroll
        for (int j = 0; j < N; j++) sum.x[j] = fmaf(part.x[j], expf(own.x[j] - largest.x[j]), sum.x[j]);
    }
    store_pack<N>(most + (size_t)blockIdx.x * n + column, largest);
    store_pack<N>(sums + (size_t)blockIdx.x * n + column, sum);
}

// logits [vocab, n] → most, sums [slabs, n]. Blocks in x have `per_block` entries of the vocabulary, blocks in y 32 packs
// of tokens.
extern "C" __global__ void __launch_bounds__(256) sum_slabs(const T* logits, int vocab, int n, int per_block, float* most, float* sums) {
    SHARED(float, shared);
    if (n % WIDE == 0) sum_slab<WIDE>(logits, vocab, n, per_block, most, sums, shared);
    else sum_slab<1>(logits, vocab, n, per_block, most, sums, shared);
}

// most, sums [slabs, n] → lse, nll [n], zero where the target is −1, NaN where it is not in the vocabulary. A lane per token;
// the block's 32 warps take slabs in turns.
extern "C" __global__ void __launch_bounds__(1024) losses(const T* logits, const int* targets, int vocab, int n, const float* most, const float* sums, int slabs, float* nll, float* lse) {
    __shared__ float shared[2][WARP][WARP];
    int token = blockIdx.x * WARP + lane();
    bool live = token < n;
    float largest = -infinity(), sum = 0;
#pragma unroll 4
    for (int s = warp(); live && s < slabs; s += WARP) {
        float own = most[(size_t)s * n + token], both = fmaxf(largest, own);
        sum = fmaf(sums[(size_t)s * n + token], expf(own - both), sum * expf(largest - both));
        largest = both;
    }
    shared[0][warp()][lane()] = largest;
    shared[1][warp()][lane()] = sum;
    __syncthreads();
    if (warp() != 0 || !live) return;
    for (int w = 1; w < WARP; w++) largest = fmaxf(largest, shared[0][w][lane()]);
    sum = 0;
    for (int w = 0; w < WARP; w++) sum = fmaf(shared[1][w][lane()], expf(shared[0][w][lane()] - largest), sum);
    int target = targets[token];
    if (target == -1) {
        nll[token] = lse[token] = 0;
        return;
    }
    float log_sum = logf(sum);
    bool known = target >= 0 && target < vocab;
    lse[token] = largest + log_sum;
    // Not lse − logit, which cancels if the model is confident.
    nll[token] = known ? log_sum + (largest - load(logits + (size_t)target * n + token)) : not_a_number();
}

template <int N>
__device__ void gradient_slab(T* logits, const int* targets, const float* lse, const float* scale, int each, float d_loss, int vocab, int n, int per_block) {
    int column = (blockIdx.y * WARP + lane()) * N;
    if (column >= n) return;
    int target[N];
    Floats<N> divisor = {}, g;
    if (lse) divisor = load_pack<N>(lse + column);
#pragma unroll
    for (int j = 0; j < N; j++) {
        target[j] = targets[column + j];
        g.x[j] = scale[(column + j) * each] * d_loss;
        if (!lse) divisor.x[j] = logf(vocab);
    }
    for_my_rows<N>(logits, vocab, n, per_block, column, [&](Floats<N>(&v)[AT_ONCE], int row, int step, int rows) {
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) {
            if (r >= rows) break;
#pragma unroll
            for (int j = 0; j < N; j++) {
                float p = exp2_approx((v[r].x[j] - divisor.x[j]) * LOG2_E);
                v[r].x[j] = target[j] == -1 ? 0.0f : g.x[j] * (row + r * step == target[j] ? p - 1.0f : p);
            }
            store_pack<N>(logits + (size_t)(row + r * step) * n + column, v[r]);
        }
    });
}

// logits [vocab, n] → their gradient g·(exp(logit − divisor) − [row = target]), in place; zero where the target is −1.
// g = scale · d_loss; 1 for d_loss if that is null. `each`: the step from a token's scale to the next one's, 0 or 1. The divisor is lse,
// or log(vocab) if that is null. Blocks as for `sum_slabs`.
extern "C" __global__ void __launch_bounds__(256) gradient(T* logits, const int* targets, const float* lse, const float* scale, int each, const float* d_loss, int vocab, int n, int per_block) {
    float given = d_loss ? d_loss[0] : 1.0f;
    if (n % WIDE == 0) gradient_slab<WIDE>(logits, targets, lse, scale, each, given, vocab, n, per_block);
    else gradient_slab<1>(logits, targets, lse, scale, each, given, vocab, n, per_block);
}

// The same in one pass over the logits, if only the gradient of the hidden states is wanted. The maximum would need a
// separate pass, so the target's logit is subtracted instead. With u = UNIT · exp(logit −
// logit[target]) but 0 at the target, S = Σ u and Z = S + UNIT:
//   nll = log(1 + S / UNIT)     d_hidden = g · (u·table / Z − S / Z · table[target])
// A logit 65 nats or more below the target's counts as zero. A logit 88 nats or more above it counts as 88 above, so
// that no sum overflows a float. So an nll above 88 is reported as 88 to 88 + log(vocab), and the gradient treats all
// such logits as equal. (`losses` and `gradient` have no such limits.)
constexpr float UNIT = 1.0f / (1 << 16) / (1 << 16), LOG_UNIT = -22.1807098f, MOST = 127.0f;

template <int N>
__device__ void exponential_slab(T* logits, const int* targets, int vocab, int n, int per_block, float* sums, float* shared) {
    int column = (blockIdx.y * WARP + lane()) * N, warps = blockDim.x / WARP;
    bool live = column < n;
    Floats<N> sum = {};
    if (live) {
        int target[N];
        Floats<N> own;
#pragma unroll
        for (int j = 0; j < N; j++) {
            int id = targets[column + j];
            target[j] = id < vocab ? id : -1;
            // A token without a target contributes nothing.
            own.x[j] = target[j] < 0 ? infinity() : load(logits + (size_t)id * n + column + j);
        }
        for_my_rows<N>(logits, vocab, n, per_block, column, [&](Floats<N>(&v)[AT_ONCE], int row, int step, int rows) {
#pragma unroll
            for (int r = 0; r < AT_ONCE; r++) {
                if (r >= rows) break;
                T* at = logits + (size_t)(row + r * step) * n + column;
                int mine = 0;  // a bit for each token whose target this row is
#pragma unroll
                for (int j = 0; j < N; j++) {
                    float logit = v[r].x[j], u = UNIT * exp2_approx(fminf((logit - own.x[j]) * LOG2_E, MOST));
                    bool other = row + r * step != target[j];
                    mine |= other ? 0 : 1 << j;
                    v[r].x[j] = u;
                    // NaN where a logit is not finite.
                    sum.x[j] += other ? fmaf(logit, 0.0f, u) : 0.0f;
                }
                // Other blocks still read a target's logit, so no thread may write there; `close_sums` sets it to zero.
                if (mine == 0) store_pack<N>(at, v[r]);
                else {
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        if (!(mine >> j & 1)) store(at + j, v[r].x[j]);
                    }
                }
            }
        });
    }
    store_pack<N>(shared + threadIdx.x * N, sum);
    __syncthreads();
    if (warp() != 0 || !live) return;
    for (int w = 1; w < warps; w++) {
        Floats<N> part = load_pack<N>(shared + (w * WARP + lane()) * N);
#pragma unroll
        for (int j = 0; j < N; j++) sum.x[j] += part.x[j];
    }
    store_pack<N>(sums + (size_t)blockIdx.x * n + column, sum);
}

// logits [vocab, n] → u, in place, except the targets' logits; sums [slabs, n] of it. Blocks as for `sum_slabs`.
extern "C" __global__ void __launch_bounds__(256) exponentials(T* logits, const int* targets, int vocab, int n, int per_block, float* sums) {
    SHARED(float, shared);
    if (n % WIDE == 0) exponential_slab<WIDE>(logits, targets, vocab, n, per_block, sums, shared);
    else exponential_slab<1>(logits, targets, vocab, n, per_block, sums, shared);
}

// sums [slabs, n] and the targets' logits, which become zero → lse, nll [n], zero where the target is −1, NaN where it is not
// in the vocabulary; factors [2, n] with d_hidden = factors[0]·(u·table) − factors[1]·table[target].
extern "C" __global__ void __launch_bounds__(1024) close_sums(T* logits, const int* targets, int vocab, int n, const float* sums, int slabs, const float* scale, float* nll, float* lse, float* factors) {
    __shared__ float shared[WARP][WARP];
    int token = blockIdx.x * WARP + lane();
    bool live = token < n;
    float sum = 0;
#pragma unroll 4
    for (int s = warp(); live && s < slabs; s += WARP) sum += sums[(size_t)s * n + token];
    shared[warp()][lane()] = sum;
    __syncthreads();
    if (warp() != 0 || !live) return;
    for (int w = 1; w < WARP; w++) sum += shared[w][lane()];
    int target = targets[token];
    if (target == -1) {
        nll[token] = lse[token] = factors[token] = factors[n + token] = 0;
        return;
    }
    if (target < 0 || target >= vocab) {
        nll[token] = lse[token] = factors[token] = factors[n + token] = not_a_number();
        return;
    }
    T* at = logits + (size_t)target * n + token;
    float logit = load(at);
    // NaN where the target's logit is not finite.
    sum = fmaf(logit, 0.0f, sum);
    float total = sum + UNIT, loss = sum < 1.0f ? log1pf(sum / UNIT) : logf(sum) - LOG_UNIT;
    nll[token] = loss;
    lse[token] = logit + loss;
    factors[token] = scale[0] / total;
    factors[n + token] = scale[0] * (sum / total);
    store(at, 0.0f);
}

// summed [n, d] = u·table, in float → d_hidden [n, d], written or added; `numbers` = n·d.
extern "C" __global__ void combine(const float* summed, const float* factors, const T* table, const int* targets, int vocab, int want, T* d_hidden, int numbers, int n, int d) {
    for_my_elements(numbers, d, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int token = i / d, target = targets[token];
        float factor = factors[token], pull = factors[n + token];
        Floats<N> v = load_pack<N>(summed + i), own = {};
        if (target >= 0 && target < vocab) own = load_pack<N>(table + (size_t)target * d + i % d);
#pragma unroll
        for (int j = 0; j < N; j++) v.x[j] = fmaf(factor, v.x[j], -pull * own.x[j]);
        add_or_write_pack<N>(want, d_hidden + i, v);
    });
}

// loss = Σ scale · cost over the tokens that are not ignored: nll, plus Z − 1 − log Z with log Z = lse − log(vocab) if `scores`. One
// block. `each` as for `gradient`.
extern "C" __global__ void __launch_bounds__(1024) add_up(const float* nll, const float* lse, const int* targets, int n, int vocab, int scores, const float* scale, int each, float* loss) {
    __shared__ float shared[WARP];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        if (targets[i] == -1) continue;
        float cost = nll[i], log_z = lse[i] - logf(vocab);
        if (scores) cost += expm1f(log_z) - log_z;
        sum += each ? scale[i] * cost : cost;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *loss = each ? sum : scale[0] * sum;
}
