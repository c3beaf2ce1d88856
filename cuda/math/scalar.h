// What the shared mathematics asks of its number type: float or double on the GPU and in scalar loops, Lanes<float> or
// Lanes<double> (cpu/lanes.h) where the CPU works on several Gaussians or pixels at once. Branches are written as
// `select`, which every one of them has.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define KS_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define KS_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace kinosplat {

using std::ceil;
using std::exp;
using std::floor;
using std::log;
using std::sqrt;

template <class T>
KS_HOST_DEVICE T select(bool condition, T if_true, T if_false) {
    return condition ? if_true : if_false;
}

template <class T>
KS_HOST_DEVICE T minimum(T a, T b) {
    return select(a < b, a, b);
}

template <class T>
KS_HOST_DEVICE T maximum(T a, T b) {
    return select(a > b, a, b);
}

template <class T>
KS_HOST_DEVICE T clamp(T x, T low, T high) {
    return minimum(maximum(x, low), high);
}

// True for numbers, false for NaN and infinities; not to be compiled with -ffinite-math-only.
template <class T>
KS_HOST_DEVICE auto is_finite(T x) {
    return x - x == T(0);
}

template <class T>
KS_HOST_DEVICE T reciprocal(T x) {
    return T(1) / x;
}

// a / b where the last two digits do not matter: a few instructions of a GPU instead of dozens.
template <class T>
KS_HOST_DEVICE T quick_divide(T a, T b) {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(T) == 4)
        return __fdividef(a, b);
#endif
    return a / b;
}

// a b + c, rounded alike wherever it stands: compilers fuse a product and a sum in one place and not in another.
template <class T>
KS_HOST_DEVICE T multiply_add(T a, T b, T c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

// 1 / (1 + exp(-x)); exact limits 0 and 1 for infinite x.
template <class T>
KS_HOST_DEVICE T sigmoid(T x) {
    return T(1) / (T(1) + exp(-x));
}

} // namespace kinosplat
