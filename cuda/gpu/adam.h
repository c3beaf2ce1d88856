// One Adam step over rows of numbers; memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "math/adam.h"

namespace kinosplat::gpu {

struct AdamArrays {
    int64_t n_rows;
    int row_size;
    float* parameter;
    const float* gradient;
    float *first, *second;
    const bool* visible; // (n_rows,) or null: rows that are not visible stay as they are
};

void adam_step(const AdamArrays&, const AdamSettings<float>&, cudaStream_t);

} // namespace kinosplat::gpu
