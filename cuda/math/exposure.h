// How a camera shows the colours of a scene: an affine map (exposure, white balance, gamma in first order), and a
// sensor that ends at 1.
#pragma once

#include "math/vec.h"

namespace kinosplat {

constexpr int kExposureNumbers = 12; // a row a colour: three factors and an offset

template <class T>
struct Exposure {
    Mat3<T> matrix;
    Vec3<T> offset;
};

template <class T>
KS_HOST_DEVICE Exposure<T> no_exposure() {
    return {{{T(1), T(0), T(0)}, {T(0), T(1), T(0)}, {T(0), T(0), T(1)}}, {T(0), T(0), T(0)}};
}

// From the rows of a (3, 4) array.
template <class T>
KS_HOST_DEVICE Exposure<T> exposure_from_rows(const T* e) {
    return {{{e[0], e[1], e[2]}, {e[4], e[5], e[6]}, {e[8], e[9], e[10]}}, {e[3], e[7], e[11]}};
}

template <class T>
KS_HOST_DEVICE void rows_from_exposure(const Exposure<T>& e, T* rows) {
    const Vec3<T> factors[3] = {e.matrix.x, e.matrix.y, e.matrix.z};
    const T offsets[3] = {e.offset.x, e.offset.y, e.offset.z};
    for (int k = 0; k < 3; ++k) {
        rows[4 * k] = factors[k].x;
        rows[4 * k + 1] = factors[k].y;
        rows[4 * k + 2] = factors[k].z;
        rows[4 * k + 3] = offsets[k];
    }
}

template <class T>
KS_HOST_DEVICE Vec3<T> exposed(const Exposure<T>& e, Vec3<T> rgb) {
    return e.matrix * rgb + e.offset;
}

// Whether a channel is cut off: beyond 1 where the target has reached the sensor's end, and only there.
template <class T>
KS_HOST_DEVICE bool is_cut_off(T shown, T target, T saturated) {
    return target >= saturated && shown > T(1);
}

template <class T>
KS_HOST_DEVICE Vec3<T> cut_off(Vec3<T> shown, Vec3<T> target, T saturated) {
    return {is_cut_off(shown.x, target.x, saturated) ? T(1) : shown.x,
            is_cut_off(shown.y, target.y, saturated) ? T(1) : shown.y,
            is_cut_off(shown.z, target.z, saturated) ? T(1) : shown.z};
}

// The gradient by `shown`, from that by its cut-off colour.
template <class T>
KS_HOST_DEVICE Vec3<T> cut_off_vjp(Vec3<T> shown, Vec3<T> target, T saturated, Vec3<T> dL) {
    return {is_cut_off(shown.x, target.x, saturated) ? T(0) : dL.x,
            is_cut_off(shown.y, target.y, saturated) ? T(0) : dL.y,
            is_cut_off(shown.z, target.z, saturated) ? T(0) : dL.z};
}

// Adds to a gradient by the exposure what one pixel has; that by the pixel is the transposed matrix times dL.
template <class T>
KS_HOST_DEVICE void add_exposure_vjp(Exposure<T>& sum, Vec3<T> rgb, Vec3<T> dL) {
    sum.matrix = sum.matrix + outer(dL, rgb);
    sum.offset = sum.offset + dL;
}

} // namespace kinosplat
