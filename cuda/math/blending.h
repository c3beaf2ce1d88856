// One step of front-to-back alpha blending at one pixel, and its vector-Jacobian product.
//
// Forward, per Gaussian in order of depth, T the transmittance so far (starts at 1):
//     falloff = exp(-(conic_xx dx^2 + conic_yy dy^2) / 2 - conic_xy dx dy),  d = pixel centre - mean2d
//     alpha   = min(kMaxAlpha, opacity * falloff);      skipped when alpha < kMinAlpha
//     the pixel is finished, without this contribution, when T (1 - alpha) < kMinTransmittance
//     channel += alpha T value;      T = T (1 - alpha)
//     at the end: channel += T background
//
// Backward, back to front. With g the gradient of the pixel's channels and g_alpha that of 1 - T_end, keep one scalar
//     behind = sum over later contributions of alpha T (value . g) + T_end (background . g - g_alpha)
// and per contribution, T its transmittance in front:
//     dL_dvalue += alpha T g
//     dL_dalpha  = T (value . g) - behind / (1 - alpha);    behind += alpha T (value . g)
//     dL_dfalloff_exponent = alpha dL_dalpha where alpha was not clamped, else 0
// Everything a Gaussian needs besides dL_dvalue is linear in the exponent's gradient s: six moments of it over the
// pixels, sum of s {1, dx, dy, dx^2, dx dy, dy^2}, which falloff_vjp turns into gradients once per Gaussian.
#pragma once

#include "constants.h"
#include "math/vec.h"

namespace kinosplat {

// Exponent of the falloff, at most 0 up to rounding.
template <class T>
KS_HOST_DEVICE T falloff_exponent(Sym2<T> conic, T dx, T dy) {
    return (T(-0.5) * conic.xx * dx) * dx + dy * (T(-0.5) * conic.yy * dy - conic.xy * dx);
}

template <class T>
KS_HOST_DEVICE T clamp_alpha(T opacity_times_falloff) {
    return minimum(opacity_times_falloff, T(kMaxAlpha));
}

// dL_dexponent of one contribution. `raw` = opacity * falloff before the clamp, `inverse` = 1 / (1 - alpha).
template <class T>
KS_HOST_DEVICE T blend_vjp(T raw, T alpha, T inverse, T transmittance, T value_dot_g, T behind) {
    const T dL_dalpha = transmittance * value_dot_g - behind * inverse;
    return select(raw > T(kMaxAlpha), T(0), alpha * dL_dalpha);
}

constexpr int kNumMoments = 6;

template <class T>
struct FalloffMoments {
    T one, x, y, xx, xy, yy;
};

template <class T>
struct FalloffGradient {
    Vec2<T> mean2d;
    Sym2<T> conic; // with respect to each matrix entry on its own, as Sym2 says
    T opacity;
};

// opacity > 0, as it is for everything drawn.
template <class T>
KS_HOST_DEVICE FalloffGradient<T> falloff_vjp(FalloffMoments<T> m, Sym2<T> conic, T opacity) {
    return {{conic.xx * m.x + conic.xy * m.y, conic.xy * m.x + conic.yy * m.y},
            {T(-0.5) * m.xx, T(-0.5) * m.xy, T(-0.5) * m.yy},
            m.one / opacity};
}

} // namespace kinosplat
