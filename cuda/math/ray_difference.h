// What a ray costs: the Huber loss of its colour over a background, mean over the channels, times its share of the
// batch.
#pragma once

#include "math/vec.h"

namespace kinosplat {

// Half the square up to `delta`, beyond it the tangent there; with delta 0 half the square everywhere.
template <class T>
KS_HOST_DEVICE T huber(T error, T delta) {
    const T size = select(error < T(0), -error, error);
    const bool inside = delta == T(0) || size <= delta;
    return select(inside, T(0.5) * error * error, delta * (size - T(0.5) * delta));
}

template <class T>
KS_HOST_DEVICE T huber_slope(T error, T delta) {
    return delta == T(0) ? error : clamp(error, -delta, delta);
}

template <class T>
struct RayDifference {
    T loss, squared;
    Vec3<T> dL_drgb;
    T dL_dalpha;
};

template <class T>
KS_HOST_DEVICE RayDifference<T> ray_difference(Vec3<T> rgb, T alpha, Vec3<T> background, Vec3<T> target, T share,
                                               T delta) {
    const Vec3<T> error = rgb + (T(1) - alpha) * background - target;
    const T third = share * T(1.0 / 3);
    const Vec3<T> slope =
        third * Vec3<T>{huber_slope(error.x, delta), huber_slope(error.y, delta), huber_slope(error.z, delta)};
    return {third * (huber(error.x, delta) + huber(error.y, delta) + huber(error.z, delta)), third * dot(error, error),
            slope, -dot(slope, background)};
}

} // namespace kinosplat
