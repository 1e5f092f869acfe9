// A simulated libnvrtc.so: the code of a source is the word FAKE, followed by its lines "//! …". It refuses a source
// with "#error", and an architecture that it does not know. FAKE_COMPILATIONS names a file that gets one letter per
// compilation, FAKE_ARCHS holds the architectures that it knows, such as "80 90".
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

struct Program {
    std::string source, code, log;
    bool headers;
};

static std::vector<int> archs() {
    const char* text = getenv("FAKE_ARCHS");
    std::istringstream numbers(text ? text : "75 80 86 87 88 89 90 100 103 110 120 121");
    std::vector<int> known;
    for (int number; numbers >> number;) known.push_back(number);
    return known;
}

extern "C" {

int nvrtcGetNumSupportedArchs(int* count) { return *count = archs().size(), 0; }
int nvrtcGetSupportedArchs(int* numbers) {
    for (int arch : archs()) *numbers++ = arch;
    return 0;
}
int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, 0; }

int nvrtcCreateProgram(Program** program, const char* source, const char*, int n, const char* const* headers,
                       const char* const* names) {
    bool found = false;
    for (int i = 0; i < n; i++) found |= !strcmp(names[i], "common.cuh") && strstr(headers[i], "#include \"ptx.cuh\"");
    *program = new Program{source, "", "", found};
    return 0;
}

int nvrtcCompileProgram(Program* p, int n, const char* const* options) {
    if (const char* path = getenv("FAKE_COMPILATIONS")) {
        FILE* file = fopen(path, "a");
        fputc('c', file);
        fclose(file);
    }
    std::string all;
    for (int i = 0; i < n; i++) all += options[i] + std::string(" ");
    bool told = all.find("-DSTORAGE=") != std::string::npos, known = false;
    for (int arch : archs()) {
        std::string name = "--gpu-architecture=sm_" + std::to_string(arch);
        known |= all.find(name + ' ') == 0 || all.find(name + "a ") == 0;
    }
    if (!known) {
        p->log = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
        return 5;
    }
    if (!p->headers || !told || p->source.find("#error") != std::string::npos) {
        p->log = "In file included from nowhere\nm.cu(1): error: not today\n1 error detected\n";
        return 6;
    }
    p->code = "FAKE\n";
    for (size_t at = 0; (at = p->source.find("//! ", at)) != std::string::npos; at++) {
        p->code += p->source.substr(at + 4, p->source.find('\n', at) - at - 3);
    }
    // The kernel of the program that the simulated driver has.
    if (p->source.find(" add_received(") != std::string::npos) p->code += "add_received 8 8 4\n";
    p->code += '\0';
    return 0;
}

int nvrtcGetProgramLogSize(Program* p, size_t* n) { return *n = p->log.size() + 1, 0; }
int nvrtcGetProgramLog(Program* p, char* to) { return memcpy(to, p->log.c_str(), p->log.size() + 1), 0; }
int nvrtcGetCUBINSize(Program* p, size_t* n) { return *n = p->code.size(), 0; }
int nvrtcGetCUBIN(Program* p, char* to) { return memcpy(to, p->code.data(), p->code.size()), 0; }
int nvrtcDestroyProgram(Program** p) { return delete *p, *p = nullptr, 0; }

}
