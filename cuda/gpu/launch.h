// What a launch has to know about the current device and about a kernel.
#pragma once

#include <algorithm>

#include "gpu/check.h"

namespace kinosplat::gpu {

inline int device_attribute(cudaDeviceAttr attribute) {
    int device, value;
    check(cudaGetDevice(&device), "device");
    check(cudaDeviceGetAttribute(&value, attribute, device), "device");
    return value;
}

inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }

// Shared memory that a block may ask for.
inline int most_shared_bytes() { return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

// Lets a kernel have that much shared memory.
template <class Kernel>
void allow_shared_bytes(Kernel kernel, int n_bytes, const char* pass) {
    if (n_bytes > most_shared_bytes())
        throw std::runtime_error(std::string(pass) + ": the networks need " + std::to_string(n_bytes) +
                                 " bytes of shared memory a block and this GPU has " +
                                 std::to_string(most_shared_bytes()) + "; use fewer or narrower layers");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, n_bytes), pass);
}

// Blocks of a kernel that a multiprocessor holds at a time.
template <class Kernel>
int blocks_at_once(Kernel kernel, int n_threads, int n_bytes, const char* pass) {
    int n;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, kernel, n_threads, n_bytes), pass);
    return std::max(1, n);
}

} // namespace kinosplat::gpu
