// The target of a rendering from the bytes of a picture (cuda/math/target.h); memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

namespace kinosplat::gpu {

struct TargetArrays {
    int n_pixels, n_channels; // 3 or 4
    const uint8_t* pixels;    // (n_pixels, n_channels)
    const uint8_t* mask;      // (n_pixels,) or null
    bool mask_cuts_out;       // it ends the scene, else it weighs pixels
    const float* background;  // (3,)
    float* rgb;               // (n_pixels, 3)
    float *alpha, *weight;    // (n_pixels,), null where not wanted
};

void compose_target(const TargetArrays&, cudaStream_t);

} // namespace kinosplat::gpu
