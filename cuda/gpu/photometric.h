// The photometric loss of a batch of pictures; memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

namespace kinosplat::gpu {

// Sums of one picture, all weighted by its mask.
struct PhotometricSums {
    double difference; // of |a - b|
    double similarity; // of SSIM
    double squared;    // of (a - b)^2
    double weight;     // of the mask, three times a pixel
};

struct PhotometricArrays {
    int n_images, height, width;
    const float *rendered, *target; // (n, height, width, 3)
    const float* mask;              // (n, height, width) or null
    float ssim_weight;              // w
    PhotometricSums* sums;          // (n,)
    float* loss;                    // (1 - w) mean |a - b| + w (1 - mean SSIM), 0 when the mask hides everything
    float* squared_error;           // mean
    float* terms;                   // (3, n, height, width, 3) scratch, null when no gradient is wanted
    float* dL_drendered;            // (n, height, width, 3), written when there are terms

    __host__ __device__ int64_t n_numbers() const { return int64_t(n_images) * height * width * 3; }
};

void photometric(const PhotometricArrays&, cudaStream_t);

} // namespace kinosplat::gpu
