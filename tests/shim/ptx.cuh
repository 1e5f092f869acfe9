// The functions of the engine's ptx.cuh for the host shim; that file documents them.
#pragma once

struct bf16 {
    unsigned short bits;
};

__device__ inline bf16 round_to_bf16(float x) {
    unsigned bits = __float_as_uint(x);
    if (x != x) return {0x7fff};
    return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

__device__ inline unsigned round_to_bf16x2(float low, float high) {
    return round_to_bf16(low).bits | (unsigned)round_to_bf16(high).bits << 16;
}

__device__ inline float exp2_approx(float x) {
    float y = exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

template <int BYTES> __device__ inline void check_aligned(const void* at) {
    if ((uintptr_t)at % BYTES != 0) shim::die("a pack that is not aligned to %d bytes", BYTES);
}

#define SHARED(type, name) type* name = reinterpret_cast<type*>(shim::shared_memory)

namespace shim {

inline float half_of(unsigned word, int half) { return __uint_as_float(half ? word & 0xffff0000u : word << 16); }

inline void load_matrices(unsigned (&out)[4], const void* row, bool transposed, int line) {
    if ((uintptr_t)row % 16 != 0) die("line %d: a matrix row that is not aligned to 16 bytes", line);
    // A row is read as soon as its lane arrives, so later writes of other lanes need a barrier.
    unsigned short mine[8];
    memcpy(mine, row, sizeof mine);
    Exchange rows = exchange(~0u, (uint64_t)mine, line);
    unsigned lane = lane_of(*current), r = lane / 4, c = lane % 4 * 2;
    for (unsigned m = 0; m < 4; m++) {
        auto element = [&](unsigned r, unsigned c) -> unsigned {
            return reinterpret_cast<const unsigned short*>(rows.values[8 * m + r])[c];
        };
        out[m] = transposed ? element(c, r) | element(c + 1, r) << 16 : element(r, c) | element(r, c + 1) << 16;
    }
    // The rows stay on their lanes' stacks until all have read them.
    exchange(~0u, 0, line);
}

}  // namespace shim

__device__ inline void ldmatrix(unsigned (&out)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices(out, row, false, line);
}

__device__ inline void ldmatrix_transposed(unsigned (&out)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices(out, row, true, line);
}

__device__ inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                int line = __builtin_LINE()) {
    const unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    shim::Exchange all = shim::exchange(~0u, (uint64_t)mine, line);
    auto word = [&](unsigned lane, unsigned i) { return reinterpret_cast<const unsigned*>(all.values[lane])[i]; };
    // Element k of row r of a is in lane 4·(r%8) + k%8/2, word r/8 + 2·(k/8); column c of b with lane 4c + k%8/2.
    unsigned lane = shim::lane_of(*shim::current), g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = g + i / 2 * 8, col = 2 * t + i % 2;
        float sum = d[i];
        for (unsigned k = 0; k < 16; k++) {
            float x = shim::half_of(word(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2), k % 2);
            float y = shim::half_of(word(col * 4 + k % 8 / 2, 4 + k / 8), k % 2);
            sum = fmaf(x, y, sum);
        }
        d[i] = sum;
    }
    shim::exchange(~0u, 0, line);
}

// A copy arrives only when it is waited for; until then its target is poisoned.
template <int BYTES = 16> __device__ inline void copy_async(void* shared, const void* global, bool valid = true, int line = __builtin_LINE()) {
    if ((uintptr_t)shared % BYTES != 0 || (valid && (uintptr_t)global % BYTES != 0)) {
        shim::die("line %d: a background copy that is not aligned to %d bytes", line, BYTES);
    }
    memset(shared, 0xff, BYTES);
    shim::current->copies.back().push_back({shared, global, valid, BYTES});
}

__device__ inline void copy_commit() { shim::current->copies.emplace_back(); }

template <int N> __device__ inline void copy_wait() {
    auto& groups = shim::current->copies;
    // The last group is open: it is not waited for.
    for (; groups.size() > N + 1; groups.erase(groups.begin())) {
        for (const shim::Copy& copy : groups.front()) {
            if (copy.valid) memcpy(copy.to, copy.from, copy.bytes);
            else memset(copy.to, 0, copy.bytes);
        }
    }
}
