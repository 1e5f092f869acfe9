// A simulated libnccl.so.2: messages between processes go through a file that the id names and all map. As the manual says of a
// communicator that does not block, a function only begins its work, which goes on when somebody asks for its state; and a message
// waits for its receiver. It refuses wrong requests: a call before the last one's work has begun, messages outside a group, of
// another type, or outside the GPU's memory; a message of another length is an error. FAKE_NCCL_VERSION sets the version.
// FAKE_NCCL_ERROR=n: the n-th group of messages fails after it has begun.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

enum { OK = 0, CUDA = 1, SYSTEM = 2, ARGUMENT = 4, USAGE = 5, REMOTE = 6, BEGUN = 7, UINT8 = 1, FLOAT32 = 7, MOST = 4, LONGEST = 1 << 16 };

struct Box {
    std::atomic<uint64_t> written, read;
    uint64_t bytes;
    char data[LONGEST];
};
struct Shared {
    std::atomic<int> arrived;
    Box boxes[MOST][MOST];  // From, to.
};
struct Id {
    char path[128];
};
struct Config {
    size_t size;
    unsigned magic;
    int version, blocking;
};
struct Message {
    char* at;
    size_t bytes;
    int peer;
    bool sends, posted = false, done = false;
};
struct Comm {
    Shared* shared;
    std::string path;
    int rank, size;
    // Questions for its state until what was begun happens.
    int questions;
    std::function<void()> begun;
    int error = OK;
    bool joined = false, finalized = false;
    std::atomic<bool> aborted = false;
};

static size_t groups, aborted, ended, misuses;
static bool grouping;
static std::vector<Message> group;
static std::string last;

extern "C" {
void fake_enqueue_until(std::function<bool()>* work);
bool fake_inside(uint64_t at, size_t bytes);
int cuCtxGetCurrent(void** context);
}

static int refuse(int code, const char* why) { return misuses++, last = why, code; }

// Why a call cannot be made now.
static int blocked(Comm* comm) {
    void* context;
    cuCtxGetCurrent(&context);
    if (!context) return refuse(CUDA, "no context is current");
    if (comm && (comm->begun || !comm->joined || comm->finalized)) return refuse(USAGE, "the last call has not ended");
    return OK;
}

static int begin(Comm* comm, std::function<void()> work) { return comm->questions = 2, comm->begun = work, BEGUN; }

// Whether a message has got through.
static bool pass(Comm* comm, Message& m) {
    if (m.sends) {
        Box& box = comm->shared->boxes[comm->rank][m.peer];
        if (!m.posted) {
            if (box.written != box.read) return false;
            memcpy(box.data, m.at, box.bytes = m.bytes);
            box.written++;
            m.posted = true;
        }
        return box.written == box.read;
    }
    Box& box = comm->shared->boxes[m.peer][comm->rank];
    if (box.written == box.read || comm->error) return false;
    if (box.bytes != m.bytes) return last = "a message of another length", comm->error = USAGE, false;
    memcpy(m.at, box.data, m.bytes);
    box.read++;
    return true;
}

// Messages that go at once.
static int launch(Comm* comm, std::vector<Message> messages) {
    for (auto& m : messages) {
        if (m.bytes && !fake_inside((uint64_t)m.at, m.bytes)) return refuse(ARGUMENT, "not memory of the GPU");
        if (m.bytes > LONGEST || m.peer < 0 || m.peer >= comm->size || m.peer == comm->rank) return refuse(ARGUMENT, "no such peer");
    }
    const char* fails = getenv("FAKE_NCCL_ERROR");
    bool failing = ++groups == (size_t)atol(fails ? fails : "0");
    auto open = std::make_shared<std::vector<Message>>(messages);
    return begin(comm, [=] {
        std::function<bool()> work = [=] {
            if (comm->aborted) return true;
            if (failing) return last = "connection closed", comm->error = REMOTE, false;
            // Messages to or from one process pass one after the other.
            unsigned waiting = 0;
            for (auto& m : *open) {
                unsigned way = 1u << (2 * m.peer + m.sends);
                m.done = m.done || (!(waiting & way) && pass(comm, m));
                if (!m.done) waiting |= way;
            }
            return !waiting;
        };
        fake_enqueue_until(&work);
    });
}

static int message(const void* at, size_t count, int type, int peer, bool sends) {
    if (!grouping) return refuse(USAGE, "a message outside a group");
    if (type != FLOAT32) return refuse(ARGUMENT, "another type");
    return group.push_back({(char*)at, 4 * count, peer, sends}), OK;
}

extern "C" {

// For tests.
size_t fake_groups() { return groups; }
size_t fake_aborted() { return aborted; }
size_t fake_ended() { return ended; }
size_t fake_misuses() { return misuses; }

int ncclGetVersion(int* version) {
    const char* text = getenv("FAKE_NCCL_VERSION");
    return *version = text ? atoi(text) : 22703, OK;
}
const char* ncclGetErrorString(int code) {
    static const char* texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument",
                                  "invalid usage", "remote process exited or there was a network error", "NCCL operation in progress"};
    return texts[code];
}
const char* ncclGetLastError(Comm*) { return last.c_str(); }

int ncclGetUniqueId(Id* id) {
    *id = {"/tmp/fake-nccl-XXXXXX"};
    int file = mkstemp(id->path);
    if (file < 0 || ftruncate(file, sizeof(Shared))) return SYSTEM;
    return close(file), OK;
}
int ncclCommInitRankConfig(Comm** comm, int size, Id id, int rank, Config* config) {
    if (int why = blocked(nullptr)) return why;
    if (config->size < sizeof(Config) || config->magic != 0xcafebeef || config->blocking) return refuse(ARGUMENT, "the configuration");
    if (size > MOST || rank >= size) return refuse(ARGUMENT, "the number of processes");
    int file = open(id.path, O_RDWR);
    void* shared = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) return SYSTEM;
    close(file);
    *comm = new Comm{static_cast<Shared*>(shared), id.path, rank, size, 2, [] {}};
    return (*comm)->shared->arrived++, BEGUN;
}
int ncclCommGetAsyncError(Comm* comm, int* state) {
    if (comm->begun && --comm->questions <= 0) {
        if (!comm->joined && comm->shared->arrived < comm->size) return *state = BEGUN, OK;
        if (!comm->joined) unlink(comm->path.c_str());
        comm->joined = true;
        comm->begun();
        comm->begun = nullptr;
    }
    return *state = comm->error ? comm->error : comm->begun ? BEGUN : OK, OK;
}
int ncclCommFinalize(Comm* comm) {
    if (int why = blocked(comm)) return why;
    return begin(comm, [=] { comm->finalized = true; });
}
int ncclCommDestroy(Comm* comm) {
    if (!comm->finalized) return refuse(USAGE, "work may be under way");
    return ended++, delete comm, OK;
}
int ncclCommAbort(Comm* comm) { return comm->aborted = true, aborted++, OK; }  // Its work may still be on the stream.

int ncclGroupStart() { return grouping ? refuse(USAGE, "a group in a group") : (grouping = true, OK); }
static Comm* of_group;
int ncclSend(const void* at, size_t count, int type, int peer, Comm* comm, void*) {
    if (int why = blocked(of_group = comm)) return why;
    return message(at, count, type, peer, true);
}
int ncclRecv(void* at, size_t count, int type, int peer, Comm* comm, void*) {
    if (int why = blocked(of_group = comm)) return why;
    return message(at, count, type, peer, false);
}
int ncclGroupEnd() {
    if (!grouping) return refuse(USAGE, "no group");
    grouping = false;
    auto messages = std::move(group);
    group.clear();
    return messages.empty() ? (int)OK : launch(of_group, messages);
}
int ncclBroadcast(const void* from, void* to, size_t count, int type, int root, Comm* comm, void*) {
    if (int why = blocked(comm)) return why;
    if (type != UINT8 || from != to || root || grouping) return refuse(ARGUMENT, "another broadcast than that of bytes in place");
    std::vector<Message> messages;
    for (int peer = 1; peer < comm->size && !comm->rank; peer++) messages.push_back({(char*)to, count, peer, true});
    if (comm->rank) messages.push_back({(char*)to, count, 0, false});
    return launch(comm, messages);
}

}
