// A simulated libcublasLt.so: products by plain loops on column-major matrices, as in the library's manual. It refuses
// wrong requests: sums in less than f32, partial sums in another type, addresses less aligned than promised, an
// algorithm that was not searched for this product.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

struct Layout {
    int type;
    uint64_t rows, cols;
    int64_t ld;
    int count = 1;
    int64_t step = 0;
};
struct Operation {
    int compute, scale, transposed[2] = {};
};
struct Preference {
    uint64_t workspace;
    uint32_t reduction, aligned[4];
};
struct Algorithm {
    uint64_t data[8];
};
struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

enum { OK = 0, INVALID = 7, BF16 = 14, F32 = 0 };
static int searches, handle_object;

static float number(const void* at, int type, size_t i) {
    if (type == F32) return static_cast<const float*>(at)[i];
    uint32_t bits = (uint32_t) static_cast<const uint16_t*>(at)[i] << 16;
    float x;
    return memcpy(&x, &bits, 4), x;
}
static void store(void* at, int type, size_t i, float x) {
    if (type == F32) return void(static_cast<float*>(at)[i] = x);
    uint32_t bits;
    memcpy(&bits, &x, 4);
    static_cast<uint16_t*>(at)[i] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
// The properties that an algorithm depends on.
static uint64_t digest(const Operation* op, const Layout* a, const Layout* b, const Layout* d) {
    uint64_t sum = op->transposed[0] + 2 * op->transposed[1];
    for (const Layout* l : {a, b, d}) sum = ((((sum * 31 + l->type) * 31 + l->rows) * 31 + l->cols) * 31 + l->count) * 31 + l->step;
    return sum;
}

extern "C" {

void fake_enqueue(std::function<void()>* work);
int fake_searches() { return searches; }

size_t cublasLtGetVersion() { return 130002; }
int cublasLtCreate(void** handle) { return *handle = &handle_object, OK; }
int cublasLtDestroy(void*) { return OK; }
int cublasLtMatrixLayoutCreate(Layout** l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    return *l = new Layout{type, rows, cols, ld}, OK;
}
int cublasLtMatrixLayoutDestroy(Layout* l) { return delete l, OK; }
int cublasLtMatrixLayoutSetAttribute(Layout* l, int attribute, const void* value, size_t bytes) {
    if (attribute == 5 && bytes == 4) return memcpy(&l->count, value, 4), OK;
    if (attribute == 6 && bytes == 8) return memcpy(&l->step, value, 8), OK;
    return INVALID;
}
int cublasLtMatmulDescCreate(Operation** op, int compute, int scale) { return *op = new Operation{compute, scale}, OK; }
int cublasLtMatmulDescDestroy(Operation* op) { return delete op, OK; }
int cublasLtMatmulDescSetAttribute(Operation* op, int attribute, const void* value, size_t bytes) {
    if ((attribute != 3 && attribute != 4) || bytes != 4) return INVALID;
    return memcpy(&op->transposed[attribute - 3], value, 4), OK;
}
int cublasLtMatmulPreferenceCreate(Preference** p) { return *p = new Preference{}, OK; }
int cublasLtMatmulPreferenceDestroy(Preference* p) { return delete p, OK; }
int cublasLtMatmulPreferenceSetAttribute(Preference* p, int attribute, const void* value, size_t bytes) {
    if (attribute == 1 && bytes == 8) return memcpy(&p->workspace, value, 8), OK;
    if (attribute == 3 && bytes == 4) return memcpy(&p->reduction, value, 4), OK;
    if (attribute < 5 || attribute > 8 || bytes != 4) return INVALID;
    return memcpy(&p->aligned[attribute - 5], value, 4), OK;
}
int cublasLtMatmulAlgoGetHeuristic(void*, Operation* op, Layout* a, Layout* b, Layout*, Layout* d, Preference* p, int,
                                   Found* found, int* count) {
    if (op->compute != 68 || op->scale != F32 || p->reduction != 2) return INVALID;
    if (getenv("FAKE_ANY")) return INVALID;  // No more than the driver's kernels do.
    searches++;
    *found = {};
    found->algorithm.data[0] = digest(op, a, b, d);
    for (int i = 0; i < 4; i++) found->algorithm.data[1 + i] = p->aligned[i];
    found->algorithm.data[5] = p->workspace;
    return *count = 1, OK;
}
int cublasLtMatmul(void*, Operation* op, const float* alpha, const void* a, Layout* la, const void* b, Layout* lb,
                   const float* beta, const void* c, Layout*, void* d, Layout* ld, const Algorithm* algorithm,
                   void* workspace, size_t bytes, void*) {
    if (algorithm->data[0] != digest(op, la, lb, ld) || algorithm->data[5] > bytes || !workspace) return INVALID;
    const void* addresses[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        if ((uint64_t)addresses[i] % algorithm->data[1 + i]) return INVALID;
    }
    Operation operation = *op;
    Layout A = *la, B = *lb, D = *ld;
    float scale = *alpha, keep = *beta;
    size_t inner = operation.transposed[0] ? A.rows : A.cols;
    if (A.count != D.count || B.count != D.count) return INVALID;
    if ((operation.transposed[0] ? A.cols : A.rows) != D.rows) return INVALID;
    if ((operation.transposed[1] ? B.cols : B.rows) != inner) return INVALID;
    if ((operation.transposed[1] ? B.rows : B.cols) != D.cols) return INVALID;
    std::function<void()> work = [=] {
        for (size_t i = 0; i < D.count * D.cols * D.rows; i++) {
            size_t which = i / (D.cols * D.rows), col = i / D.rows % D.cols, row = i % D.rows;
            float sum = 0;
            for (size_t k = 0; k < inner; k++) {
                size_t in_a = which * A.step + (operation.transposed[0] ? row * A.ld + k : k * A.ld + row);
                size_t in_b = which * B.step + (operation.transposed[1] ? k * B.ld + col : col * B.ld + k);
                sum = fmaf(number(a, A.type, in_a), number(b, B.type, in_b), sum);
            }
            size_t at = which * D.step + col * D.ld + row;
            store(d, D.type, at, scale * sum + (keep != 0 ? keep * number(c, D.type, at) : 0));
        }
    };
    return fake_enqueue(&work), OK;
}

}
