// Stored parameters of several Gaussians, one a lane.
#pragma once

#include "cpu/lanes.h"
#include "cpu/passes.h"

namespace kinosplat::cpu {

// Component `offset` of (n, stride) rows at `index[lane]`.
template <class T>
KS_HOST_DEVICE Lanes<T> gather(const T* data, const int32_t* index, int stride, int offset) {
    return make_lanes<T>([&](int lane) { return data[int64_t(index[lane]) * stride + offset]; });
}

template <class T>
KS_HOST_DEVICE Vec3<Lanes<T>> gather3(const T* data, const int32_t* index, int stride = 3, int offset = 0) {
    return {gather(data, index, stride, offset), gather(data, index, stride, offset + 1),
            gather(data, index, stride, offset + 2)};
}

template <class T>
KS_HOST_DEVICE StoredGaussian<Lanes<T>> gather_gaussians(const GaussianArrays<T>& from, const int32_t* index,
                                                         bool moving) {
    StoredGaussian<Lanes<T>> g;
    g.mean = gather3(from.means, index);
    g.quat = {gather(from.quats, index, 4, 0), gather(from.quats, index, 4, 1), gather(from.quats, index, 4, 2),
              gather(from.quats, index, 4, 3)};
    g.log_scale = gather3(from.log_scales, index);
    g.opacity_logit = gather(from.opacity_logits, index, 1, 0);
    if (moving) {
        g.displacement = gather3(from.displacements, index);
        g.time_centre = gather(from.time_centres, index, 1, 0);
        g.log_duration = gather(from.log_durations, index, 1, 0);
    }
    return g;
}

// Coefficient k of the spherical harmonics; 0 is kept apart from the rest.
template <class T>
KS_HOST_DEVICE Vec3<Lanes<T>> gather_coefficient(const GaussianArrays<T>& from, const int32_t* index, int k) {
    return k == 0 ? gather3(from.sh_dc, index) : gather3(from.sh_rest, index, 3 * from.n_sh_rest, 3 * (k - 1));
}

template <class T>
View<Lanes<T>> widen(const View<T>& v) {
    using L = Lanes<T>;
    const auto widen3 = [](Vec3<T> a) { return Vec3<L>{L(a.x), L(a.y), L(a.z)}; };
    const PinholeCamera<T>& c = v.camera;
    const PinholeCamera<L> camera{{widen3(c.rotation.x), widen3(c.rotation.y), widen3(c.rotation.z)},
                                  widen3(c.translation),
                                  widen3(c.position),
                                  L(c.fx),
                                  L(c.fy),
                                  L(c.cx),
                                  L(c.cy),
                                  L(c.width),
                                  L(c.height),
                                  L(c.near),
                                  L(c.far)};
    return {camera, L(v.time), v.moving, v.antialiased};
}

} // namespace kinosplat::cpu
