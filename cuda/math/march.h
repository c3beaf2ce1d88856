// Samples along a ray where an occupancy grid says that something may be (Müller et al. 2022, appendix E). The samples
// are members of one sequence, t_0 = near + jitter dt(near), t_{i+1} = t_i + dt(t_i), of which those are taken whose
// midpoint lies in an occupied cell: empty space is jumped over, but never changes where the samples lie. Where all
// steps have one length the members are numbered, t_i = t_0 + i dt, and any number of them is passed at once.
//
// Occupancy is kept in nested cubes ("cascades"), cascade k covering |u| <= 2^k with `resolution`^3 cells; a point
// belongs to the smallest cube that contains it. Bit x + resolution (y + resolution (z + resolution k)) is a cell's.
// Beside the bits there is a byte for every block of 8^3 cells, zero where the whole block is empty.
#pragma once

#include <cstdint>

#include "math/space.h"

namespace kinosplat {

constexpr int kBlockCells = 8; // along one side of a block

// Share of the smallest step within which a face counts as reached or not: looking once too often costs a little,
// passing a sample because of rounding would change the picture.
constexpr double kMarchSlack = 1e-3;

template <class T>
struct Marching {
    Space<T> space;
    T cone_angle, dt_min, dt_max; // dt(t) = clamp(t cone_angle, dt_min, dt_max)
    int resolution;               // cells along one side of a cascade, a multiple of kBlockCells

    template <class Other>
    KS_HOST_DEVICE Marching<Other> as() const {
        return {{{Other(space.center.x), Other(space.center.y), Other(space.center.z)},
                 Other(space.half_extent),
                 Other(space.inverse_half_extent),
                 space.n_cascades,
                 space.contract},
                Other(cone_angle),
                Other(dt_min),
                Other(dt_max),
                resolution};
    }
};

struct Occupancy {
    const uint8_t* bits;
    const uint8_t* blocks;
};

struct OccupancyCell {
    int x, y, z, cascade; // cascade < 0: outside of everything
};

KS_HOST_DEVICE int64_t cell_number(int resolution, OccupancyCell c) {
    return c.x + int64_t(resolution) * (c.y + int64_t(resolution) * (c.z + int64_t(resolution) * c.cascade));
}

KS_HOST_DEVICE int64_t block_number(int resolution, OccupancyCell c) {
    const int n = resolution / kBlockCells;
    return c.x / kBlockCells +
           int64_t(n) * (c.y / kBlockCells + int64_t(n) * (c.z / kBlockCells + int64_t(n) * c.cascade));
}

KS_HOST_DEVICE bool is_occupied(const uint8_t* bits, int64_t cell) { return bits[cell >> 3] >> (cell & 7) & 1; }

template <class T>
KS_HOST_DEVICE OccupancyCell cell_at(const Marching<T>& m, Vec3<T> u) {
    const T norm = largest_coordinate(u);
    int cascade = 0;
    T extent = T(1), scale = T(0.5) * T(m.resolution); // cells a unit, exact for every cascade
    for (; norm > extent && cascade < m.space.n_cascades; ++cascade) {
        extent = extent + extent;
        scale = T(0.5) * scale;
    }
    if (!(norm <= extent) || cascade >= m.space.n_cascades)
        return {0, 0, 0, -1};
    const auto along = [&](T x) {
        const int cell = int((x + extent) * scale);
        return cell < m.resolution ? cell : m.resolution - 1;
    };
    return {along(u.x), along(u.y), along(u.z), cascade};
}

// A ray in units of u, and between which t it can meet anything.
template <class T>
struct MarchedRay {
    Vec3<T> start, rate; // u(t) = start + t rate
    T first, last;       // midpoints lie in [first, last)
    T begin;             // t of the first member of the sequence
};

// Where the ray is between `low` and `high` along one axis; narrows [first, last].
template <class T>
KS_HOST_DEVICE void clip_to_slab(T start, T rate, T low, T high, T* first, T* last) {
    if (rate == T(0)) {
        if (!(start >= low && start <= high))
            *last = *first; // never
        return;
    }
    const T inverse = quick_divide(T(1), rate); // the slabs are wider than rounding
    const T a = (low - start) * inverse, b = (high - start) * inverse;
    *first = maximum(*first, minimum(a, b));
    *last = minimum(*last, maximum(a, b));
}

// Rays without a direction, or with NaN, meet nothing: last <= first. `near` is where the sequence begins, moved by
// `jitter` steps.
template <class T>
KS_HOST_DEVICE MarchedRay<T> marched_ray(const Marching<T>& m, Vec3<T> origin, Vec3<T> direction, T near, T far,
                                         T jitter) {
    MarchedRay<T> ray{m.space.inverse_half_extent * (origin - m.space.center), m.space.inverse_half_extent * direction,
                      near, far, multiply_add(jitter, clamp(near * m.cone_angle, m.dt_min, m.dt_max), near)};
    if (!(dot(direction, direction) > T(0)) || !is_finite(ray.start) || !is_finite(ray.rate)) {
        ray.last = ray.first;
        return ray;
    }
    const T slack = T(kMarchSlack) * m.dt_min * m.space.inverse_half_extent;
    T edge = slack;
    T extent = T(1);
    for (int k = 1; k < m.space.n_cascades; ++k)
        extent = extent + extent;
    edge = edge + extent;
    clip_to_slab(ray.start.x, ray.rate.x, -edge, edge, &ray.first, &ray.last);
    clip_to_slab(ray.start.y, ray.rate.y, -edge, edge, &ray.first, &ray.last);
    clip_to_slab(ray.start.z, ray.rate.z, -edge, edge, &ray.first, &ray.last);
    return ray;
}

// One member of the sequence.
template <class T>
struct Member {
    T t, dt, mid;
    T number; // where all steps have one length
};

template <class T>
KS_HOST_DEVICE Member<T> numbered_member(const Marching<T>& m, const MarchedRay<T>& ray, T number) {
    const T t = multiply_add(number, m.dt_min, ray.begin);
    return {t, m.dt_min, multiply_add(T(0.5), m.dt_min, t), number};
}

// The member at t, which must be one's.
template <class T>
KS_HOST_DEVICE Member<T> member_at(const Marching<T>& m, const MarchedRay<T>& ray, T t) {
    if (m.cone_angle == T(0))
        return numbered_member(m, ray, floor((t - ray.begin) / m.dt_min + T(0.5)));
    const T dt = clamp(t * m.cone_angle, m.dt_min, m.dt_max);
    return {t, dt, multiply_add(T(0.5), dt, t), T(0)};
}

template <class T>
KS_HOST_DEVICE Member<T> first_member(const Marching<T>& m, const MarchedRay<T>& ray) {
    return member_at(m, ray, ray.begin);
}

// A step too small to change t ends the sequence: a member behind the ray's end.
template <class T>
KS_HOST_DEVICE Member<T> next_member(const Marching<T>& m, const MarchedRay<T>& ray, Member<T> member) {
    const Member<T> next =
        m.cone_angle == T(0) ? numbered_member(m, ray, member.number + T(1)) : member_at(m, ray, member.t + member.dt);
    return next.t > member.t ? next : Member<T>{ray.last, m.dt_min, ray.last, T(0)};
}

// The first member from `member` on whose midpoint is not before t; one behind the ray's end where there is none.
template <class T>
KS_HOST_DEVICE Member<T> advance_to(const Marching<T>& m, const MarchedRay<T>& ray, Member<T> member, T t) {
    t = minimum(t, ray.last);
    if (m.cone_angle == T(0)) {
        // One or two less than there are, so that rounding cannot pass the member, and the comparison below decides.
        const T number = floor(quick_divide(t - ray.begin, m.dt_min) - T(1));
        if (number > member.number)
            member = numbered_member(m, ray, number);
    }
    while (member.mid < t)
        member = next_member(m, ray, member);
    return member;
}

// t at which the ray leaves the cube of `n_cells`^3 cells, aligned to multiples of n_cells, that contains `cell`.
template <class T>
KS_HOST_DEVICE T leaves_at(const Marching<T>& m, const MarchedRay<T>& ray, OccupancyCell cell, int n_cells) {
    T extent = T(1);
    for (int k = 0; k < cell.cascade; ++k)
        extent = extent + extent;
    const T edge = quick_divide(extent + extent, T(m.resolution)); // callers allow for rounding
    const auto along = [&](int c, T start, T rate, T nearest) {
        const int face = c / n_cells * n_cells + (rate > T(0) ? n_cells : 0);
        const T t = quick_divide(T(face) * edge - extent - start, rate);
        return rate == T(0) ? nearest : minimum(nearest, t);
    };
    return along(cell.z, ray.start.z, ray.rate.z,
                 along(cell.y, ray.start.y, ray.rate.y, along(cell.x, ray.start.x, ray.rate.x, ray.last)));
}

// The first member from `member` on whose midpoint lies in an occupied cell; one behind the ray's end where there is
// none. Adds to `n_visited` how many cells and blocks were looked at.
template <class T>
KS_HOST_DEVICE Member<T> find_occupied(const Marching<T>& m, Occupancy occupancy, const MarchedRay<T>& ray,
                                       Member<T> member, int* n_visited) {
    const T slack = T(kMarchSlack) * m.dt_min;
    while (member.mid < ray.last) {
        const OccupancyCell cell = cell_at(m, ray.start + member.mid * ray.rate);
        ++*n_visited;
        if (cell.cascade >= 0) {
            const bool any = occupancy.blocks[block_number(m.resolution, cell)];
            if (any && is_occupied(occupancy.bits, cell_number(m.resolution, cell)))
                return member;
            const T leave = leaves_at(m, ray, cell, any ? 1 : kBlockCells) - slack;
            if (member.mid < leave) {
                member = advance_to(m, ray, member, leave);
                continue;
            }
        }
        member = next_member(m, ray, member);
    }
    return member;
}

// Calls emit(t, dt) for the samples of one ray, front to back; returns how many cells and blocks were looked at.
template <class T, class Emit>
KS_HOST_DEVICE int march_ray(const Marching<T>& m, Occupancy occupancy, const MarchedRay<T>& ray, Emit&& emit) {
    int n_visited = 0;
    Member<T> member = advance_to(m, ray, first_member(m, ray), ray.first);
    for (member = find_occupied(m, occupancy, ray, member, &n_visited); member.mid < ray.last;
         member = find_occupied(m, occupancy, ray, next_member(m, ray, member), &n_visited))
        emit(member.t, member.dt);
    return n_visited;
}

// ---- by occupied blocks (RT-NeRF, Li et al. 2022: from the cubes to the rays instead of along each ray) ----

// The samples of a ray in one block of the innermost cascade. `member` is the first one not taken yet and moves behind
// the last of this block's. A midpoint belongs to the block its cell lies in, so that blocks met front to back give
// exactly the samples of march_ray, each once.
template <class T, class Emit>
KS_HOST_DEVICE int march_block(const Marching<T>& m, Occupancy occupancy, const MarchedRay<T>& ray, int block,
                               Member<T>& member, Emit&& emit) {
    const int n = m.resolution / kBlockCells;
    const T edge = T(2 * kBlockCells) / T(m.resolution), slack = T(kMarchSlack) * m.dt_min;
    const T margin = slack * m.space.inverse_half_extent;
    T first = ray.first, last = ray.last;
    const auto clip = [&](int k, T start, T rate) {
        const T low = T(k) * edge - T(1);
        clip_to_slab(start, rate, low - margin, low + edge + margin, &first, &last);
    };
    clip(block % n, ray.start.x, ray.rate.x);
    clip(block / n % n, ray.start.y, ray.rate.y);
    clip(block / (n * n), ray.start.z, ray.rate.z);
    if (!(first < last) || !(member.mid < last))
        return 0;
    int n_visited = 1;
    Member<T> ahead = advance_to(m, ray, member, first);
    while (ahead.mid < last) {
        const OccupancyCell cell = cell_at(m, ray.start + ahead.mid * ray.rate);
        if (cell.cascade != 0 || block_number(m.resolution, cell) != block) {
            ahead = next_member(m, ray, ahead); // at a face, where it is the neighbour's
            continue;
        }
        ++n_visited;
        if (is_occupied(occupancy.bits, cell_number(m.resolution, cell)))
            emit(ahead.t, ahead.dt);
        else {
            const T leave = leaves_at(m, ray, cell, 1) - slack;
            if (ahead.mid < leave) {
                member = ahead = advance_to(m, ray, ahead, leave);
                continue;
            }
        }
        member = ahead = next_member(m, ray, ahead);
    }
    return n_visited;
}

} // namespace kinosplat
