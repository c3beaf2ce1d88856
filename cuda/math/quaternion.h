// Rotation matrix of a quaternion (w, x, y, z) of any length but zero, and its vector-Jacobian product.
#pragma once

#include "math/vec.h"

namespace kinosplat {

// Stored order is w, x, y, z; the struct keeps the names of the components.
template <class T>
struct Quaternion {
    T w, x, y, z;
};

template <class T>
KS_HOST_DEVICE T squared_norm(Quaternion<T> q) {
    return q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z;
}

// A zero quaternion gives non-finite entries, by which callers drop the Gaussian.
template <class T>
KS_HOST_DEVICE Mat3<T> rotation_from_quaternion(Quaternion<T> q) {
    const T s = T(2) / squared_norm(q); // the matrix is quadratic in q: normalising costs one division
    const T xx = s * q.x * q.x, yy = s * q.y * q.y, zz = s * q.z * q.z;
    const T xy = s * q.x * q.y, xz = s * q.x * q.z, yz = s * q.y * q.z;
    const T wx = s * q.w * q.x, wy = s * q.w * q.y, wz = s * q.w * q.z;
    return {{T(1) - yy - zz, xy - wz, xz + wy}, {xy + wz, T(1) - xx - zz, yz - wx}, {xz - wy, yz + wx, T(1) - xx - yy}};
}

template <class T>
KS_HOST_DEVICE Quaternion<T> rotation_from_quaternion_vjp(Quaternion<T> q, Mat3<T> g) {
    const T norm2 = squared_norm(q);
    const T s = T(2) / norm2;
    // Derivative of the unnormalised matrix, then the part along q is taken away (the length of q does not matter).
    const T w = q.x * (g.z.y - g.y.z) + q.y * (g.x.z - g.z.x) + q.z * (g.y.x - g.x.y);
    const T x = q.w * (g.z.y - g.y.z) + q.y * (g.x.y + g.y.x) + q.z * (g.x.z + g.z.x) - T(2) * q.x * (g.y.y + g.z.z);
    const T y = q.w * (g.x.z - g.z.x) + q.x * (g.x.y + g.y.x) + q.z * (g.y.z + g.z.y) - T(2) * q.y * (g.x.x + g.z.z);
    const T z = q.w * (g.y.x - g.x.y) + q.x * (g.x.z + g.z.x) + q.y * (g.y.z + g.z.y) - T(2) * q.z * (g.x.x + g.y.y);
    const T along = (w * q.w + x * q.x + y * q.y + z * q.z) / norm2;
    return {s * (w - along * q.w), s * (x - along * q.x), s * (y - along * q.y), s * (z - along * q.z)};
}

} // namespace kinosplat
