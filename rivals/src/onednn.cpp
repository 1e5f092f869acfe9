// One bf16 product of oneDNN, C [m, n] = A [m, k]·B [k, n], for the program beside it. B may be prepared beforehand in the
// layout that oneDNN prefers, as a network's weights are. Works with oneDNN 2 and 3.

#include <oneapi/dnnl/dnnl.hpp>
#include <cstdint>
#include <unordered_map>

using namespace dnnl;
using tag = memory::format_tag;
using type = memory::data_type;

namespace {
struct Product {
    engine cpu{engine::kind::cpu, 0};
    stream queue{cpu};
    memory a, b, c;
    matmul op;

    Product(int64_t m, int64_t k, int64_t n, bool a_turned, bool b_turned, const float *values) {
        memory::desc a_desc({m, k}, type::bf16, a_turned ? tag::ba : tag::ab), c_desc({m, n}, type::f32, tag::ab);
        memory::desc b_any({k, n}, type::bf16, tag::any), b_given({k, n}, type::f32, b_turned ? tag::ba : tag::ab);
#if DNNL_VERSION_MAJOR >= 3
        matmul::primitive_desc plan(cpu, a_desc, b_any, c_desc);
#else
        matmul::primitive_desc plan(matmul::desc(a_desc, b_any, c_desc), cpu);
#endif
        a = memory(a_desc, cpu, nullptr);
        b = memory(plan.weights_desc(), cpu);
        c = memory(c_desc, cpu, nullptr);
        op = matmul(plan);
        memory given(b_given, cpu, const_cast<float *>(values));
        reorder(given, b).execute(queue, given, b);
        queue.wait();
    }
};
} // namespace

// Prepares a product whose B is `values`, f32; a turned matrix is stored by columns. Null if oneDNN refuses.
extern "C" void *onednn_new(
    int64_t m, int64_t k, int64_t n, bool a_turned, bool b_turned, const float *values) try {
    return new Product(m, k, n, a_turned, b_turned, values);
} catch (...) {
    return nullptr;
}

// c = a·B: `a` in bf16, `c` in f32.
extern "C" void onednn_run(void *handle, const uint16_t *a, float *c) noexcept {
    auto &product = *static_cast<Product *>(handle);
    product.a.set_data_handle(const_cast<uint16_t *>(a));
    product.c.set_data_handle(c);
    product.op.execute(
        product.queue, {{DNNL_ARG_SRC, product.a}, {DNNL_ARG_WEIGHTS, product.b}, {DNNL_ARG_DST, product.c}});
    product.queue.wait();
}

extern "C" void onednn_free(void *handle) { delete static_cast<Product *>(handle); }
