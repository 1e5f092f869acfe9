// Muon without its matrix products. All tensors are f32. A parameter is cut into blocks of `size` numbers, one for each
// blockIdx.y, and these into pieces of `per_piece` numbers, one for each blockIdx.x. All kernels are memory-bound.

// grad, m [blocks, size] → x [blocks, size], Nesterov's momentum; partial [blocks, pieces] = Σ x² over a piece. If the
// norm is not finite, nothing changes.
extern "C" __global__ void momentum(const float* grad, const float* norms, int params, double clip, double beta, float* m, float* x, float* partial, int size, int per_piece) {
    __shared__ float shared[WARP];
    __shared__ float factor;
    if (warp() == 0) {
        float clipped = clip_factor(norms, params, clip);
        if (lane() == 0) factor = clipped;
    }
    __syncthreads();
    if (factor < 0) return;
    float keep = (float)beta, gain = (float)(1.0 - beta) * factor, sum = 0;
    int first = blockIdx.x * per_piece, end = min(first + per_piece, size), block = blockIdx.y * size;
    for (int i = block + first + threadIdx.x; i < block + end; i += blockDim.x) {
        float g = gain * grad[i], next = fmaf(keep, m[i], g), u = fmaf(keep, next, g);
        m[i] = next;
        x[i] = u;
        sum = fmaf(u, u, sum);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// Divides each block of x by the root of the sum of its partials; zeros stay zeros.
extern "C" __global__ void normalise(float* x, const float* partial, int size, int per_piece) {
    __shared__ float shared[WARP];
    float sum = 0;
    for (int i = threadIdx.x; i < (int)gridDim.x; i += blockDim.x) sum += partial[blockIdx.y * gridDim.x + i];
    sum = block_sum(sum, shared);
    float scale = sum > 0 ? 1.0f / sqrtf(sum) : 0.0f;
    int first = blockIdx.x * per_piece, end = min(first + per_piece, size), block = blockIdx.y * size;
    for (int i = block + first + threadIdx.x; i < block + end; i += blockDim.x) x[i] *= scale;
}

// a, p [n, n], p = a·a → p = c0 + c1 a + c2 a·a.
extern "C" __global__ void polynomial(const float* a, float* p, int n, double c0, double c1, double c2) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * n) return;
    p[i] = fmaf((float)c2, p[i], (float)c1 * a[i]) + (i / n == i % n ? (float)c0 : 0.0f);
}

// o, w [n]: decays w, and moves it by −rate·scale·o. schedule [2]: rate and step number. If the norm is not finite,
// nothing changes.
extern "C" __global__ void descend(const float* o, const float* norms, int params, const float* schedule, double weight_decay, double scale, float* w, int n) {
    __shared__ float factor;
    if (warp() == 0) {
        float clipped = clip_factor(norms, params, 1.0);
        if (lane() == 0) factor = clipped;
    }
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (factor < 0 || i >= n) return;
    double rate = schedule[0];
    w[i] = fmaf((float)(-rate * scale), o[i], (float)(1.0 - rate * weight_decay) * w[i]);
}
