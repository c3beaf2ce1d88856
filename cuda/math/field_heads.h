// What networks say of a sample made into density and colour, and the gradients back through that. The density is
// scale exp(x), cut off above; its gradient is that of exp(x) cut off on both sides, so that it never vanishes. A
// saliency p gates a hollow field (HollowNeRF, Xie et al. 2023): features p f, density times tanh(sharpness p |f|).
#pragma once

#include "constants.h"
#include "math/vec.h"

namespace kinosplat {

using std::tanh;

template <class T>
KS_HOST_DEVICE T density_of(T log_density, T scale) {
    return scale * exp(minimum(log_density, T(kLargestLogDensity)));
}

template <class T>
KS_HOST_DEVICE T density_slope(T log_density, T scale) {
    return scale * exp(clamp(log_density, T(-kLargestLogDensity), T(kLargestLogDensity)));
}

// Gradient by the logit of a sigmoid with the value y.
template <class T>
KS_HOST_DEVICE T sigmoid_vjp(T y, T dL_dy) {
    return dL_dy * y * (T(1) - y);
}

template <class T>
KS_HOST_DEVICE T gate_of(T sharpness, T saliency, T length) {
    return tanh(sharpness * saliency * length);
}

// Gradient by the saliency's logit: by way of the gated features, `along` being their gradient times the features, and
// by way of the gate.
template <class T>
KS_HOST_DEVICE T saliency_vjp(T sharpness, T saliency, T length, T gate, T along, T dL_dgate) {
    const T dL_dsaliency = along + dL_dgate * (T(1) - gate * gate) * sharpness * length;
    return sigmoid_vjp(saliency, dL_dsaliency);
}

} // namespace kinosplat
