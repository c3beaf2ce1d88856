// What training as Markov chain Monte Carlo (Kheradmand et al. 2024) asks of every Gaussian at every step: noise on the
// position, and penalties on opacity and scale of what is in view.
#pragma once

#include "math/quaternion.h"
#include "math/random.h"
#include "math/time_slice.h"

namespace kinosplat {

constexpr double kNoiseSharpness = 100;   // slope k of the noise's sigmoid in 1 - opacity (paper, equation 9)
constexpr double kNoiseOpacity = 0.005;   // opacity at which the noise has half its strength
constexpr double kNoiselessOpacity = 0.1; // at which less than a ten-thousandth of it is left: nothing is added

// Whether a Gaussian is transparent enough to be moved at all.
template <class T>
KS_HOST_DEVICE bool is_shaken(T opacity_logit) {
    return sigmoid(opacity_logit) < T(kNoiselessOpacity);
}

// The noise of the paper's equation 8: a standard normal vector times the covariance, strong where opacity is low.
template <class T>
KS_HOST_DEVICE Vec3<T> position_noise(Quaternion<T> quat, Vec3<T> log_scale, T opacity_logit, T strength, uint64_t key,
                                      uint64_t index) {
    const T fading = sigmoid(T(-kNoiseSharpness) * (sigmoid(opacity_logit) - T(kNoiseOpacity)));
    const Mat3<T> rotation = rotation_from_quaternion(quat);
    const Vec3<T> variance{exp(T(2) * log_scale.x), exp(T(2) * log_scale.y), exp(T(2) * log_scale.z)};
    const Vec3<T> local = transposed_times(rotation, standard_normal3<T>(key, index));
    return (strength * fading) * (rotation * (variance * local));
}

// How much of a Gaussian is there at the moments of a batch: the largest of its fades.
template <class T>
KS_HOST_DEVICE T largest_fade(T time_centre, T log_duration, const T* times, int n_times) {
    T largest = T(0);
    for (int k = 0; k < n_times; ++k)
        largest = maximum(largest, slice_in_time(Vec3<T>{}, Vec3<T>{}, time_centre, log_duration, times[k]).fade);
    return largest;
}

// Contributions of one Gaussian in view to the two penalties, before their weights.
template <class T>
struct PenaltyPoint {
    T opacity, scale;
};

template <class T>
KS_HOST_DEVICE PenaltyPoint<T> penalty_point(T opacity_logit, Vec3<T> log_scale, T fade) {
    return {fade * sigmoid(opacity_logit), fade * (exp(log_scale.x) + exp(log_scale.y) + exp(log_scale.z))};
}

template <class T>
struct PenaltyGradient {
    T opacity_logit;
    Vec3<T> log_scale;
};

// The fade is no variable: a penalty must not push a Gaussian out of the moment.
template <class T>
KS_HOST_DEVICE PenaltyGradient<T> penalty_point_vjp(T opacity_logit, Vec3<T> log_scale, T fade, PenaltyPoint<T> dL) {
    const T opacity = sigmoid(opacity_logit), s = dL.scale * fade;
    return {dL.opacity * fade * opacity * (T(1) - opacity),
            {s * exp(log_scale.x), s * exp(log_scale.y), s * exp(log_scale.z)}};
}

} // namespace kinosplat
