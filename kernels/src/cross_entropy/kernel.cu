// From logits to losses and to the gradient of the logits, in place. The logits of a chunk of n tokens stand with a row per
// entry of the vocabulary, [vocab, n]: rows are then as long as the chunk, so that the library's products find them aligned
// whatever the vocabulary is. The second level cache bounds all kernels, if the chunk's logits fit into it.
#include "common.cuh"

// N neighbouring tokens of a slab of the vocabulary: their largest logit and the sum of exp(logit − largest), NaN where a
// logit is not finite. The block's warps take rows in turns; `shared` has N·32 floats for each.
template <int N>
__device__ void sum_slab(const T* logits, int vocab, int n, int rows, float* most, float* sums, float* shared) {
    int column = (blockIdx.y * WARP + lane()) * N, warps = blockDim.x / WARP;
    bool live = column < n;
    int first = blockIdx.x * rows, end = min(first + rows, vocab);
    Floats<N> largest, sum = {};
#pragma unroll
    for (int j = 0; j < N; j++) largest.x[j] = -infinity();
    for (int row = first + warp(); live && row < end; row += warps) {
        Floats<N> v = load_pack<N>(logits + (size_t)row * n + column);
#pragma unroll
        for (int j = 0; j < N; j++) largest.x[j] = fmaxf(largest.x[j], v.x[j]);
    }
    store_pack<N>(shared + (warp() * WARP + lane()) * N, largest);
    __syncthreads();
    for (int w = 0; w < warps; w++) {
        Floats<N> other = load_pack<N>(shared + (w * WARP + lane()) * N);
#pragma unroll
        for (int j = 0; j < N; j++) largest.x[j] = fmaxf(largest.x[j], other.x[j]);
    }
    __syncthreads();
    for (int row = first + warp(); live && row < end; row += warps) {
        Floats<N> v = load_pack<N>(logits + (size_t)row * n + column);
        // The maximum may lose a NaN, and an exp turn −∞ into an honest zero: 0·v is NaN then.
#pragma unroll
        for (int j = 0; j < N; j++) sum.x[j] += fmaf(v.x[j], 0.0f, expf(v.x[j] - largest.x[j]));
    }
    store_pack<N>(shared + (warp() * WARP + lane()) * N, sum);
    __syncthreads();
    if (warp() != 0 || !live) return;
    for (int w = 1; w < warps; w++) {
        Floats<N> other = load_pack<N>(shared + (w * WARP + lane()) * N);
#pragma unroll
        for (int j = 0; j < N; j++) sum.x[j] += other.x[j];
    }
    store_pack<N>(most + (size_t)blockIdx.x * n + column, largest);
    store_pack<N>(sums + (size_t)blockIdx.x * n + column, sum);
}

// logits [vocab, n] → most, sums [slabs, n]. Blocks in x have `rows` entries of the vocabulary, blocks in y 32 packs of
// tokens.
extern "C" __global__ void sum_slabs(const T* logits, int vocab, int n, int rows, float* most, float* sums) {
    SHARED(float, shared);
    if (n % WIDE == 0) sum_slab<WIDE>(logits, vocab, n, rows, most, sums, shared);
    else sum_slab<1>(logits, vocab, n, rows, most, sums, shared);
}

// most, sums [slabs, n] → lse, nll [n], zero where the target is −1, NaN where it is not in the vocabulary. A lane per token;
// the block's 32 warps take slabs in turns.
extern "C" __global__ void __launch_bounds__(1024) losses(const T* logits, const int* targets, int vocab, int n, const float* most, const float* sums, int slabs, float* nll, float* lse) {
    __shared__ float shared[WARP][WARP];
    int token = blockIdx.x * WARP + lane();
    bool live = token < n;
    float largest = -infinity(), sum = 0;
    for (int s = warp(); live && s < slabs; s += WARP) largest = fmaxf(largest, most[(size_t)s * n + token]);
    shared[warp()][lane()] = largest;
    __syncthreads();
    for (int w = 0; w < WARP; w++) largest = fmaxf(largest, shared[w][lane()]);
    __syncthreads();
    for (int s = warp(); live && s < slabs; s += WARP) {
        size_t at = (size_t)s * n + token;
        sum = fmaf(sums[at], expf(most[at] - largest), sum);
    }
    shared[warp()][lane()] = sum;
    __syncthreads();
    if (warp() != 0 || !live) return;
    sum = 0;
    for (int w = 0; w < WARP; w++) sum += shared[w][lane()];
    int target = targets[token];
    if (target == -1) {
        nll[token] = lse[token] = 0;
        return;
    }
    float log_sum = logf(sum);
    bool known = target >= 0 && target < vocab;
    lse[token] = largest + log_sum;
    // Not lse − logit, which cancels where the model is sure.
    nll[token] = known ? log_sum + (largest - load(logits + (size_t)target * n + token)) : not_a_number();
}

// logits [vocab, n] → their gradient g·(exp(logit − lse) − [row = target]), in place; zero where the target is −1.
// g = scale · d_loss; 1 for d_loss if that is null. `numbers` = vocab·n.
extern "C" __global__ void gradient(T* logits, const int* targets, const float* lse, const float* scale, const float* d_loss, int numbers, int n) {
    float g = scale[0] * (d_loss ? d_loss[0] : 1.0f);
    for_my_elements(numbers, n, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        int row = i / n, column = i % n;
        Floats<N> v = load_pack<N>(logits + i), shift = load_pack<N>(lse + column);
#pragma unroll
        for (int j = 0; j < N; j++) {
            int target = targets[column + j];
            float p = expf(v.x[j] - shift.x[j]);
            v.x[j] = target == -1 ? 0.0f : g * (row == target ? p - 1.0f : p);
        }
        store_pack<N>(logits + i, v);
    });
}

// loss = scale · Σ nll, nll [n]. One block.
extern "C" __global__ void __launch_bounds__(1024) add_up(const float* nll, int n, const float* scale, float* loss) {
    __shared__ float shared[WARP];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += nll[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *loss = scale[0] * sum;
}
