// Structural similarity of two images at one pixel from windowed moments, and the derivatives the backward pass
// convolves once more (Wang et al. 2004, equation 13; the split of the gradient as in the fused SSIM of Taming 3DGS).
#pragma once

#include "constants.h"
#include "math/scalar.h"

namespace kinosplat {

// Taps of the normalised Gaussian window with sigma 1.5, symmetric: index is the distance from the centre, 0 to 5.
template <class T>
KS_HOST_DEVICE T ssim_window(int distance) {
    constexpr double taps[kSsimRadius + 1] = {0.26601172486179436, 0.21300553771125370, 0.10936068950970002,
                                              0.03600077212843083, 0.00759875813523919, 0.00102838008447911};
    return T(taps[distance]);
}

// Windowed means of a, b, a^2 + b^2, a b.
template <class T>
struct WindowMoments {
    T a, b, squares, ab;
};

template <class T>
struct SsimPoint {
    T value;
    T d_mean_a;  // derivative of value with respect to the windowed mean of a (the other moments held)
    T d_squares; // ... of a^2
    T d_ab;      // ... of a b
};

// The gradient of the sum of w(p) value(p) with respect to a(x) is, with * the window convolution,
//     (w d_mean_a) * 1 + 2 a(x) ((w d_squares) * 1) + b(x) ((w d_ab) * 1).
template <class T>
KS_HOST_DEVICE SsimPoint<T> ssim_point(WindowMoments<T> m) {
    const T c1 = T(kSsimC1), c2 = T(kSsimC2), two = T(2);
    const T mean_squares = m.a * m.a + m.b * m.b, mean_product = m.a * m.b;
    const T luminance = two * mean_product + c1;
    const T structure = two * (m.ab - mean_product) + c2;
    const T luminance_norm = mean_squares + c1;
    const T structure_norm = m.squares - mean_squares + c2;
    const T inverse_luminance = T(1) / luminance_norm, inverse_structure = T(1) / structure_norm;
    const T inverse = inverse_luminance * inverse_structure;
    const T value = luminance * structure * inverse;
    const T d_mean_a =
        two * (m.b * (structure - luminance) * inverse + m.a * value * (inverse_structure - inverse_luminance));
    return {value, d_mean_a, -value * inverse_structure, two * luminance * inverse};
}

} // namespace kinosplat
