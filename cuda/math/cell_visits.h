// Into which cells an update of the occupancy grid looks, and where in them: a pure function of a key and the visit's
// number. Either all cells are visited, or half of the visits go anywhere and half to cells that are occupied.
#pragma once

#include "math/march.h"
#include "math/random.h"

namespace kinosplat {

struct CellVisits {
    int64_t n_cells;
    int64_t n_visits;        // of the whole update; n_cells: every cell once
    const bool* learnable;   // (n_cells,), cells that may be occupied at all
    const int32_t* occupied; // numbers of the occupied cells
    uint64_t key;
};

struct CellVisit {
    int64_t cell;         // -1: nowhere
    Vec3<float> position; // in the unit cube over which the field is stored
};

KS_HOST_DEVICE CellVisit visit_cell(const Marching<float>& m, const CellVisits& v, int64_t n_occupied, int64_t number) {
    const Random4 r = philox(v.key, uint64_t(number));
    int64_t cell = number;
    if (v.n_visits != v.n_cells) {
        const bool anywhere = number < v.n_visits / 2;
        if (!anywhere && n_occupied == 0)
            return {-1, {0.5f, 0.5f, 0.5f}};
        cell = anywhere ? random_below(r.x, v.n_cells) : v.occupied[random_below(r.x, n_occupied)];
    }
    if (!v.learnable[cell])
        return {-1, {0.5f, 0.5f, 0.5f}};
    const int64_t n = m.resolution;
    float extent = 1.0f;
    for (int64_t cascade = cell / (n * n * n); cascade > 0; --cascade)
        extent = extent + extent;
    const auto along = [&](int64_t k, uint32_t bits) {
        return ((float(k) + random_unit(bits)) * (2.0f / float(n)) - 1.0f) * extent;
    };
    return {cell, grid_position_of_unit(
                      m.space, {along(cell % n, r.y), along(cell / n % n, r.z), along(cell / (n * n) % n, r.w)})};
}

} // namespace kinosplat
