// What a process does with numbers that it got from another one.
#include "common.cuh"

// x += y. A thread for each of n numbers.
extern "C" __global__ void add_received(T* x, const T* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) store(x + i, load(x + i) + load(y + i));
}
