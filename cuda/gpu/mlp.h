// The multilayer perceptron of the CUDA backend (math/mlp.h): operands of 16 bits, sums in float, each pass one kernel.
//
// Nothing is kept between the passes: the backward pass computes the hidden layers again, in shared memory. Gradients
// of hidden layers would vanish in 16 bits; so every block of samples scales those of its outputs by a power of two to
// kLargestGradient and takes the scale out again in float. Callers scale no losses.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "math/mlp.h"

namespace kinosplat::gpu {

// Power of two that a block's largest gradient of an output is scaled to: 2^9 below the largest 16-bit number, for
// gradients that grow on their way back, and 2^20 above the smallest normal one.
constexpr int kLargestGradientExponent = 6;

struct MlpArrays {
    MlpShape shape;
    int64_t n_samples;
    const int32_t* count; // where the device keeps how many of these are in use; null: all
    const void* inputs;   // (n_samples, n_inputs) float, or 16 bits
    bool half_inputs;
    const float* weights[kMaxMlpLayers]; // (widths[l + 1], widths[l])
};

void mlp_forward(const MlpArrays&, float* outputs, cudaStream_t);

struct MlpGradients {
    const float* dL_doutputs;          // (n_samples, n_outputs)
    float* dL_dinputs;                 // optional (n_samples, n_inputs)
    float* dL_dweights[kMaxMlpLayers]; // like the weights
    float* partial;                    // (n_blocks, numbers of all weights) scratch
    int n_blocks;                      // mlp_gradient_blocks
};

// Blocks of the backward pass, each with a gradient of the weights of its own: sums do not depend on who is faster.
int mlp_gradient_blocks(int64_t n_samples);

void mlp_backward(const MlpArrays&, const MlpGradients&, cudaStream_t);

} // namespace kinosplat::gpu
