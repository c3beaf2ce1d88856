// How one row is written and read: its record, and the tiles it touches.
#pragma once

#include <cuda_fp16.h>

#include "gpu/frame.h"
#include "math/gaussian.h"

namespace kinosplat::gpu {

constexpr float kLog2e = 1.4426950408889634f;

// The falloff of a row as frame.h describes it.
struct Falloff {
    float mean_x, mean_y;
    float u_x, u_y, v_y;
    float log2_opacity;
};

__device__ inline Falloff falloff_of(const ScreenGaussian<float>& s) {
    // The Cholesky factor from the covariance rather than from the conic: 1 / cov_yy is what is left of the conic's
    // determinant.
    const Projection<float>& p = s.projection;
    const float u_x = sqrtf(0.5f * kLog2e * p.conic.xx);
    const float u_y = -u_x * (p.covariance.xy / p.covariance.yy);
    return {p.mean2d.x, p.mean2d.y, u_x, u_y, sqrtf(0.5f * kLog2e / p.covariance.yy), log2f(s.opacity)};
}

__device__ inline Falloff read_falloff(const float4* record) {
    const float4 a = record[0];
    const float2 b = *reinterpret_cast<const float2*>(record + 1);
    return {a.x, a.y, a.z, a.w, b.x, b.y};
}

__device__ inline float as_float(__half2 pair) { return *reinterpret_cast<float*>(&pair); }
__device__ inline float2 as_pair(float bits) { return __half22float2(*reinterpret_cast<__half2*>(&bits)); }

__device__ inline void write_record(const Rows& rows, uint32_t row, const Falloff& f, Vec3<float> colour, float depth) {
    float4* record = rows.records + int64_t(row) * kRowFloat4s;
    record[0] = {f.mean_x, f.mean_y, f.u_x, f.u_y};
    record[1] = {f.v_y, f.log2_opacity, colour.x, colour.y};
    rows.blue_depth[row] = {colour.z, depth};
}

__device__ inline void write_packed_record(const Rows& rows, uint32_t row, const Falloff& f, Vec3<float> colour) {
    float4* record = rows.records + int64_t(row) * kRowFloat4s;
    record[0] = {f.mean_x, f.mean_y, f.u_x, f.u_y};
    record[1] = {f.v_y, f.log2_opacity, as_float(__floats2half2_rn(colour.x, colour.y)),
                 as_float(__floats2half2_rn(colour.z, 0.0f))};
}

// The tile overlap of a row from its record alone. Never inlined: the project pass counts with it and the bin pass
// lists with it, and two inlined copies might be rounded differently.
__device__ __noinline__ inline TileRange columns_of_row(Falloff f, int width, int height, int row) {
    const float scale = 0.5f * kLog2e;
    const float cov_yy = scale / (f.v_y * f.v_y), slope = -f.u_y / f.u_x;
    const float conic_xx = f.u_x * f.u_x / scale;
    const float cov_xy = slope * cov_yy, cov_xx = 1.0f / conic_xx + slope * cov_xy;
    const float cutoff = 2.0f * (f.log2_opacity / kLog2e + 5.541263545158426f); // ln 255
    const TileOverlap<float> overlap({f.mean_x, f.mean_y}, {cov_xx, cov_xy, cov_yy}, conic_xx, cutoff, width, height);
    return row < 0 ? overlap.rows : overlap.columns(row);
}

// Tiles of a row in 8 bytes: for a small Gaussian (at most 4 rows of at most 15 tiles) all of them, for a large one the
// tile rows only, whose columns the bin pass finds again.
//   x: first column (12 bits), first row (12 bits), number of rows 0 to 4, or kLargeSpan (8 bits)
//   y: small: per row one byte, offset from the first column and number of columns; large: number of tiles
struct TileSpan {
    static constexpr unsigned kMaxRows = 4, kMaxColumns = 15, kLarge = 255;
    uint2 bits;

    __device__ bool is_large() const { return bits.x >> 24 == kLarge; }
    __device__ unsigned first_column() const { return bits.x & 0xfff; }
    __device__ unsigned first_row() const { return bits.x >> 12 & 0xfff; }
    __device__ unsigned n_rows() const { return bits.x >> 24; }
    __device__ unsigned column(int row) const { return first_column() + (bits.y >> (8 * row) & 0xf); }
    __device__ unsigned n_columns(int row) const { return bits.y >> (8 * row + 4) & 0xf; }
    __device__ unsigned n_tiles() const {
        return is_large() ? bits.y : ((bits.y >> 4 & 0x0f0f0f0fu) * 0x01010101u) >> 24;
    }
};

__device__ inline TileSpan tile_span(const ScreenGaussian<float>& s, const Falloff& falloff, int width, int height) {
    const TileOverlap<float> overlap = tile_overlap(s, width, height);
    const unsigned n_rows = overlap.rows.end - overlap.rows.begin;
    if (n_rows <= TileSpan::kMaxRows) {
        TileRange columns[TileSpan::kMaxRows];
        int first = 4096, last = 0;
#pragma unroll
        for (int row = 0; row < int(TileSpan::kMaxRows); ++row) {
            columns[row] = row < int(n_rows) ? overlap.columns(overlap.rows.begin + row) : TileRange{0, 0};
            if (columns[row].begin < columns[row].end) {
                first = min(first, columns[row].begin);
                last = max(last, columns[row].end);
            }
        }
        if (last - first <= int(TileSpan::kMaxColumns)) {
            unsigned bytes = 0;
#pragma unroll
            for (int row = 0; row < int(TileSpan::kMaxRows); ++row)
                if (columns[row].begin < columns[row].end)
                    bytes |= unsigned((columns[row].begin - first) | (columns[row].end - columns[row].begin) << 4)
                             << (8 * row);
            if (!bytes)
                return {{0u, 0u}};
            return {{unsigned(first) | unsigned(overlap.rows.begin) << 12 | n_rows << 24, bytes}};
        }
    }
    const TileRange rows = columns_of_row(falloff, width, height, -1);
    unsigned n_tiles = 0;
    for (int row = rows.begin; row < rows.end; ++row) {
        const TileRange columns = columns_of_row(falloff, width, height, row);
        n_tiles += columns.end - columns.begin;
    }
    return {{unsigned(rows.begin) << 12 | TileSpan::kLarge << 24, n_tiles}};
}

} // namespace kinosplat::gpu
