// One step of AdamW on one number, and the factor that clips a gradient; `adamw`, `latents` and `muon` prepend this file to
// their kernels.
#include "common.cuh"

// The factor by which a gradient with these squares of norms is clipped to the norm `clip`; negative if its norm is not
// finite. For a whole warp.
__device__ inline float clip_factor(const float* norms, int params, double clip) {
    float squares = 0;
    for (int i = lane(); i < params; i += WARP) squares += norms[i];
    double norm = sqrt((double)warp_sum(squares));
    return norm < infinity() ? (float)fmin(clip / (norm + 1e-6), 1.0) : -1.0f;
}

// The constants of an optimiser.
struct Rule {
    double beta1, beta2, eps, weight_decay;
};

// The factors of one step; one thread of a block computes them in double precision.
struct Step {
    float decay, beta1, beta2, rest1, rest2;
    // rate / (1 − beta1ᵗ) and 1 / √(1 − beta2ᵗ).
    float rate, root;
    float eps;
};

__device__ inline double power(double x, unsigned n) {
    double y = 1;
    for (; n; n /= 2, x *= x) {
        if (n % 2) y *= x;
    }
    return y;
}

// Step number `t`, counted from 1.
__device__ inline Step make_step(Rule rule, double rate, unsigned t) {
    Step s;
    s.decay = (float)(1.0 - rate * rule.weight_decay);
    s.beta1 = (float)rule.beta1;
    s.beta2 = (float)rule.beta2;
    s.rest1 = (float)(1.0 - rule.beta1);
    s.rest2 = (float)(1.0 - rule.beta2);
    s.rate = (float)(rate / (1.0 - power(rule.beta1, t)));
    s.root = (float)(1.0 / sqrt(1.0 - power(rule.beta2, t)));
    s.eps = (float)rule.eps;
    return s;
}

// Parameter and moments for the gradient g.
__device__ inline void adamw(const Step& s, float g, float& p, float& m, float& v) {
    m = fmaf(m, s.beta1, g * s.rest1);
    v = fmaf(v, s.beta2, g * g * s.rest2);
    p = fmaf(m / fmaf(sqrtf(v), s.root, s.eps), -s.rate, p * s.decay);
}
