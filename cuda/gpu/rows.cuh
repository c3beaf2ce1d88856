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

// The quads of two tile rows that one Gaussian hits: a bit for each tile, from an even column on.
struct QuadLine {
    unsigned upper, lower;

    // A bit for each quad, at its left column.
    __device__ unsigned quads() const {
        const unsigned any = upper | lower;
        return (any | any >> 1) & 0x55555555u;
    }
    // The bits of an entry (quad_bit()).
    __device__ unsigned tiles(int column) const { return (upper >> column & 3) | (lower >> column & 3) << 2; }
};

// Tiles of a row in 8 bytes, or 12 where there are more than 2 rows of quads: for a small Gaussian (at most 4 rows of
// quads, 15 tiles wide) all of them, for a large one the tile rows only, whose columns the bin pass finds again.
//   x: small: first column of quads (12 bits), first row of quads (12 bits), number of rows of quads 0 to 4 (8 bits)
//      large: number of tile rows less one (12 bits), first tile row (12 bits), kLarge (8 bits)
//   y: small: per tile row one byte, offset from the first quad and number of columns; large: number of entries
//   more: the third and fourth row of quads
struct TileSpan {
    static constexpr int kMaxQuadRows = 4, kMaxColumns = 15;
    static constexpr unsigned kLarge = 255;
    uint2 bits;
    uint32_t more;

    __device__ bool is_large() const { return bits.x >> 24 == kLarge; }
    __device__ bool has_more() const { return bits.x >> 24 > 2; }
    __device__ TileRange large_rows() const {
        const int first = bits.x >> 12 & 0xfff;
        return {first, first + int(bits.x & 0xfff) + 1};
    }

    // The rest is for small ones, n_entries() excepted.
    __device__ int first_quad_column() const { return bits.x & 0xfff; }
    __device__ int first_quad_row() const { return bits.x >> 12 & 0xfff; }
    __device__ int n_quad_rows() const { return bits.x >> 24; }
    __device__ unsigned n_tiles() const {
        return (((bits.y >> 4 & 0x0f0f0f0fu) + (more >> 4 & 0x0f0f0f0fu)) * 0x01010101u) >> 24;
    }
    __device__ static unsigned tile_bits(unsigned byte) { return ((1u << (byte >> 4)) - 1) << (byte & 0xf); }
    __device__ QuadLine quad_line(int k) const {
        const unsigned both = (k < 2 ? bits.y : more) >> (k % 2 * 16);
        return {tile_bits(both & 0xff), tile_bits(both >> 8 & 0xff)};
    }

    __device__ unsigned n_entries() const {
        if (is_large())
            return bits.y;
        unsigned n = 0;
        for (int k = 0; k < n_quad_rows(); ++k)
            n += __popc(quad_line(k).quads());
        return n;
    }
};

// The columns a large Gaussian touches in the two tile rows of a row of quads.
struct LargeQuadLine {
    TileRange upper, lower;

    __device__ static TileRange quads_of(TileRange tiles) {
        return tiles.begin < tiles.end ? TileRange{tiles.begin / 2, (tiles.end + 1) / 2} : TileRange{0, 0};
    }
    // From the first to the last quad; there may be some without a tile between them.
    __device__ TileRange quads() const {
        const TileRange a = quads_of(upper), b = quads_of(lower);
        if (a.begin == a.end || b.begin == b.end)
            return a.begin == a.end ? b : a;
        return {min(a.begin, b.begin), max(a.end, b.end)};
    }
    __device__ int n_quads() const {
        const TileRange a = quads_of(upper), b = quads_of(lower);
        return a.end - a.begin + b.end - b.begin - max(min(a.end, b.end) - max(a.begin, b.begin), 0);
    }
    __device__ int n_tiles() const { return max(upper.end - upper.begin, 0) + max(lower.end - lower.begin, 0); }
    __device__ unsigned tiles(int quad) const {
        const auto bit = [](TileRange range, int column) {
            return column >= range.begin && column < range.end ? 1u : 0u;
        };
        return bit(upper, 2 * quad) | bit(upper, 2 * quad + 1) << 1 | bit(lower, 2 * quad) << 2 |
               bit(lower, 2 * quad + 1) << 3;
    }
};

__device__ inline LargeQuadLine large_quad_line(const Falloff& f, int width, int height, TileRange rows, int quad_row) {
    const int row = 2 * quad_row;
    return {row >= rows.begin ? columns_of_row(f, width, height, row) : TileRange{0, 0},
            row + 1 < rows.end ? columns_of_row(f, width, height, row + 1) : TileRange{0, 0}};
}

struct CountedSpan {
    TileSpan span;
    unsigned n_hits;
};

__device__ inline CountedSpan tile_span(const ScreenGaussian<float>& s, const Falloff& falloff, int width, int height) {
    const TileOverlap<float> overlap = tile_overlap(s, width, height);
    const TileRange tile_rows = overlap.rows, box = overlap.columns();
    const int first_column = box.begin & ~1, first_row = tile_rows.begin & ~1;
    const int n_quad_rows = (tile_rows.end - first_row + 1) / 2;
    if (n_quad_rows <= TileSpan::kMaxQuadRows && box.end - first_column <= TileSpan::kMaxColumns) {
        uint32_t bytes[2] = {0u, 0u};
#pragma unroll 1
        for (int row = tile_rows.begin; row < tile_rows.end; ++row) {
            const TileRange touched = overlap.columns(row);
            // Rounded by other formulas than the box.
            const int begin = max(touched.begin, box.begin), end = min(touched.end, box.end), k = row - first_row;
            const uint32_t byte = begin < end ? (begin - first_column) | (end - begin) << 4 : 0;
            bytes[0] |= k < 4 ? byte << (8 * k) : 0u;
            bytes[1] |= k < 4 ? 0u : byte << (8 * k - 32);
        }
        const TileSpan span{
            {unsigned(first_column / 2) | unsigned(first_row / 2) << 12 | unsigned(n_quad_rows) << 24, bytes[0]},
            bytes[1]};
        return {span, span.n_tiles()};
    }
    const TileRange rows = columns_of_row(falloff, width, height, -1);
    unsigned n_hits = 0, n_entries = 0;
    for (int quad_row = rows.begin / 2; quad_row < (rows.end + 1) / 2; ++quad_row) {
        const LargeQuadLine line = large_quad_line(falloff, width, height, rows, quad_row);
        n_hits += line.n_tiles();
        n_entries += line.n_quads();
    }
    return {
        {{unsigned(rows.end - rows.begin - 1) | unsigned(rows.begin) << 12 | TileSpan::kLarge << 24, n_entries}, 0u},
        n_hits};
}

} // namespace kinosplat::gpu
