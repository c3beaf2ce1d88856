// The multi-resolution hash grid (Müller et al. 2022, "Instant Neural Graphics Primitives"): which eight entries of a
// level's table a position in the unit cube lies between, their trilinear interpolation and its vector-Jacobian
// products. Positions outside the cube are drawn to its surface, where the gradient across it is zero; NaN stays NaN
// and touches no memory outside the table.
#pragma once

#include <cstdint>

#include "math/vec.h"

namespace kinosplat {

constexpr int kMaxGridLevels = 32;
constexpr int kMaxGridFeatures = 8; // a level: 1, 2, 4 or 8, so that rows are read in one piece

// Factors of the hash; the first is one, so that neighbours along x stay neighbours.
constexpr uint32_t kHashY = 2654435761u;
constexpr uint32_t kHashZ = 805459861u;

struct GridLevel {
    uint32_t resolution; // cells along an axis; vertices are one more
    uint32_t size;       // entries of its part of the table, a power of two where hashed
    uint32_t offset;     // first of them
    bool hashed;         // else the vertices themselves, x fastest
};

// Small enough to be an argument of a kernel.
struct HashGrid {
    int n_levels, n_features;
    GridLevel levels[kMaxGridLevels];
};

// Rows of its table.
inline int64_t grid_entries(const HashGrid& grid) {
    const GridLevel& last = grid.levels[grid.n_levels - 1];
    return int64_t(last.offset) + last.size;
}

// The cell a position lies in, and where in it.
template <class T>
struct GridCell {
    uint32_t x, y, z;
    Vec3<T> fraction; // in [0, 1]; 1 only at the far face of the cube
};

// Written so that NaN passes through the clamp and ends in the last cell.
template <class T>
KS_HOST_DEVICE uint32_t grid_axis(uint32_t resolution, T position, T* fraction) {
    const T scaled = minimum(T(1), maximum(T(0), position)) * T(resolution);
    const int32_t cell = int32_t(minimum(scaled, T(resolution - 1))); // signed, which vector units convert to
    *fraction = scaled - T(cell);
    return uint32_t(cell);
}

template <class T>
KS_HOST_DEVICE GridCell<T> grid_cell(const GridLevel& level, Vec3<T> position) {
    GridCell<T> cell;
    cell.x = grid_axis(level.resolution, position.x, &cell.fraction.x);
    cell.y = grid_axis(level.resolution, position.y, &cell.fraction.y);
    cell.z = grid_axis(level.resolution, position.z, &cell.fraction.z);
    return cell;
}

// Rows of the table at the corners of a cell; bits 0, 1 and 2 of a corner's number say whether it is the far one along
// x, y and z.
struct GridCorners {
    uint32_t entry[8];
};

template <class T>
KS_HOST_DEVICE GridCorners grid_corners(const GridLevel& level, const GridCell<T>& cell) {
    GridCorners corners;
    if (level.hashed) {
        const uint32_t mask = level.size - 1;
        const uint32_t y = cell.y * kHashY, z = cell.z * kHashZ;
        const uint32_t yz[4] = {y ^ z, (y + kHashY) ^ z, y ^ (z + kHashZ), (y + kHashY) ^ (z + kHashZ)};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            corners.entry[2 * k] = level.offset + ((cell.x ^ yz[k]) & mask);
            corners.entry[2 * k + 1] = level.offset + (((cell.x + 1) ^ yz[k]) & mask);
        }
    } else {
        const uint32_t line = level.resolution + 1;
        const uint32_t first = level.offset + cell.x + line * (cell.y + line * cell.z);
        const uint32_t yz[4] = {first, first + line, first + line * line, first + line * line + line};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            corners.entry[2 * k] = yz[k];
            corners.entry[2 * k + 1] = yz[k] + 1;
        }
    }
    return corners;
}

// Shares of the corners, which sum to one.
template <class T>
KS_HOST_DEVICE void grid_weights(Vec3<T> f, T (&weights)[8]) {
    const T x[2] = {T(1) - f.x, f.x}, y[2] = {T(1) - f.y, f.y}, z[2] = {T(1) - f.z, f.z};
#pragma unroll
    for (int corner = 0; corner < 8; ++corner)
        weights[corner] = x[corner & 1] * (y[(corner >> 1) & 1] * z[corner >> 2]);
}

// Features of one level at a position: read(entry, values) fills kFeatures values of that row.
template <int kFeatures, class T, class Read>
KS_HOST_DEVICE void grid_interpolate(const GridLevel& level, Vec3<T> position, Read&& read, T (&features)[kFeatures]) {
    const GridCell<T> cell = grid_cell(level, position);
    const GridCorners corners = grid_corners(level, cell);
    T weights[8], values[8][kFeatures];
    grid_weights(cell.fraction, weights);
#pragma unroll
    for (int corner = 0; corner < 8; ++corner) // all loads before the first use
        read(corners.entry[corner], values[corner]);
#pragma unroll
    for (int f = 0; f < kFeatures; ++f) {
        features[f] = weights[0] * values[0][f];
#pragma unroll
        for (int corner = 1; corner < 8; ++corner)
            features[f] = features[f] + weights[corner] * values[corner][f];
    }
}

// Gradient with respect to the position from that of the level's features.
template <int kFeatures, class T, class Read>
KS_HOST_DEVICE Vec3<T> grid_position_vjp(const GridLevel& level, Vec3<T> position, Read&& read,
                                         const T (&dL_dfeatures)[kFeatures]) {
    const GridCell<T> cell = grid_cell(level, position);
    const GridCorners corners = grid_corners(level, cell);
    T along[8]; // the gradient times each corner's values
#pragma unroll
    for (int corner = 0; corner < 8; ++corner) {
        T values[kFeatures];
        read(corners.entry[corner], values);
        along[corner] = dL_dfeatures[0] * values[0];
#pragma unroll
        for (int f = 1; f < kFeatures; ++f)
            along[corner] = along[corner] + dL_dfeatures[f] * values[f];
    }
    const Vec3<T> f = cell.fraction;
    // The four differences along x, interpolated over y and z; then the same with what is left of x, and of y.
    const T x00 = along[1] - along[0], x10 = along[3] - along[2], x01 = along[5] - along[4], x11 = along[7] - along[6];
    const T near_y = x00 + f.y * (x10 - x00), far_y = x01 + f.y * (x11 - x01);
    const T a00 = along[0] + f.x * x00, a10 = along[2] + f.x * x10, a01 = along[4] + f.x * x01,
            a11 = along[6] + f.x * x11;
    const T y0 = a10 - a00, y1 = a11 - a01;
    const T z0 = a00 + f.y * y0, z1 = a01 + f.y * y1;
    const auto inside = [](T x) { return select(T(0) > x, T(0), select(x > T(1), T(0), T(1))); };
    const T n = T(level.resolution);
    return {n * inside(position.x) * (near_y + f.z * (far_y - near_y)), n * inside(position.y) * (y0 + f.z * (y1 - y0)),
            n * inside(position.z) * (z1 - z0)};
}

} // namespace kinosplat
