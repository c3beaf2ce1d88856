// What a rendering over a background should look like, from the bytes of a picture: alpha composites it, and a mask
// either ends the scene, as if it were alpha, or says how much a pixel counts.
#pragma once

#include "math/vec.h"

namespace kinosplat {

template <class T>
struct TargetPixel {
    Vec3<T> rgb;
    T alpha, weight;
};

// `pixel` has three or four bytes; `mask` is null or one byte, 0 outside.
template <class T>
KS_HOST_DEVICE TargetPixel<T> target_pixel(const uint8_t* pixel, int n_channels, const uint8_t* mask,
                                           bool mask_cuts_out, Vec3<T> background) {
    constexpr T kWhole = T(255);
    const T own = n_channels == 4 ? T(pixel[3]) / kWhole : T(1), inside = mask ? T(*mask) / kWhole : T(1);
    const T alpha = mask_cuts_out ? own * inside : own;
    const Vec3<T> rgb{T(pixel[0]) / kWhole, T(pixel[1]) / kWhole, T(pixel[2]) / kWhole};
    return {alpha * rgb + (T(1) - alpha) * background, alpha, mask_cuts_out ? T(1) : inside};
}

} // namespace kinosplat
