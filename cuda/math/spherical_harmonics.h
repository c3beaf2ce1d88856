// Real spherical harmonics up to degree 3 in the basis order and with the signs of the INRIA code, so that its PLY
// files mean the same here. The basis and its vector-Jacobian product are enough: a colour is basis . coefficients, the
// gradient of a coefficient is basis * dL_dcolour, that of the basis is coefficients . dL_dcolour.
#pragma once

#include <type_traits>

#include "constants.h"
#include "math/vec.h"

namespace kinosplat {

constexpr int sh_basis_size(int degree) { return (degree + 1) * (degree + 1); }

// `basis` receives sh_basis_size(kDegree) values for the unit direction d from the camera to the Gaussian.
template <int kDegree, class T>
KS_HOST_DEVICE void sh_basis(Vec3<T> d, T* basis) {
    basis[0] = T(kSh0);
    if constexpr (kDegree >= 1) {
        basis[1] = T(-kSh1) * d.y;
        basis[2] = T(kSh1) * d.z;
        basis[3] = T(-kSh1) * d.x;
    }
    if constexpr (kDegree >= 2) {
        const T xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z;
        basis[4] = T(kSh2_0) * d.x * d.y;
        basis[5] = T(kSh2_1) * d.y * d.z;
        basis[6] = T(kSh2_2) * (T(2) * zz - xx - yy);
        basis[7] = T(kSh2_3) * d.x * d.z;
        basis[8] = T(kSh2_4) * (xx - yy);
        if constexpr (kDegree >= 3) {
            basis[9] = T(kSh3_0) * d.y * (T(3) * xx - yy);
            basis[10] = T(kSh3_1) * d.x * d.y * d.z;
            basis[11] = T(kSh3_2) * d.y * (T(4) * zz - xx - yy);
            basis[12] = T(kSh3_3) * d.z * (T(2) * zz - T(3) * (xx + yy));
            basis[13] = T(kSh3_4) * d.x * (T(4) * zz - xx - yy);
            basis[14] = T(kSh3_5) * d.z * (xx - yy);
            basis[15] = T(kSh3_6) * d.x * (xx - T(3) * yy);
        }
    }
}

// Gradient with respect to the direction, from that of the basis values `g`; d is treated as three free numbers.
template <int kDegree, class T>
KS_HOST_DEVICE Vec3<T> sh_basis_vjp(Vec3<T> d, const T* g) {
    Vec3<T> v{T(0), T(0), T(0)};
    if constexpr (kDegree >= 1)
        v = {T(-kSh1) * g[3], T(-kSh1) * g[1], T(kSh1) * g[2]};
    if constexpr (kDegree >= 2) {
        const T xy = T(kSh2_0) * g[4], yz = T(kSh2_1) * g[5], zz = T(kSh2_2) * g[6], xz = T(kSh2_3) * g[7],
                xx = T(kSh2_4) * g[8];
        v.x = v.x + xy * d.y + xz * d.z + T(2) * d.x * (xx - zz);
        v.y = v.y + xy * d.x + yz * d.z - T(2) * d.y * (xx + zz);
        v.z = v.z + yz * d.y + xz * d.x + T(4) * zz * d.z;
    }
    if constexpr (kDegree >= 3) {
        const T xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z, xy = d.x * d.y, xz = d.x * d.z, yz = d.y * d.z;
        const T a = T(kSh3_0) * g[9], b = T(kSh3_1) * g[10], c = T(kSh3_2) * g[11], e = T(kSh3_3) * g[12],
                f = T(kSh3_4) * g[13], h = T(kSh3_5) * g[14], i = T(kSh3_6) * g[15];
        v.x = v.x + T(6) * a * xy + b * yz - T(2) * c * xy - T(6) * e * xz + f * (T(4) * zz - T(3) * xx - yy) +
              T(2) * h * xz + T(3) * i * (xx - yy);
        v.y = v.y + T(3) * a * (xx - yy) + b * xz + c * (T(4) * zz - xx - T(3) * yy) - T(6) * e * yz - T(2) * f * xy -
              T(2) * h * yz - T(6) * i * xy;
        v.z = v.z + b * xy + T(8) * c * yz + e * (T(6) * zz - T(3) * (xx + yy)) + T(8) * f * xz + h * (xx - yy);
    }
    return v;
}

// Calls function(std::integral_constant<int, degree>), on the host.
template <class Function>
void with_sh_degree(int degree, Function&& function) {
    switch (degree) {
    case 0:
        return function(std::integral_constant<int, 0>{});
    case 1:
        return function(std::integral_constant<int, 1>{});
    case 2:
        return function(std::integral_constant<int, 2>{});
    default:
        return function(std::integral_constant<int, 3>{});
    }
}

} // namespace kinosplat
