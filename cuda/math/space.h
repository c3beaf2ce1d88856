// From world points to what a field is stored over. u = (point - center) / half_extent is 1 at the surface of the
// scene's cube. A bounded field covers that cube; an unbounded one covers all of space, drawn into a cube of twice the
// size by the contraction of mip-NeRF 360 (Barron et al. 2022, equation 10) with the largest coordinate for the norm.
#pragma once

#include "math/vec.h"

namespace kinosplat {

template <class T>
struct Space {
    Vec3<T> center;
    T half_extent, inverse_half_extent;
    int n_cascades; // cubes of half-edge 1, 2, 4, ... in units of u that the occupancy grid covers
    bool contract;
};

template <class T>
KS_HOST_DEVICE T largest_coordinate(Vec3<T> u) {
    const auto magnitude = [](T x) { return select(x < T(0), -x, x); };
    return maximum(magnitude(u.x), maximum(magnitude(u.y), magnitude(u.z)));
}

// Position in the unit cube over which the hash grid is stored, of a place in units of the space.
template <class T>
KS_HOST_DEVICE Vec3<T> grid_position_of_unit(const Space<T>& space, Vec3<T> u) {
    if (!space.contract)
        return {T(0.5) * (u.x + T(1)), T(0.5) * (u.y + T(1)), T(0.5) * (u.z + T(1))};
    const T norm = largest_coordinate(u);
    const T factor = norm > T(1) ? (T(2) - T(1) / norm) / norm : T(1);
    return {T(0.25) * (factor * u.x + T(2)), T(0.25) * (factor * u.y + T(2)), T(0.25) * (factor * u.z + T(2))};
}

// The same of a point of the world.
template <class T>
KS_HOST_DEVICE Vec3<T> grid_position(const Space<T>& space, Vec3<T> point) {
    return grid_position_of_unit(space, space.inverse_half_extent * (point - space.center));
}

} // namespace kinosplat
