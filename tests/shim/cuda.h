// CUDA C++ on a CPU: the features that this repository's kernels use, with one fibre per thread of a block.
//
// A block's threads run one after the other, each until it waits at a barrier or ends, in an order that the caller
// picks; so a thread that reads another thread's value without a barrier reads the old content, which is NaN in shared
// memory. Every thread must reach each barrier at the same line. Blocks also run one after the other in such an order.
// What this cannot show: races between lanes that the hardware runs in step, and everything about speed.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// All of a file's static shared memory is in one section, so that it can be poisoned before every block.
#define __shared__ static __attribute__((section("shim_shared")))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace shim {

enum class State { READY, WARP, BLOCK, DONE };

struct Copy {
    void* to;
    const void* from;
    bool valid;
    size_t bytes;
};

struct Thread {
    dim3 index;
    State state;
    // The line where it waits.
    int line;
    // The lanes that it waits for, and the value that it gives them.
    unsigned mask;
    uint64_t value;
    // The unfinished background copies, in groups; the last group is open.
    std::vector<std::vector<Copy>> copies;
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
};

constexpr int WARP = 32, MOST = 1024;
constexpr size_t STACK = 128 * 1024, SHARED_MOST = 227 * 1024, FENCE = 1024;

// The values that the lanes of a group exchanged, stored at the group's lowest lane until the next exchange.
struct Exchange {
    uint64_t values[WARP];
};

inline Thread* current;
inline Thread threads[MOST];
inline Exchange exchanges[MOST];
inline char* stacks;
inline dim3 block_index, block_size, grid_size;
inline unsigned char* shared_memory;
inline char failure[512];
inline void (*body)();

#if defined(__x86_64__)
inline void* scheduler;
extern "C" void shim_switch(void** save, void* load);
asm(R"(
.text
.type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size shim_switch, . - shim_switch
)");
inline void pause() { shim_switch(&current->stack_pointer, scheduler); }
inline void resume(Thread& t) { shim_switch(&scheduler, t.stack_pointer); }
#else
inline ucontext_t scheduler;
inline void pause() { swapcontext(&current->context, &scheduler); }
inline void resume(Thread& t) { swapcontext(&scheduler, &t.context); }
#endif

inline void fibre() {
    body();
    current->state = State::DONE;
    pause();
    abort();
}

inline void start(Thread& t, char* stack) {
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(stack + STACK);
    // Six registers, the entry, and a slot that keeps the stack aligned as after a call.
    top -= 2;
    *top = reinterpret_cast<void*>(&fibre);
    top -= 6;
    t.stack_pointer = top;
#else
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = stack;
    t.context.uc_stack.ss_size = STACK;
    t.context.uc_link = nullptr;
    makecontext(&t.context, fibre, 0);
#endif
}

template <class... A> void fail(const char* format, A... values) {
    if (!failure[0]) snprintf(failure, sizeof failure, format, values...);
}

// Stops this thread for good: the block has failed.
template <class... A> [[noreturn]] void die(const char* format, A... values) {
    fail(format, values...);
    for (;;) {
        current->state = State::BLOCK;
        pause();
    }
}

inline unsigned lane_of(const Thread& t) { return t.index.x % WARP; }

inline void block_barrier(int line) {
    current->state = State::BLOCK;
    current->line = line;
    pause();
}

// Waits for the lanes of `mask` and returns the value of each.
inline const Exchange& exchange(unsigned mask, uint64_t value, int line) {
    unsigned lane = lane_of(*current);
    if (!(mask >> lane & 1)) die("line %d: lane %u is not in its own mask %08x", line, lane, mask);
    current->state = State::WARP;
    current->line = line;
    current->mask = mask;
    current->value = value;
    pause();
    return exchanges[current->index.x - lane + __builtin_ctz(mask)];
}

// Releases the complete groups of lanes from `begin` to `end`; returns whether there was one.
inline bool release_warps(unsigned begin, unsigned end, unsigned n) {
    bool any = false;
    for (unsigned i = begin; i < end; i++) {
        Thread& t = threads[i];
        unsigned first = i - lane_of(t);
        if (t.state != State::WARP || (unsigned)__builtin_ctz(t.mask) != lane_of(t)) continue;
        bool complete = true;
        for (unsigned lane = 0; lane < WARP; lane++) {
            if (!(t.mask >> lane & 1)) continue;
            if (first + lane >= n) {
                fail("line %d: mask %08x names lane %u, which the block does not have", t.line, t.mask, lane);
                return false;
            }
            const Thread& other = threads[first + lane];
            if (other.state == State::DONE) {
                fail("line %d: mask %08x waits for lane %u, which has returned", t.line, t.mask, lane);
                return false;
            }
            complete &= other.state == State::WARP && other.mask == t.mask && other.line == t.line;
        }
        if (!complete) continue;
        for (unsigned lane = 0; lane < WARP; lane++) {
            if (!(t.mask >> lane & 1)) continue;
            exchanges[i].values[lane] = threads[first + lane].value;
            // The lowest lane last: its mask and state are read above.
            if (first + lane != i) threads[first + lane].state = State::READY;
        }
        t.state = State::READY;
        any = true;
    }
    return any;
}

// Releases the block if all of its threads wait at one barrier.
inline bool release_block(unsigned n) {
    const Thread* waiting = nullptr;
    for (unsigned i = 0; i < n; i++) {
        if (threads[i].state == State::WARP) {
            return fail("line %d: lanes of mask %08x wait for each other while others wait elsewhere",
                        threads[i].line, threads[i].mask), false;
        }
        if (threads[i].state == State::BLOCK) waiting = &threads[i];
    }
    for (unsigned i = 0; i < n; i++) {
        if (threads[i].state == State::DONE) {
            return fail("barrier at line %d: thread %u has returned", waiting->line, i), false;
        }
        if (threads[i].line != waiting->line) {
            return fail("divergent barriers: thread %u at line %d, thread %u at line %d", waiting->index.x,
                        waiting->line, i, threads[i].line), false;
        }
    }
    for (unsigned i = 0; i < n; i++) threads[i].state = State::READY;
    return true;
}

// An order of n things: forward, backward, or shuffled at every call.
struct Order {
    int kind;
    uint64_t random;
    std::vector<unsigned> list;

    const std::vector<unsigned>& of(unsigned n) {
        list.resize(n);
        for (unsigned i = 0; i < n; i++) list[i] = kind == 1 ? n - 1 - i : i;
        for (unsigned i = n; kind == 2 && i > 1; i--) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            std::swap(list[i - 1], list[(random >> 33) % i]);
        }
        return list;
    }
};

// Runs thread i, if it is ready; whether it returned.
inline bool run_ready(unsigned i) {
    if (threads[i].state != State::READY || failure[0]) return false;
    current = &threads[i];
    resume(threads[i]);
    return threads[i].state == State::DONE;
}

// In forward and shuffled order, all threads run until they wait for others before any continues. In backward order, a
// warp runs as far as it can before the next one, because only a barrier synchronises warps.
inline void run_block(unsigned n, Order& order) {
    for (unsigned i = 0; i < n; i++) {
        Thread& t = threads[i];
        t.index = {i, 0, 0};
        t.state = State::READY;
        t.copies.assign(1, {});
        start(t, stacks + i * STACK);
    }
    for (unsigned done = 0; done < n && !failure[0];) {
        if (order.kind == 1) {
            for (unsigned end = n, begin; end > 0; end = begin) {
                begin = (end - 1) / WARP * WARP;
                do {
                    for (unsigned i = end; i > begin; i--) done += run_ready(i - 1);
                } while (!failure[0] && release_warps(begin, end, n));
            }
        } else {
            for (unsigned i : order.of(n)) done += run_ready(i);
        }
        if (!failure[0] && done < n && !release_warps(0, n, n) && !failure[0]) release_block(n);
    }
}

extern "C" char __start_shim_shared[] __attribute__((weak));
extern "C" char __stop_shim_shared[] __attribute__((weak));

inline void run_grid(dim3 blocks, unsigned n, unsigned shared, int kind) {
    if (!stacks) {
        stacks = static_cast<char*>(mmap(nullptr, MOST * STACK, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        shared_memory = static_cast<unsigned char*>(aligned_alloc(1024, SHARED_MOST / 1024 * 1024 + 2 * FENCE));
    }
    failure[0] = 0;
    if (shared > SHARED_MOST) return fail("%u bytes of shared memory, a block has %zu", shared, SHARED_MOST);
    grid_size = blocks;
    block_size = {n, 1, 1};
    Order order{kind, 1, {}}, within{kind, 2, {}};
    for (unsigned b : std::vector<unsigned>(order.of(blocks.x * blocks.y * blocks.z))) {
        block_index = {b % blocks.x, b / blocks.x % blocks.y, b / blocks.x / blocks.y};
        // All bits set is NaN as a float, as bf16 and as a double.
        memset(shared_memory, 0xff, shared + FENCE);
        if (__start_shim_shared) memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
        run_block(n, within);
        for (unsigned i = 0; i < FENCE && !failure[0]; i++) {
            if (shared_memory[shared + i] != 0xff) fail("byte %u of %u bytes of shared memory written", shared + i, shared);
        }
        if (failure[0]) {
            size_t end = strlen(failure);
            snprintf(failure + end, sizeof failure - end, " (block %u, %u, %u)", block_index.x, block_index.y, block_index.z);
            return;
        }
    }
}

// An entry point: how to call it with arguments of 8 bytes each, and how large its parameters are.
template <class... A> struct Entry {
    static inline void (*function)(A...);
    static inline const uint64_t* arguments;

    template <class V> static V argument(size_t i) {
        V value;
        memcpy(&value, &arguments[i], sizeof value);
        return value;
    }
    template <size_t... I> static void call(std::index_sequence<I...>) { function(argument<A>(I)...); }
    static void run() { call(std::index_sequence_for<A...>()); }

    static void launch(void (*f)(A...), dim3 blocks, unsigned n, unsigned shared, int kind, const uint64_t* values,
                       const uint8_t* sizes, unsigned count) {
        const size_t wanted[] = {sizeof(A)..., 0};
        failure[0] = 0;
        if (count != sizeof...(A)) return fail("%u arguments, the kernel has %zu parameters", count, sizeof...(A));
        for (unsigned i = 0; i < count; i++) {
            if (sizes[i] != wanted[i]) return fail("argument %u has %u bytes, must have %zu", i, sizes[i], wanted[i]);
        }
        function = f;
        arguments = values;
        body = run;
        run_grid(blocks, n, shared, kind);
    }
};

template <class... A> void launch(void (*f)(A...), const uint32_t* grid, int kind, const uint64_t* values,
                                  const uint8_t* sizes, unsigned count) {
    Entry<A...>::launch(f, {grid[0], grid[1], grid[2]}, grid[3], grid[4], kind, values, sizes, count);
}

template <class V> uint64_t to_bits(V value) {
    static_assert(sizeof(V) <= 8, "lanes exchange up to eight bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class V> V shuffle(unsigned mask, V value, unsigned from, int line) {
    const Exchange& all = exchange(mask, to_bits(value), line);
    if (!(mask >> from & 1)) die("line %d: reads lane %u, which is not in mask %08x", line, from, mask);
    V out;
    memcpy(&out, &all.values[from], sizeof out);
    return out;
}

}  // namespace shim

#define threadIdx (shim::current->index)
#define blockIdx (shim::block_index)
#define blockDim (shim::block_size)
#define gridDim (shim::grid_size)

inline void __syncthreads(int line = __builtin_LINE()) { shim::block_barrier(line); }
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) { shim::exchange(mask, 0, line); }

template <class V> V __shfl_sync(unsigned mask, V v, int from, int width = 32, int line = __builtin_LINE()) {
    int lane = shim::lane_of(*shim::current);
    return shim::shuffle(mask, v, lane / width * width + from % width, line);
}
template <class V> V __shfl_xor_sync(unsigned mask, V v, int flip, int line = __builtin_LINE()) {
    return shim::shuffle(mask, v, shim::lane_of(*shim::current) ^ flip, line);
}
inline unsigned __ballot_sync(unsigned mask, bool vote, int line = __builtin_LINE()) {
    const shim::Exchange& all = shim::exchange(mask, vote, line);
    unsigned out = 0;
    for (int lane = 0; lane < 32; lane++) out |= (mask >> lane & 1 && all.values[lane]) << lane;
    return out;
}
inline bool __any_sync(unsigned mask, bool vote, int line = __builtin_LINE()) {
    return __ballot_sync(mask, vote, line) != 0;
}

template <class To, class From> inline To shim_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To out;
    memcpy(&out, &x, sizeof x);
    return out;
}
inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }

inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
