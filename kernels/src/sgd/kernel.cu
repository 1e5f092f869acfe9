// Stochastic gradient descent. Everything is f32, even if the model's tensors are bf16. Memory-bound.

// grad, w, m [n]; norms [params], squares whose sum is the square of the global norm; schedule [2]: rate and step number.
// `m` is null without momentum. If the norm is not finite, nothing changes.
extern "C" __global__ void update(const float* grad, const float* norms, int params, const float* schedule, int nesterov, double momentum, double weight_decay, double clip, float* w, float* m, int n) {
    // The factor of the gradient; negative if the global norm is not finite.
    __shared__ float factor;
    if (warp() == 0) {
        float clipped = clip_factor(norms, params, clip);
        if (lane() == 0) factor = clipped;
    }
    __syncthreads();
    if (factor < 0) return;
    float rate = schedule[0], keep = (float)momentum, decay = (float)weight_decay, scale = factor;
    for_my_elements(n, 0, [&](auto width, int i) {
        constexpr int N = decltype(width)::size;
        Floats<N> p = load_pack<N>(w + i), step = load_pack<N>(grad + i), next = {};
        if (m) next = load_pack<N>(m + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            step.x[j] = fmaf(p.x[j], decay, step.x[j] * scale);
            next.x[j] = fmaf(next.x[j], keep, step.x[j]);
            // Without momentum, `keep` is zero.
            step.x[j] = nesterov ? fmaf(next.x[j], keep, step.x[j]) : next.x[j];
            p.x[j] = fmaf(step.x[j], -rate, p.x[j]);
        }
        store_pack<N>(w + i, p);
        if (m) store_pack<N>(m + i, next);
    });
}
