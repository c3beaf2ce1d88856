// What CUDA reports becomes an exception that names the pass.
#pragma once

#include <cuda_runtime.h>
#include <stdexcept>
#include <string>

namespace kinosplat::gpu {

inline void check(cudaError_t status, const char* pass) {
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(pass) + ": " + cudaGetErrorString(status));
}

// After every launch: a bad configuration or an architecture missing from the build shows up here.
inline void check_launch(const char* pass) { check(cudaGetLastError(), pass); }

} // namespace kinosplat::gpu
