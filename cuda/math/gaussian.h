// One Gaussian from its stored parameters (log-scale, opacity logit, ...) to the screen, and back: the composition of
// slicing, activation and projection that the project pass of both backends calls. Colour and normal are separate
// (colour reads up to 48 more numbers and is only wanted for what is visible).
//
// A Gaussian is drawn when near <= z <= far, its opacity at this time is at least 1/255, and it is finite: one with a
// NaN or an infinity among its parameters is left out, log_duration = +inf (a still Gaussian) excepted.
#pragma once

#include "math/overlap.h"
#include "math/projection.h"
#include "math/spherical_harmonics.h"
#include "math/time_slice.h"

namespace kinosplat {

template <class T>
struct StoredGaussian {
    Vec3<T> mean;
    Quaternion<T> quat;
    Vec3<T> log_scale;
    T opacity_logit;
    Vec3<T> displacement; // the last three are read for moving sets only
    T time_centre, log_duration;
};

template <class T>
struct View {
    PinholeCamera<T> camera;
    T time; // seconds; read for moving sets only
    bool moving, antialiased;
};

template <class T>
struct ScreenGaussian {
    Vec3<T> mean; // world units, moved to the view's time
    Vec3<T> scale;
    TimeSlice<T> slice;
    T sigmoid;
    Projection<T> projection;
    T opacity; // sigmoid * fade * compensation
    T cutoff;  // ellipse_cutoff(opacity)
};

template <class T>
KS_HOST_DEVICE ScreenGaussian<T> to_screen(const StoredGaussian<T>& g, const View<T>& view) {
    ScreenGaussian<T> s;
    s.slice = view.moving ? slice_in_time(g.mean, g.displacement, g.time_centre, g.log_duration, view.time)
                          : TimeSlice<T>{g.mean, T(1), T(0), T(0)};
    s.mean = s.slice.mean;
    s.scale = {exp(g.log_scale.x), exp(g.log_scale.y), exp(g.log_scale.z)};
    s.sigmoid = sigmoid(g.opacity_logit);
    s.projection = project(view.camera, s.mean, g.quat, s.scale, view.antialiased);
    s.opacity = s.sigmoid * s.slice.fade * s.projection.compensation;
    s.cutoff = ellipse_cutoff(s.opacity);
    return s;
}

// False for everything that must not be drawn; comparisons with NaN are false.
template <class T>
KS_HOST_DEVICE auto is_drawn(const StoredGaussian<T>& g, const View<T>& view, const ScreenGaussian<T>& s) {
    const Projection<T>& p = s.projection;
    const PinholeCamera<T>& camera = view.camera;
    T stored = g.mean.x + g.mean.y + g.mean.z + g.quat.w + g.quat.x + g.quat.y + g.quat.z + g.log_scale.x +
               g.log_scale.y + g.log_scale.z + g.opacity_logit;
    if (view.moving)
        stored = stored + g.displacement.x + g.displacement.y + g.displacement.z + g.time_centre;
    const T projected = p.mean2d.x + p.mean2d.y + p.covariance.xx + p.covariance.xy + p.covariance.yy + p.conic.xx +
                        p.conic.xy + p.conic.yy;
    return (p.depth >= camera.near) & (p.depth <= camera.far) & (s.cutoff >= T(0)) & is_finite(stored) &
           is_finite(projected);
}

template <class T>
KS_HOST_DEVICE TileOverlap<T> tile_overlap(const ScreenGaussian<T>& s, int width, int height) {
    const Projection<T>& p = s.projection;
    return TileOverlap<T>(p.mean2d, p.covariance, p.conic.xx, s.cutoff, width, height);
}

// Three standard deviations along the long axis, pixels: the radius statistics keep, as in the INRIA code.
template <class T>
KS_HOST_DEVICE T screen_radius(Sym2<T> covariance) {
    const T half_trace = T(0.5) * (covariance.xx + covariance.yy);
    const T half_difference = T(0.5) * (covariance.xx - covariance.yy);
    return T(3) * sqrt(half_trace + sqrt(half_difference * half_difference + covariance.xy * covariance.xy));
}

// What the blend pass (mean2d, conic, opacity, depth) and the channels (normal, direction of the colour) hand back.
template <class T>
struct ScreenGradient {
    Vec2<T> mean2d;
    Sym2<T> conic;
    T opacity, depth;
    Vec3<T> direction; // of the unit viewing direction
    Mat3<T> axes;      // of the rotation matrix, through the normal
};

template <class T>
struct StoredGradient {
    Vec3<T> mean;
    Quaternion<T> quat;
    Vec3<T> log_scale;
    T opacity_logit;
    TimeSliceGradient<T> time;
};

// `s` is to_screen(g, view) again; adds to `camera_gradient`.
template <class T>
KS_HOST_DEVICE StoredGradient<T> to_screen_vjp(const StoredGaussian<T>& g, const View<T>& view,
                                               const ScreenGaussian<T>& s, Vec3<T> direction,
                                               const ScreenGradient<T>& dL, CameraGradient<T>& camera_gradient) {
    const Projection<T>& p = s.projection;
    const T dL_dcompensation = dL.opacity * s.sigmoid * s.slice.fade;
    const ProjectionGradient<T> projected = project_vjp(view.camera, p, s.mean, s.scale, view.antialiased, dL.mean2d,
                                                        dL.depth, dL.conic, dL_dcompensation, camera_gradient);
    const Vec3<T> dL_doffset = view_direction_vjp(s.mean, view.camera.position, direction, dL.direction);
    camera_gradient.position = camera_gradient.position - dL_doffset;

    StoredGradient<T> out;
    out.mean = projected.mean + dL_doffset;
    out.quat = rotation_from_quaternion_vjp(g.quat, projected.axes + dL.axes);
    out.log_scale = projected.log_scale;
    const T dL_dsigmoid = dL.opacity * s.slice.fade * p.compensation;
    out.opacity_logit = dL_dsigmoid * s.sigmoid * (T(1) - s.sigmoid);
    if (view.moving)
        out.time = slice_in_time_vjp(s.slice, g.displacement, out.mean, dL.opacity * s.sigmoid * p.compensation);
    return out;
}

} // namespace kinosplat
