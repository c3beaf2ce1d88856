// The shape of a small multilayer perceptron: no biases, ReLU between layers, linear end. A layer's weights are
// (widths[l + 1], widths[l]), as torch.nn.Linear keeps them: outputs = inputs W^T.
#pragma once

#include <cstdint>

#include "math/scalar.h"

namespace kinosplat {

constexpr int kMaxMlpLayers = 8;

// Numbers a row of inputs or outputs of any layer may have: what the GPU's kernels keep in registers and shared memory.
constexpr int kMaxMlpWidth = 128;

struct MlpShape {
    int n_layers;
    int widths[kMaxMlpLayers + 1]; // inputs, hidden layers, outputs

    KS_HOST_DEVICE int n_inputs() const { return widths[0]; }
    KS_HOST_DEVICE int n_outputs() const { return widths[n_layers]; }
};

} // namespace kinosplat
