// Counter-based noise with the same bits as `engine::rng`: Philox 4x32-10, normals by Box–Muller in double precision
// with every rounding explicit, so that the bits do not depend on the compiler or a libm.
#pragma once

struct Words {
    unsigned x[4];
};

__device__ inline Words philox(Words c, unsigned key0, unsigned key1) {
    for (int round = 0; round < 10; round++) {
        unsigned long long p0 = (unsigned long long)c.x[0] * 0xD2511F53u;
        unsigned long long p1 = (unsigned long long)c.x[2] * 0xCD9E8D57u;
        c = {{(unsigned)(p1 >> 32) ^ c.x[1] ^ key0, (unsigned)p1, (unsigned)(p0 >> 32) ^ c.x[3] ^ key1, (unsigned)p0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// The purpose of a stream of random numbers, as `engine::rng::Stream`.
struct Stream {
    unsigned long long seed;
    unsigned site, sample, step;
};

// The block-th four random words.
__device__ inline Words words(Stream s, unsigned block) {
    return philox({{block, s.site, s.sample, s.step}}, (unsigned)s.seed, (unsigned)(s.seed >> 32));
}

// ln((u + ½) / 2³²).
__device__ inline double ln_unit(unsigned u) {
    double x = __dmul_rn(__dadd_rn((double)u, 0.5), 1.0 / 4294967296.0);
    long long bits = __double_as_longlong(x);
    double exponent = (double)((bits >> 52) - 1023);
    double m = __longlong_as_double((bits & 0x000FFFFFFFFFFFFFll) | 0x3FF0000000000000ll);
    if (m > 1.41421356237309504880) {
        m = __dmul_rn(m, 0.5);
        exponent = __dadd_rn(exponent, 1.0);
    }
    double s = __ddiv_rn(__dsub_rn(m, 1.0), __dadd_rn(m, 1.0));
    double s2 = __dmul_rn(s, s);
    double series = 1.0 / 19.0;
#pragma unroll
    for (int odd = 17; odd >= 1; odd -= 2) series = __fma_rn(series, s2, 1.0 / odd);
    return __fma_rn(exponent, 0.693147180559945309417, __dmul_rn(__dmul_rn(2.0, s), series));
}

// sin and cos of 2π(v + ½)/2³², from the middle of the octant.
__device__ inline void sin_cos_turn(unsigned v, double& sin_out, double& cos_out) {
    unsigned octant = v >> 29;
    double t = __dsub_rn(__dmul_rn(__dadd_rn((double)(v & 0x1FFFFFFFu), 0.5), 1.0 / 4294967296.0), 0.0625);
    double x = __dmul_rn(t, 6.28318530717958647693);
    double x2 = __dmul_rn(x, x);
    double s = 1.0, c = 1.0;
#pragma unroll
    for (int k = 8; k >= 1; k--) {
        s = __fma_rn(__ddiv_rn(-x2, 2.0 * k * (2.0 * k + 1.0)), s, 1.0);
        c = __fma_rn(__ddiv_rn(-x2, (2.0 * k - 1.0) * 2.0 * k), c, 1.0);
    }
    s = __dmul_rn(s, x);
    const double COS = 0.9238795325112867, SIN = 0.3826834323650898;
    // The middle of octant j is at (2j + 1)·π/8: sine and cosine are one of the two, up to sign.
    bool steep = ((octant + 1) >> 1) & 1;
    double sm = steep ? COS : SIN, cm = steep ? SIN : COS;
    if (octant >= 4) sm = -sm;
    if (octant >= 2 && octant < 6) cm = -cm;
    sin_out = __fma_rn(sm, c, __dmul_rn(cm, s));
    cos_out = __fma_rn(cm, c, -__dmul_rn(sm, s));
}

// Two independent standard normals from two random words.
__device__ inline void box_muller(unsigned u, unsigned v, double& a, double& b) {
    double radius = __dsqrt_rn(__dmul_rn(-2.0, ln_unit(u)));
    double sine, cosine;
    sin_cos_turn(v, sine, cosine);
    a = __dmul_rn(radius, cosine);
    b = __dmul_rn(radius, sine);
}

// Standard normal numbers 4·block to 4·block + 3 of a stream.
__device__ inline void normals(Stream s, unsigned block, double (&out)[4]) {
    Words w = words(s, block);
    box_muller(w.x[0], w.x[1], out[0], out[1]);
    box_muller(w.x[2], w.x[3], out[2], out[3]);
}
