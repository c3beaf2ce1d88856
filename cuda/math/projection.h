// Projection of a 3D Gaussian to the screen: the EWA approximation of Zwicker et al. 2001 as used by 3D Gaussian
// Splatting (Kerbl et al. 2023), with the covariance written as P P^T, P = J R Q S:
//     J = Jacobian of the pinhole projection at the mean, R = world-to-camera rotation, Q = rotation of the Gaussian,
//     S = diag(exp(log_scales)).
// Working with P keeps float32 exact enough where the covariance is nearly singular: det(P P^T) = |P0 x P1|^2.
#pragma once

#include "constants.h"
#include "math/quaternion.h"

namespace kinosplat {

// A pinhole camera with OpenCV axes. Skew is not modelled.
template <class T>
struct PinholeCamera {
    Mat3<T> rotation;    // world to camera
    Vec3<T> translation; // world to camera, world units
    Vec3<T> position;    // centre of projection, -R^T t
    T fx, fy, cx, cy;    // pixels
    T width, height;     // pixels
    T near, far;         // Gaussians whose z is not between them are not drawn
};

template <class T>
KS_HOST_DEVICE Vec3<T> camera_position(Mat3<T> rotation, Vec3<T> translation) {
    return T(-1) * transposed_times(rotation, translation);
}

template <class T>
struct CameraGradient {
    Mat3<T> rotation;
    Vec3<T> translation;
    Vec3<T> position; // through the viewing direction; camera_position_vjp folds it into the two above
    T fx, fy, cx, cy;
};

template <class T>
KS_HOST_DEVICE void camera_position_vjp(Mat3<T> rotation, Vec3<T> translation, CameraGradient<T>& gradient) {
    gradient.rotation = gradient.rotation + outer(T(-1) * translation, gradient.position);
    gradient.translation = gradient.translation - rotation * gradient.position;
}

// The shape of a Gaussian on the screen, and what its vector-Jacobian product needs again.
template <class T>
struct Projection {
    Vec2<T> mean2d;      // pixels
    T depth;             // z in the camera, world units
    Sym2<T> covariance;  // square pixels, dilation included
    Sym2<T> conic;       // its inverse
    T determinant;       // of the covariance
    T compensation;      // Mip-Splatting's opacity factor, sqrt(det before / det after dilation); 1 when not asked for
    Vec3<T> mean_camera; // camera axes
    Mat3<T> axes;        // Q
    Mat3<T> scaled_axes; // R Q S
    Vec3<T> p0, p1;      // rows of P
    T clamped_u, clamped_v;
};

// Pixel coordinate at which the Jacobian is taken: at most kJacobianMargin of the image beyond its border.
template <class T>
KS_HOST_DEVICE T clamp_to_jacobian_range(T u, T size) {
    return clamp(u, T(-kJacobianMargin) * size, T(1 + kJacobianMargin) * size);
}

// `mean` in world units (already moved to the camera's time); a depth of zero or non-finite input gives non-finite
// output.
template <class T>
KS_HOST_DEVICE Projection<T> project(const PinholeCamera<T>& camera, Vec3<T> mean, Quaternion<T> quat, Vec3<T> scale,
                                     bool antialiased) {
    Projection<T> out;
    const Vec3<T> m = camera.rotation * mean + camera.translation;
    out.mean_camera = m;
    out.depth = m.z;
    const T inverse_z = T(1) / m.z;
    const T jx = camera.fx * inverse_z, jy = camera.fy * inverse_z;
    out.mean2d = {jx * m.x + camera.cx, jy * m.y + camera.cy};
    out.clamped_u = clamp_to_jacobian_range(out.mean2d.x, camera.width);
    out.clamped_v = clamp_to_jacobian_range(out.mean2d.y, camera.height);

    out.axes = rotation_from_quaternion(quat);
    out.scaled_axes = scale_columns(camera.rotation * out.axes, scale);
    const Mat3<T>& a = out.scaled_axes;
    out.p0 = jx * a.x - ((out.clamped_u - camera.cx) * inverse_z) * a.z;
    out.p1 = jy * a.y - ((out.clamped_v - camera.cy) * inverse_z) * a.z;

    const T xx = dot(out.p0, out.p0), xy = dot(out.p0, out.p1), yy = dot(out.p1, out.p1);
    const Vec3<T> normal = cross(out.p0, out.p1);
    const T undilated = dot(normal, normal);
    const T dilation = T(kDilation);
    out.covariance = {xx + dilation, xy, yy + dilation};
    out.determinant = undilated + dilation * (xx + yy) + dilation * dilation;
    const T inverse = T(1) / out.determinant;
    out.conic = {out.covariance.yy * inverse, -xy * inverse, out.covariance.xx * inverse};
    out.compensation = antialiased ? sqrt(undilated * inverse) : T(1);
    return out;
}

template <class T>
struct ProjectionGradient {
    Vec3<T> mean;      // of the moved mean, world units
    Mat3<T> axes;      // of Q; a normal adds its own part before it goes on to the quaternion
    Vec3<T> log_scale; // of the logarithm
};

// Adds to `camera_gradient` (rotation, translation and intrinsics).
template <class T>
KS_HOST_DEVICE ProjectionGradient<T> project_vjp(const PinholeCamera<T>& camera, const Projection<T>& p, Vec3<T> mean,
                                                 Vec3<T> scale, bool antialiased, Vec2<T> dL_dmean2d, T dL_ddepth,
                                                 Sym2<T> dL_dconic, T dL_dcompensation,
                                                 CameraGradient<T>& camera_gradient) {
    // Inverse of a symmetric matrix: dL_dcovariance = -conic dL_dconic conic.
    const Sym2<T> q = p.conic, g = dL_dconic;
    const T gq_xx = g.xx * q.xx + g.xy * q.xy, gq_xy = g.xx * q.xy + g.xy * q.yy;
    const T gq_yx = g.xy * q.xx + g.yy * q.xy, gq_yy = g.xy * q.xy + g.yy * q.yy;
    Sym2<T> c{-(q.xx * gq_xx + q.xy * gq_yx), -(q.xx * gq_xy + q.xy * gq_yy), -(q.xy * gq_xy + q.yy * gq_yy)};
    if (antialiased) {
        // compensation^2 = before / after, both determinants as functions of the covariance.
        const T dL_dsquare = dL_dcompensation * T(0.5) / maximum(p.compensation, T(kMinCompensation));
        const T dL_dbefore = dL_dsquare / p.determinant;
        const T dL_dafter = -dL_dbefore * p.compensation * p.compensation;
        const T before_xx = p.covariance.xx - T(kDilation), before_yy = p.covariance.yy - T(kDilation);
        c.xx = c.xx + dL_dbefore * before_yy + dL_dafter * p.covariance.yy;
        c.xy = c.xy - (dL_dbefore + dL_dafter) * p.covariance.xy;
        c.yy = c.yy + dL_dbefore * before_xx + dL_dafter * p.covariance.xx;
    }

    const Vec3<T> dL_dp0 = T(2) * (c.xx * p.p0 + c.xy * p.p1);
    const Vec3<T> dL_dp1 = T(2) * (c.xy * p.p0 + c.yy * p.p1);
    const Vec3<T> m = p.mean_camera;
    const T inverse_z = T(1) / m.z;
    const T jx = camera.fx * inverse_z, jy = camera.fy * inverse_z;
    const T jx_z = -(p.clamped_u - camera.cx) * inverse_z, jy_z = -(p.clamped_v - camera.cy) * inverse_z;
    const Mat3<T>& a = p.scaled_axes;
    const T dL_djx = dot(dL_dp0, a.x), dL_djx_z = dot(dL_dp0, a.z);
    const T dL_djy = dot(dL_dp1, a.y), dL_djy_z = dot(dL_dp1, a.z);

    // Where the Jacobian was taken at a clamped coordinate, that coordinate no longer depends on the mean.
    const T zero = T(0);
    const T dL_du = dL_dmean2d.x + select(p.clamped_u == p.mean2d.x, -dL_djx_z * inverse_z, zero);
    const T dL_dv = dL_dmean2d.y + select(p.clamped_v == p.mean2d.y, -dL_djy_z * inverse_z, zero);
    const T dL_dfx_over_z = dL_djx + dL_du * m.x, dL_dfy_over_z = dL_djy + dL_dv * m.y;
    camera_gradient.fx = camera_gradient.fx + dL_dfx_over_z * inverse_z;
    camera_gradient.fy = camera_gradient.fy + dL_dfy_over_z * inverse_z;
    camera_gradient.cx = camera_gradient.cx + dL_du + dL_djx_z * inverse_z;
    camera_gradient.cy = camera_gradient.cy + dL_dv + dL_djy_z * inverse_z;
    const Vec3<T> dL_dmean_camera{
        dL_du * jx, dL_dv * jy,
        dL_ddepth - inverse_z * (dL_dfx_over_z * jx + dL_dfy_over_z * jy + dL_djx_z * jx_z + dL_djy_z * jy_z)};

    const Mat3<T> dL_dscaled{jx * dL_dp0, jy * dL_dp1, jx_z * dL_dp0 + jy_z * dL_dp1};
    ProjectionGradient<T> out;
    out.log_scale = a.x * dL_dscaled.x + a.y * dL_dscaled.y + a.z * dL_dscaled.z;
    const Mat3<T> dL_drotated = scale_columns(dL_dscaled, scale); // of R Q
    out.axes = transpose(camera.rotation) * dL_drotated;
    out.mean = transposed_times(camera.rotation, dL_dmean_camera);
    camera_gradient.rotation =
        camera_gradient.rotation + outer(dL_dmean_camera, mean) + dL_drotated * transpose(p.axes);
    camera_gradient.translation = camera_gradient.translation + dL_dmean_camera;
    return out;
}

// Unit direction from the camera to the Gaussian, and its vector-Jacobian product with respect to the mean (the camera
// position gets the negative).
template <class T>
KS_HOST_DEVICE Vec3<T> view_direction(Vec3<T> mean, Vec3<T> position) {
    const Vec3<T> offset = mean - position;
    return (T(1) / sqrt(dot(offset, offset))) * offset;
}

template <class T>
KS_HOST_DEVICE Vec3<T> view_direction_vjp(Vec3<T> mean, Vec3<T> position, Vec3<T> direction, Vec3<T> dL_ddirection) {
    const Vec3<T> offset = mean - position;
    const T inverse_length = T(1) / sqrt(dot(offset, offset));
    return inverse_length * (dL_ddirection - dot(dL_ddirection, direction) * direction);
}

// Normal of a Gaussian: its shortest axis (the first of equal ones) in world coordinates, turned to face the camera.
// One of the three factors is +1 or -1, the others are 0: normal = axes * factors, and dL_daxes = outer(dL_dnormal,
// factors).
template <class T>
KS_HOST_DEVICE Vec3<T> normal_factors(Mat3<T> axes, Vec3<T> log_scale, Vec3<T> mean, Vec3<T> position) {
    const T one = T(1), zero = T(0);
    const T second = select(log_scale.y < log_scale.x, one, zero);
    const T shorter = minimum(log_scale.x, log_scale.y);
    const T third = select(log_scale.z < shorter, one, zero);
    const Vec3<T> pick{(one - second) * (one - third), second * (one - third), third};
    const T sign = select(dot(axes * pick, mean - position) > zero, -one, one);
    return sign * pick;
}

} // namespace kinosplat
