// How far the alpha of a rendering is from what it should be.
#pragma once

#include "math/scalar.h"

namespace kinosplat {

template <class T>
struct AlphaDifference {
    T value, d_rendered;
};

template <class T>
KS_HOST_DEVICE AlphaDifference<T> alpha_difference_point(T rendered, T target, T weight) {
    const T difference = rendered - target;
    const T sign = difference > T(0) ? T(1) : (difference < T(0) ? T(-1) : T(0));
    return {weight * sign * difference, weight * sign};
}

} // namespace kinosplat
