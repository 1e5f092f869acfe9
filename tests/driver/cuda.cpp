// A simulated libcuda.so for machines without a GPU. Device memory is host memory. Work on a stream runs only when
// somebody waits for it, so that tests notice a missing wait. Its kernels are those that `launch` below names.
// Environment variables set its properties: FAKE_INIT (result of cuInit), FAKE_VERSION, FAKE_GPUS, FAKE_CAPABILITY,
// FAKE_MEMORY, FAKE_LOST (nothing on a stream succeeds), and FAKE_ANY: a module has kernels of every name, which take
// no parameters.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

using Result = int;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 100, BAD_IMAGE = 200, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, UNJOINED = 900 };

struct Function {
    std::string name;
    std::vector<size_t> parameters;
    int shared = 0;
};
using Module = std::map<std::string, Function>;
// Work returns whether it is done; if not, it is tried again.
using Work = std::function<bool()>;
struct Graph {
    std::vector<Work> work;
};

static long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

static int context_object, stream_object, device_number;
static thread_local void* current;
static bool capturing, lost;
static Graph recording;
static std::deque<Work> queue;
static std::map<uint64_t, size_t> blocks;
static size_t used;

// Whether these bytes are in one allocation.
static bool inside(uint64_t at, size_t bytes) {
    auto block = blocks.upper_bound(at);
    if (block == blocks.begin()) return false;
    --block;
    return at + bytes <= block->first + block->second;
}

extern "C" {

// For the other simulated libraries and for tests.
void fake_enqueue_until(Work* work) {
    if (capturing) recording.work.push_back(*work);
    else queue.push_back(*work);
}
void fake_enqueue(std::function<void()>* work) {
    Work done = [work = *work] { return work(), true; };
    fake_enqueue_until(&done);
}
bool fake_inside(uint64_t at, size_t bytes) { return inside(at, bytes); }
size_t fake_device() { return device_number; }
void fake_lose() { lost = true; }
size_t fake_allocations() { return blocks.size(); }

Result cuDriverGetVersion(int* version) { return *version = setting("FAKE_VERSION", 13000), OK; }
Result cuInit(unsigned) { return setting("FAKE_INIT", OK); }
Result cuGetErrorString(Result code, const char** text) {
    static const std::map<Result, const char*> texts = {
        {INVALID, "invalid argument"},
        {BAD_IMAGE, "device kernel image is invalid"},
        {NOT_FOUND, "named symbol not found"},
        {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
    };
    auto found = texts.find(code);
    *text = found == texts.end() ? "unknown error" : found->second;
    return OK;
}
Result cuDeviceGetCount(int* n) { return *n = setting("FAKE_GPUS", 1), OK; }
Result cuDeviceGet(int* device, int ordinal) { return *device = ordinal, OK; }
Result cuDeviceGetName(char* name, int n, int) { return strncpy(name, "Fake GPU", n), OK; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = setting("FAKE_MEMORY", 1 << 30), OK; }
Result cuDeviceGetAttribute(int* value, int attribute, int) {
    long capability = setting("FAKE_CAPABILITY", 90);
    switch (attribute) {
        case 16: return *value = 132, OK;              // multiprocessors
        case 75: return *value = capability / 10, OK;  // major
        case 76: return *value = capability % 10, OK;  // minor
        case 97: return *value = 227 * 1024, OK;       // shared memory of a block
        case 115: return *value = 1, OK;               // memory pools
    }
    return INVALID;
}
Result cuDevicePrimaryCtxRetain(void** context, int device) {
    return device_number = device, *context = &context_object, OK;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxGetCurrent(void** context) { return *context = current, OK; }
Result cuCtxSetCurrent(void* context) { return current = context, OK; }

Result cuStreamCreate(void** stream, unsigned) { return *stream = &stream_object, OK; }
Result cuStreamDestroy_v2(void*) { return OK; }
Result cuStreamSynchronize(void*) {
    if (capturing) return UNJOINED;
    if (lost || getenv("FAKE_LOST")) return ILLEGAL_ADDRESS;
    for (; !queue.empty(); queue.pop_front()) {
        while (!queue.front()()) usleep(50);
    }
    return OK;
}
Result cuStreamQuery(void*) {
    if (lost || getenv("FAKE_LOST")) return ILLEGAL_ADDRESS;
    while (!queue.empty() && queue.front()()) queue.pop_front();
    return queue.empty() ? OK : NOT_READY;
}
Result cuStreamBeginCapture_v2(void*, int) { return capturing = true, recording = {}, OK; }
Result cuStreamEndCapture(void*, void** graph) { return capturing = false, *graph = new Graph(recording), OK; }
Result cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
    return *exec = new Graph(*static_cast<Graph*>(graph)), OK;
}
Result cuGraphLaunch(void* exec, void*) {
    auto& work = static_cast<Graph*>(exec)->work;
    return queue.insert(queue.end(), work.begin(), work.end()), OK;
}
Result cuGraphExecDestroy(void* exec) { return delete static_cast<Graph*>(exec), OK; }
Result cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), OK; }

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    return cuDeviceTotalMem_v2(total, 0), *free = *total - used, OK;
}
Result cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    size_t free, total;
    cuMemGetInfo_v2(&free, &total);
    if (!current || capturing) return INVALID;
    if (bytes > free) return NO_MEMORY;
    void* memory = aligned_alloc(512, (bytes + 511) / 512 * 512);
    memset(memory, 0xff, bytes);
    *address = reinterpret_cast<uint64_t>(memory);
    blocks[*address] = bytes;
    used += bytes;
    return OK;
}
Result cuMemFree_v2(uint64_t address) {
    if (!current || !queue.empty() || !blocks.count(address)) return INVALID;
    used -= blocks[address];
    blocks.erase(address);
    free(reinterpret_cast<void*>(address));
    return OK;
}

static Result copy(uint64_t to, uint64_t from, size_t bytes) {
    std::function<void()> work = [=] { memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); };
    return fake_enqueue(&work), OK;
}
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    return inside(to, bytes) && !capturing ? copy(to, reinterpret_cast<uint64_t>(from), bytes) : INVALID;
}
Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    return inside(from, bytes) && !capturing ? copy(reinterpret_cast<uint64_t>(to), from, bytes) : INVALID;
}
Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    return inside(to, bytes) && inside(from, bytes) ? copy(to, from, bytes) : INVALID;
}
Result cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void*) {
    if (!inside(at, bytes)) return INVALID;
    std::function<void()> work = [=] { memset(reinterpret_cast<void*>(at), value, bytes); };
    return fake_enqueue(&work), OK;
}

// Code is text: "FAKE" and a line for each kernel with its name and the sizes of its parameters.
Result cuModuleLoadData(void** module, const void* code) {
    std::istringstream lines(static_cast<const char*>(code));
    std::string line;
    if (!std::getline(lines, line) || line != "FAKE") return BAD_IMAGE;
    auto* loaded = new Module;
    while (std::getline(lines, line)) {
        std::istringstream words(line);
        Function f;
        words >> f.name;
        for (size_t bytes; words >> bytes;) f.parameters.push_back(bytes);
        (*loaded)[f.name] = f;
    }
    return *module = loaded, OK;
}
Result cuModuleGetFunction(void** function, void* module, const char* name) {
    if (getenv("FAKE_ANY")) (*static_cast<Module*>(module))[name] = Function{name, {}};
    auto found = static_cast<Module*>(module)->find(name);
    if (found == static_cast<Module*>(module)->end()) return NOT_FOUND;
    return *function = &found->second, OK;
}
Result cuFuncGetParamInfo(void* function, size_t i, size_t* offset, size_t* bytes) {
    auto& parameters = static_cast<Function*>(function)->parameters;
    if (i >= parameters.size()) return INVALID;
    return *offset = 8 * i, *bytes = parameters[i], OK;
}
Result cuFuncGetAttribute(int* value, int attribute, void*) {
    if (attribute == 0) return *value = 256, OK;   // threads of a block
    if (attribute == 1) return *value = 1024, OK;  // static shared memory
    return INVALID;
}
Result cuFuncSetAttribute(void* function, int attribute, int value) {
    return attribute == 8 ? (static_cast<Function*>(function)->shared = value, OK) : INVALID;
}

// `fill` writes its number to every element, `add` adds one to them: (float* x, float value, int n). `add_received` adds other
// numbers: (float* x, const float* y, int n).
Result cuLaunchKernel(void* function, unsigned bx, unsigned by, unsigned bz, unsigned tx, unsigned, unsigned,
                      unsigned shared, void*, void** parameters, void**) {
    auto& f = *static_cast<Function*>(function);
    if (f.shared < (int)shared) return INVALID;
    float *x, *y, value;
    int n;
    memcpy(&x, parameters[0], sizeof x);
    memcpy(&n, parameters[2], sizeof n);
    if ((size_t)bx * by * bz * tx < (size_t)n) return INVALID;
    if (f.name == "add_received") {
        memcpy(&y, parameters[1], sizeof y);
        std::function<void()> work = [=] {
            for (int i = 0; i < n; i++) x[i] += y[i];
        };
        return fake_enqueue(&work), OK;
    }
    memcpy(&value, parameters[1], sizeof value);
    bool add = f.name == "add";
    std::function<void()> work = [=] {
        for (int i = 0; i < n; i++) x[i] = add ? x[i] + value : value;
    };
    return fake_enqueue(&work), OK;
}

}
