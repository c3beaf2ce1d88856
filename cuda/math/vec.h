// Small vectors and matrices as plain structs that stay in registers. Matrices are kept as rows.
#pragma once

#include <cstdint>
#include <type_traits>

#include "math/scalar.h"

namespace kinosplat {

template <class T>
struct Vec2 {
    T x, y;
};

template <class T>
struct Vec3 {
    T x, y, z;
};

template <class T>
struct Vec4 {
    T x, y, z, w;
};

// A symmetric 2x2 matrix [[xx, xy], [xy, yy]]. As a gradient with respect to one, xy is the derivative with respect to
// each of the two equal entries on its own, so that the chain rule is plain matrix algebra.
template <class T>
struct Sym2 {
    T xx, xy, yy;
};

template <class T>
struct Mat3 {
    Vec3<T> x, y, z; // rows
};

template <class T>
KS_HOST_DEVICE Vec3<T> operator+(Vec3<T> a, Vec3<T> b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <class T>
KS_HOST_DEVICE Vec3<T> operator-(Vec3<T> a, Vec3<T> b) {
    return {a.x - b.x, a.y - b.y, a.z - b.z};
}

template <class T>
KS_HOST_DEVICE Vec3<T> operator*(T s, Vec3<T> a) {
    return {s * a.x, s * a.y, s * a.z};
}

// Elementwise.
template <class T>
KS_HOST_DEVICE Vec3<T> operator*(Vec3<T> a, Vec3<T> b) {
    return {a.x * b.x, a.y * b.y, a.z * b.z};
}

template <class T>
KS_HOST_DEVICE T dot(Vec3<T> a, Vec3<T> b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <class T>
KS_HOST_DEVICE T dot(Vec4<T> a, Vec4<T> b) {
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

template <class T>
KS_HOST_DEVICE Vec3<T> cross(Vec3<T> a, Vec3<T> b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class T>
KS_HOST_DEVICE Mat3<T> operator+(Mat3<T> a, Mat3<T> b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <class T>
KS_HOST_DEVICE Vec3<T> operator*(Mat3<T> m, Vec3<T> v) {
    return {dot(m.x, v), dot(m.y, v), dot(m.z, v)};
}

template <class T>
KS_HOST_DEVICE Mat3<T> transpose(Mat3<T> m) {
    return {{m.x.x, m.y.x, m.z.x}, {m.x.y, m.y.y, m.z.y}, {m.x.z, m.y.z, m.z.z}};
}

// m^T v, without forming the transpose.
template <class T>
KS_HOST_DEVICE Vec3<T> transposed_times(Mat3<T> m, Vec3<T> v) {
    return v.x * m.x + v.y * m.y + v.z * m.z;
}

template <class T>
KS_HOST_DEVICE Mat3<T> operator*(Mat3<T> a, Mat3<T> b) {
    return {transposed_times(b, a.x), transposed_times(b, a.y), transposed_times(b, a.z)};
}

// a b^T.
template <class T>
KS_HOST_DEVICE Mat3<T> outer(Vec3<T> a, Vec3<T> b) {
    return {a.x * b, a.y * b, a.z * b};
}

// m diag(s): column k times s_k.
template <class T>
KS_HOST_DEVICE Mat3<T> scale_columns(Mat3<T> m, Vec3<T> s) {
    return {m.x * s, m.y * s, m.z * s};
}

// Row i of an (n, 3) array.
template <class T>
KS_HOST_DEVICE Vec3<std::remove_const_t<T>> load3(T* rows, int64_t i) {
    return {rows[3 * i], rows[3 * i + 1], rows[3 * i + 2]};
}

template <class T>
KS_HOST_DEVICE void store3(T* rows, int64_t i, Vec3<T> v) {
    rows[3 * i] = v.x;
    rows[3 * i + 1] = v.y;
    rows[3 * i + 2] = v.z;
}

template <class T>
KS_HOST_DEVICE auto is_finite(Vec3<T> a) {
    return is_finite(a.x + a.y + a.z);
}

} // namespace kinosplat
