//! Mistakes that a kernel's author could make, each of which the room's cases must find.

use tests::shim::Fault;

/// Room, file, what stands there, what stands there by mistake.
const ALL: &[[&str; 4]] = &[
    ["rmsnorm", "rmsnorm", "if (!partial) return;\n    __syncthreads();", "if (!partial) return;"],
    ["rmsnorm", "rmsnorm", "sums[warp()][lane()] = sum;\n    __syncthreads();", "sums[warp()][lane()] = sum;"],
    ["rmsnorm", "rmsnorm", "if (row >= rows) return;", "if (row > rows) return;"],
    ["rmsnorm", "rmsnorm", "min(first + rows_per_block, rows)", "first + rows_per_block"],
    ["rmsnorm", "rmsnorm", "for (int w = 0; w < warps; w++)", "for (int w = 0; w <= warps; w++)"],
    ["rmsnorm", "rmsnorm", "if (!partial) return;", "if (!partial || lane() == 0) return;"],
    ["rmsnorm", "rmsnorm", "if (d % WIDE == 0) forward_row<WIDE>", "if (d % 2 == 0) forward_row<WIDE>"],
    [
        "rmsnorm",
        "common.cuh",
        "for (int step = WARP / 2; step > 0; step /= 2) x += ",
        "for (int step = WARP / 2; step > 1; step /= 2) x += ",
    ],
    [
        "add",
        "common.cuh",
        "if (row % WIDE == 0 && end <= (unsigned)n)",
        "if (row % WIDE == 0 && end - WIDE / 2 <= (unsigned)n)",
    ],
    ["sum", "sum", "if (i + WIDE <= end) {", "if (i < end) {"],
    ["sum", "sum", "for (int j = i; j < end; j++)", "for (int j = i; j < end - 1; j++)"],
    [
        "sum",
        "common.cuh",
        "shared[warp()] = x;\n    __syncthreads();\n    float total",
        "shared[warp()] = x;\n    float total",
    ],
    ["slice", "slice", "within < len", "within <= len"],
    ["slice", "slice", "if (within >= 0 &&", "if ("],
    [
        "swiglu",
        "swiglu",
        "(i / f) * 2 * f + i % f;\n        Floats<N> u1 = load_pack<N>(at)",
        "(i / f) * f + i % f;\n        Floats<N> u1 = load_pack<N>(at)",
    ],
    ["swiglu", "swiglu", "fmaf(silu, 1.0f - s, s)", "fmaf(silu, s, s)"],
    ["rope", "rope", "if (column < rotated)", "if (column <= rotated)"],
    ["rope", "rope", "row % tokens", "row"],
    ["rope", "rope", "s = sign * angle", "s = angle"],
    ["rope", "rope", "if (i >= n * pairs) return;", "if (i > n * pairs) return;"],
    ["rope", "common.cuh", "i += LEAST)", "i += 1)"],
    ["gaussian", "gaussian", "0.5f * d.x[j]", "d.x[j]"],
    ["gaussian", "gaussian", "i += blockDim.x) {", "i += blockDim.x + 1) {"],
    ["gaussian", "gaussian", "d_kl[i / size]", "d_kl[i % size]"],
    ["embedding", "embedding", "counts[warp()] = own;\n    __syncthreads();", "counts[warp()] = own;"],
    ["embedding", "embedding", "stretch = (end - begin + warps - 1) / warps", "stretch = (end - begin) / warps"],
    ["embedding", "embedding", "__syncthreads();\n    if (warp() != 0", "if (warp() != 0"],
    ["embedding", "embedding", "i + lane() < end && tokens[place] == id", "tokens[place] == id"],
    ["embedding", "embedding", "w = 1; w < warps", "w = 1; w < warps - 1"],
    [
        "ring_attention",
        "ring_attention",
        "scores[entry] = dot * scale;\n    }\n    __syncthreads();",
        "scores[entry] = dot * scale;\n    }",
    ],
    [
        "ring_attention",
        "ring_attention",
        "sums[warp() * head_dim + c] = sum;\n    }\n    __syncthreads();",
        "sums[warp() * head_dim + c] = sum;\n    }",
    ],
    ["ring_attention", "ring_attention", "(oldest + entry) % slots", "(oldest + entry + 1) % slots"],
    ["ring_attention", "ring_attention", "scores + window;", "scores + window - 1;"],
    ["ring_attention", "ring_attention", "min(position[0], window - 1)", "min(position[0], window)"],
    [
        "ring_attention",
        "common.cuh",
        "shared[warp()] = x;\n    __syncthreads();\n    float most",
        "shared[warp()] = x;\n    float most",
    ],
    ["cross_entropy", "cross_entropy", "lane()) * N, largest);\n    __syncthreads();", "lane()) * N, largest);"],
    ["cross_entropy", "cross_entropy", "lane()) * N, sum);\n    __syncthreads();", "lane()) * N, sum);"],
    ["cross_entropy", "cross_entropy", "lane()] = sum;\n    __syncthreads();", "lane()] = sum;"],
    ["cross_entropy", "cross_entropy", "min(first + rows, vocab)", "first + rows"],
    ["cross_entropy", "cross_entropy", "bool live = token < n;", "bool live = token <= n;"],
    ["cross_entropy", "cross_entropy", "(int w = 0; w < WARP; w++) sum +=", "(int w = 1; w < WARP; w++) sum +="],
    ["cross_entropy", "cross_entropy", "row == target ?", "row + 1 == target ?"],
    ["cross_entropy", "cross_entropy", "target == -1 ? 0.0f : ", ""],
    ["cross_entropy", "cross_entropy", "scale[0] * (d_loss ? d_loss[0] : 1.0f)", "scale[0]"],
    [
        "cross_entropy",
        "cross_entropy",
        "for (int w = 0; w < WARP; w++) largest",
        "for (int w = 1; w < WARP; w++) largest",
    ],
];

/// All mistakes, with the rooms whose tests must find them.
pub fn all() -> impl Iterator<Item = (&'static str, Fault)> {
    ALL.iter().map(|&[room, file, find, replace]| (room, Fault { file, find, replace }))
}
