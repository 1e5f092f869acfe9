// The optimiser of the slow step. Gradient, parameter and moments are f32, even if the model's tensors are bf16. All
// kernels are memory-bound.

// grad [n] → partial [blocks] = Σ grad² over `per_block` numbers, a multiple of four.
extern "C" __global__ void sum_squares(const float* grad, float* partial, int n, int per_block) {
    __shared__ float shared[WARP];
    int first = blockIdx.x * per_block, end = min(first + per_block, n);
    float sum = 0;
    for (int i = first + threadIdx.x * 4; i < end; i += blockDim.x * 4) {
        if (i + 4 <= end) {
            Floats<4> g = load_pack<4>(grad + i);
#pragma unroll
            for (int j = 0; j < 4; j++) sum = fmaf(g.x[j], g.x[j], sum);
        } else {
            for (int j = i; j < end; j++) sum = fmaf(grad[j], grad[j], sum);
        }
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial [n] → norm [1]. One block.
extern "C" __global__ void __launch_bounds__(1024) sum_partials(const float* partial, int n, float* norm) {
    __shared__ float shared[WARP];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *norm = sum;
}

// grad, w, m, v [n]; norms [params], squares whose sum is the square of the global norm; schedule [2]: rate and step
// number. If the norm is not finite, nothing changes.
extern "C" __global__ void update(const float* grad, const float* norms, int params, const float* schedule, double beta1, double beta2, double eps, double weight_decay, double clip, float* w, float* m, float* v, int n) {
    __shared__ Step step;
    // The factor of the gradient; negative if the global norm is not finite.
    __shared__ float factor;
    if (warp() == 0) {
        float clipped = clip_factor(norms, params, clip);
        if (lane() == 0) {
            factor = clipped;
            step = make_step({beta1, beta2, eps, weight_decay}, schedule[0], (unsigned)schedule[1]);
        }
    }
    __syncthreads();
    if (factor < 0) return;
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> g = load_pack<N>(grad + i), p = load_pack<N>(w + i), first = load_pack<N>(m + i), second = load_pack<N>(v + i);
#pragma unroll
        for (int j = 0; j < N; j++) adamw(step, g.x[j] * factor, p.x[j], first.x[j], second.x[j]);
        store_pack<N>(w + i, p);
        store_pack<N>(m + i, first);
        store_pack<N>(v + i, second);
    });
}
