// The photometric loss of a batch of pictures; memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

namespace kinosplat::gpu {

struct PhotometricArrays {
    int n_images, height, width;
    const float *rendered, *target; // (n, height, width, 3)
    const float* mask;              // (n, height, width) or null
    float ssim_weight, inverse_count;
    double* sums;        // (n, 2) of |a - b| and of SSIM, both masked
    float* terms;        // (3, n, height, width, 3) scratch, null when no gradient is wanted
    float* dL_drendered; // (n, height, width, 3), written when there are terms

    __host__ __device__ int64_t n_numbers() const { return int64_t(n_images) * height * width * 3; }
};

void photometric(const PhotometricArrays&, cudaStream_t);

} // namespace kinosplat::gpu
