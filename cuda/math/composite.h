// Volume rendering along a ray (Max 1995) and the distortion of its weights (Barron et al. 2022, "Mip-NeRF 360",
// equation 15), sample by sample from front to back:
//
//     step_i = exp(-density_i dt_i),   weight_i = T_i (1 - step_i),   T_{i+1} = T_i step_i,   T_0 = 1
//     distortion = 2 sum_i weight_i (m_i W_i - M_i) + 1/3 sum_i weight_i^2 dt_i
//
// with m the midpoint, W_i and M_i the sums of weight and of weight m over the samples before i: the double sum of the
// paper, since midpoints increase along the ray. A ray ends behind the first sample that leaves T below `stop`.
#pragma once

#include "math/vec.h"

namespace kinosplat {

// Sums over a ray, or over the part of it that has been passed.
template <class T>
struct RaySums {
    T weight;
    Vec3<T> rgb;
    T depth; // of weight times midpoint
    T distortion;
};

template <class T>
KS_HOST_DEVICE T distortion_of_sample(T weight, T dt, T mid, T weight_before, T depth_before) {
    return weight * (T(2) * (mid * weight_before - depth_before) + T(1.0 / 3) * weight * dt);
}

// Gradients of the loss by what was rendered of a ray.
template <class T>
struct RayGradient {
    Vec3<T> rgb;
    T alpha, depth, distortion;
};

// Sum over all samples of weight times the gradient by the weight. Everything is linear in the weights but the
// distortion, which is a quadratic form and so counts twice.
template <class T>
KS_HOST_DEVICE T weighted_gradients(const RayGradient<T>& g, const RaySums<T>& total) {
    return dot(g.rgb, total.rgb) + g.alpha * total.weight + g.depth * total.depth +
           T(2) * g.distortion * total.distortion;
}

// Gradient by the weight of one sample, from the sums before it and those of the whole ray.
template <class T>
KS_HOST_DEVICE T weight_gradient(const RayGradient<T>& g, Vec3<T> rgb, T weight, T dt, T mid, T weight_before,
                                 T depth_before, const RaySums<T>& total) {
    const T weight_behind = total.weight - weight_before - weight;
    const T depth_behind = total.depth - depth_before - weight * mid;
    const T d_distortion =
        T(2) * (mid * (weight_before - weight_behind) - (depth_before - depth_behind)) + T(2.0 / 3) * weight * dt;
    return dot(g.rgb, rgb) + g.alpha + g.depth * mid + g.distortion * d_distortion;
}

// Gradient by the density: a denser sample weighs more and hides what is behind it. `behind` is the sum of weight times
// gradient over the samples behind.
template <class T>
KS_HOST_DEVICE T density_gradient(T dt, T transmittance_after, T dL_dweight, T behind) {
    return dt * (transmittance_after * dL_dweight - behind);
}

} // namespace kinosplat
