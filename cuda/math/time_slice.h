// Slicing a moving Gaussian at time t. It is the cut form of a 4D Gaussian with covariance [[A, c], [c^T, s]] (design
// of this project; the conditional of a normal distribution):
//     phase = (t - tau) / duration,  mean(t) = mean + displacement * phase,  fade(t) = exp(-phase^2 / 2)
// with duration = sqrt(s) and displacement = c / sqrt(s). The log-duration is what is stored; +inf is a still Gaussian:
// exp(-inf) = 0 makes its phase and all its time gradients exactly zero.
#pragma once

#include "math/vec.h"

namespace kinosplat {

template <class T>
struct TimeSlice {
    Vec3<T> mean; // world units
    T fade;       // factor on the opacity, in (0, 1]
    T phase;      // durations since the time centre
    T rate;       // 1 / duration, 1/s
};

template <class T>
KS_HOST_DEVICE TimeSlice<T> slice_in_time(Vec3<T> mean, Vec3<T> displacement, T time_centre, T log_duration, T time) {
    const T rate = exp(-log_duration);
    const T phase = (time - time_centre) * rate;
    return {mean + phase * displacement, exp(T(-0.5) * phase * phase), phase, rate};
}

template <class T>
struct TimeSliceGradient {
    Vec3<T> displacement;
    T time_centre, log_duration;
};

// The gradient with respect to the stored mean is dL_dmean unchanged.
template <class T>
KS_HOST_DEVICE TimeSliceGradient<T> slice_in_time_vjp(TimeSlice<T> slice, Vec3<T> displacement, Vec3<T> dL_dmean,
                                                      T dL_dfade) {
    const T dL_dphase = dot(dL_dmean, displacement) - slice.phase * slice.fade * dL_dfade;
    return {slice.phase * dL_dmean, -slice.rate * dL_dphase, -slice.phase * dL_dphase};
}

} // namespace kinosplat
