// Noise on positions and penalties on what is in view; memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "gpu/frame.h"

namespace kinosplat::gpu {

struct ShakeArrays {
    int n;
    float* means;                                     // (n, 3), moved in place
    const float *quats, *log_scales, *opacity_logits; // (n, 4), (n, 3), (n,)
    float strength;                                   // of the noise
    uint64_t key;                                     // of the random numbers
};

void shake(const ShakeArrays&, cudaStream_t);

struct PenaltyArrays {
    int n;
    const float *opacity_logits, *log_scales;  // (n,), (n, 3)
    const bool* visible;                       // (n,)
    const float *time_centres, *log_durations; // (n,) or null
    int n_times;
    float times[kMaxCameras];           // seconds
    float opacity_weight, scale_weight; // factors on the sums
};

// Writes the weighted sums of opacities and of scales. Where the other two are given, their gradients by opacity logits
// (n,) and log-scales (n, 3) are added there.
void penalties(const PenaltyArrays&, float* sums, float* add_to_opacity_logits, float* add_to_log_scales, cudaStream_t);

// Writes the gradients from those of the two numbers, which are on the device.
void penalties_backward(const PenaltyArrays&, const float* dL_dopacity, const float* dL_dscale,
                        float* dL_dopacity_logits, float* dL_dlog_scales, cudaStream_t);

} // namespace kinosplat::gpu
