// The ray through a pixel's centre and what of it a field can be seen in: render/field/rays.py and ray_range.
#pragma once

#include "math/march.h"

namespace kinosplat {

template <class T>
struct FieldView {
    int width, height;
    T inverse_K[9];
    T rotation[9];    // of world_to_camera, row by row
    Vec3<T> position; // of the camera
    T near;           // nothing is seen nearer, world units
    T stop;           // transmittance at which a ray ends
    T background[3];

    template <class Other>
    FieldView<Other> as() const {
        FieldView<Other> view{};
        view.width = width;
        view.height = height;
        for (int i = 0; i < 9; ++i) {
            view.inverse_K[i] = Other(inverse_K[i]);
            view.rotation[i] = Other(rotation[i]);
        }
        view.position = {Other(position.x), Other(position.y), Other(position.z)};
        view.near = Other(near);
        view.stop = Other(stop);
        for (int i = 0; i < 3; ++i)
            view.background[i] = Other(background[i]);
        return view;
    }
};

// Unit direction, in the world, of the ray through (u, v) in pixels of a camera; `rotation` is that of world_to_camera,
// in rows of `stride` numbers.
template <class T>
KS_HOST_DEVICE Vec3<T> pixel_direction(const T* inverse_K, const T* rotation, int stride, T u, T v) {
    const T *K = inverse_K, *x = rotation, *y = rotation + stride, *z = rotation + 2 * stride;
    const Vec3<T> in_camera{K[0] * u + K[1] * v + K[2], K[3] * u + K[4] * v + K[5], K[6] * u + K[7] * v + K[8]};
    const Vec3<T> along{x[0] * in_camera.x + y[0] * in_camera.y + z[0] * in_camera.z,
                        x[1] * in_camera.x + y[1] * in_camera.y + z[1] * in_camera.z,
                        x[2] * in_camera.x + y[2] * in_camera.y + z[2] * in_camera.z};
    return reciprocal(sqrt(dot(along, along))) * along;
}

// The part of a ray inside the outermost cube and at least `near` away; a part of no length where there is none.
template <class T>
struct RayPart {
    T near, far;
};

template <class T>
KS_HOST_DEVICE RayPart<T> part_in_space(const Space<T>& space, Vec3<T> origin, Vec3<T> direction, T near) {
    T extent = space.half_extent;
    for (int k = 1; k < space.n_cascades; ++k)
        extent = extent + extent;
    T enters = T(-INFINITY), leaves = T(INFINITY);
    const auto clip = [&](T position, T rate, T center) {
        const T inverse = reciprocal(rate == T(0) ? T(1e-20) : rate);
        const T a = (center - extent - position) * inverse, b = (center + extent - position) * inverse;
        enters = maximum(enters, minimum(a, b));
        leaves = minimum(leaves, maximum(a, b));
    };
    clip(origin.x, direction.x, space.center.x);
    clip(origin.y, direction.y, space.center.y);
    clip(origin.z, direction.z, space.center.z);
    const T begin = maximum(enters, near);
    return {begin, maximum(leaves, begin)};
}

template <class T>
struct PixelRay {
    Vec3<T> direction;     // of length 1
    MarchedRay<T> marched; // from where it enters the outermost cube, or the view's `near` behind that
};

template <class T>
KS_HOST_DEVICE PixelRay<T> pixel_ray(const FieldView<T>& view, const Marching<T>& m, int x, int y) {
    PixelRay<T> ray;
    ray.direction = pixel_direction(view.inverse_K, view.rotation, 3, T(x) + T(0.5), T(y) + T(0.5));
    const RayPart<T> part = part_in_space(m.space, view.position, ray.direction, view.near);
    ray.marched = marched_ray(m, view.position, ray.direction, part.near, part.far, T(0));
    return ray;
}

// The first sample of a ray, without jitter; behind the ray's end where there is none.
template <class T>
KS_HOST_DEVICE Member<T> first_sample(const Marching<T>& m, Occupancy occupancy, const PixelRay<T>& ray) {
    int n_visited = 0;
    const Member<T> member = advance_to(m, ray.marched, first_member(m, ray.marched), ray.marched.first);
    return find_occupied(m, occupancy, ray.marched, member, &n_visited);
}

// The sample behind `member`.
template <class T>
KS_HOST_DEVICE Member<T> next_sample(const Marching<T>& m, Occupancy occupancy, const MarchedRay<T>& ray,
                                     Member<T> member) {
    int n_visited = 0;
    return find_occupied(m, occupancy, ray, next_member(m, ray, member), &n_visited);
}

} // namespace kinosplat
