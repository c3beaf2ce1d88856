// One Adam step over a row set: all tensors whose rows belong together, in one kernel. Memory is the caller's.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "math/adam.h"

namespace kinosplat::gpu {

// The table travels with the kernel's arguments, which are limited to 4 KiB.
constexpr int kMaxAdamTensors = 32;

struct AdamTensor {
    float* parameter; // (n_rows, row_size), like the other three; all start at multiples of 16 bytes
    const float* gradient;
    float *first, *second;
    uint32_t row_size;
    AdamSettings<float> settings;
};

// Rows that broke off a step because a gradient was not finite.
struct DroppedCounts {
    uint64_t n_rows, n_steps;
    uint64_t last_step; // the last one that lost rows
};

struct AdamRows {
    int64_t n_rows;
    const bool* visible;    // (n_rows,) or null: rows that are not visible stay as they are
    bool sparse;            // so do rows whose gradients are all zero
    DroppedCounts* dropped; // or null
    uint64_t step;          // from 1
    int n_tensors;
    AdamTensor tensors[kMaxAdamTensors];
};

// A row with a gradient that is not finite, in any tensor, stays as it is in all of them and is counted.
void adam_step(const AdamRows&, cudaStream_t);

} // namespace kinosplat::gpu
