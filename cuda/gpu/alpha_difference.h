// The weighted mean of |rendered - target| of alphas and its gradient; memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

namespace kinosplat::gpu {

struct AlphaDifferenceArrays {
    int64_t n_pixels;
    const float *rendered, *target; // (n_pixels,)
    const float* mask;              // (n_pixels,) or null
    float scale;                    // of the sum over pixels
    float* loss;                    // one number
    float* dL_drendered;            // (n_pixels,)
};

void alpha_difference(const AlphaDifferenceArrays&, cudaStream_t);

} // namespace kinosplat::gpu
