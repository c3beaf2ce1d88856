// Colours of a batch of pictures as cameras show them (cuda/math/exposure.h); memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

namespace kinosplat::gpu {

struct ExposureArrays {
    int n_images, n_pixels; // pixels a picture
    const float* rgb;       // (n_images, n_pixels, 3)
    const float* exposures; // (n_images, 3, 4) or null for the identity
    const float* target;    // (n_images, n_pixels, 3), or null where nothing is cut off
    float saturated;        // a target at least this bright may have been any brighter
};

void expose(const ExposureArrays&, float* shown, cudaStream_t);

// `dL_dexposures` is null where there are no exposures.
void expose_backward(const ExposureArrays&, const float* dL_dshown, float* dL_drgb, float* dL_dexposures, cudaStream_t);

} // namespace kinosplat::gpu
