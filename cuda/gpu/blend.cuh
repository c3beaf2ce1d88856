// What blending does in both directions: a block takes one tile, each warp 8 columns and 4 lines of its pixels for
// every pixel a lane has. The tile's hits (tile_hits.cuh) are staged in shared memory, one a thread; of each 32 a warp
// keeps those that can reach its own pixels.
#pragma once

#include "gpu/device.cuh"
#include "gpu/frame.h"
#include "gpu/rows.cuh"
#include "gpu/tile_hits.cuh"
#include "math/blending.h"

namespace kinosplat::gpu {

constexpr int kWarpColumns = 8;
constexpr int kPixelStep = kWarp / kWarpColumns; // lines between a lane's pixels

// How a tile is shared out when each lane has kPixels pixels, one below the other.
template <int kPixels>
struct Shares {
    static constexpr int kThreads = kTileSize * kTileSize / kPixels;
    static constexpr int kWarps = kThreads / kWarp;
    static constexpr int kWarpLines = kPixelStep * kPixels;
};

constexpr float kLog2MinAlpha = -7.994353436858858f; // log2(1 / 255)
// A little more than nothing is kept by the test of 32 pixels at once, so that its rounding drops no contribution.
constexpr float kReachSlack = 1e-3f;

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// One lane's pixels. Coordinates u, v are relative to the centre of the tile.
template <int kPixels>
struct LanePixels {
    int camera;
    int quad, quad_bit;       // the tile's list, over all cameras, and which of its entries count
    float centre_x, centre_y; // of the tile, pixels
    float u, v[kPixels];
    float warp_u, warp_v; // centre of the warp's pixels
    bool inside[kPixels];
    int64_t index[kPixels]; // in (C, H, W)
};

template <int kPixels>
__device__ inline LanePixels<kPixels> this_lane(const TileGrid& grid, int width, int height) {
    constexpr int kWarpLines = Shares<kPixels>::kWarpLines;
    LanePixels<kPixels> p;
    p.camera = blockIdx.x / grid.n_tiles();
    const int tile = blockIdx.x - p.camera * grid.n_tiles();
    const int row = tile / grid.columns, column = tile - row * grid.columns;
    p.quad = p.camera * grid.n_quads() + row / 2 * grid.quad_columns() + column / 2;
    p.quad_bit = quad_bit(column, row);
    constexpr int kWarpsAcross = kTileSize / kWarpColumns;
    const int warp_x = warp_id() % kWarpsAcross * kWarpColumns, warp_y = warp_id() / kWarpsAcross * kWarpLines;
    const int local_x = warp_x + lane_id() % kWarpColumns, x = column * kTileSize + local_x;
    constexpr float kMiddle = 0.5f * (kTileSize - 1);
    p.centre_x = float(column * kTileSize) + 0.5f * kTileSize;
    p.centre_y = float(row * kTileSize) + 0.5f * kTileSize;
    p.u = float(local_x) - kMiddle;
    p.warp_u = float(warp_x) + 0.5f * (kWarpColumns - 1) - kMiddle;
    p.warp_v = float(warp_y) + 0.5f * (kWarpLines - 1) - kMiddle;
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
        const int local_y = warp_y + lane_id() / kWarpColumns + k * kPixelStep, y = row * kTileSize + local_y;
        p.v[k] = float(local_y) - kMiddle;
        p.inside[k] = x < width && y < height;
        p.index[k] = (int64_t(p.camera) * height + y) * width + x;
    }
    return p;
}

// The falloff of a hit in tile coordinates: exponent(u, v) = log2_opacity - (u_x u + u_y v + u_0)^2 - (v_y v + v_0)^2.
struct TileFalloff {
    float u_x, u_y, u_0, v_0; // one float4
    float v_y, log2_opacity;

    __device__ float exponent(float u, float v) const {
        const float a = fmaf(u_x, u, fmaf(u_y, v, u_0)), b = fmaf(v_y, v, v_0);
        return fmaf(-a, a, fmaf(-b, b, log2_opacity));
    }

    // False only if alpha < 1/255 at all pixels of a warp: the box around them, carried to the coordinates (a, b)
    // above, lies outside of the circle in which the exponent is large enough.
    template <int kPixels>
    __device__ bool reaches(const LanePixels<kPixels>& lane) const {
        constexpr float kHalfU = 0.5f * (kWarpColumns - 1), kHalfV = 0.5f * (Shares<kPixels>::kWarpLines - 1);
        const float a = fmaf(u_x, lane.warp_u, fmaf(u_y, lane.warp_v, u_0)), b = fmaf(v_y, lane.warp_v, v_0);
        const float outside_a = fmaxf(fabsf(a) - fmaf(u_x, kHalfU, fabsf(u_y) * kHalfV), 0.0f);
        const float outside_b = fmaxf(fabsf(b) - v_y * kHalfV, 0.0f);
        return fmaf(outside_a, outside_a, outside_b * outside_b) <= log2_opacity - kLog2MinAlpha + kReachSlack;
    }
};

// The first four of them; (dx, dy) goes from the Gaussian's mean to the centre of the tile.
__device__ inline float4 tile_falloff(float u_x, float u_y, float v_y, float dx, float dy) {
    return {u_x, u_y, fmaf(u_x, dx, u_y * dy), v_y * dy};
}

__device__ inline TileFalloff unpack(float4 a, float v_y, float log2_opacity) {
    return {a.x, a.y, a.z, a.w, v_y, log2_opacity};
}

// What a pixel has left. Both directions step through the same hits with the same arithmetic, rounding and all, so that
// the backward pass finds the same contributions without a record of them.
struct PixelState {
    float transmittance;
    float needed; // exponent a contribution must have; more than any has once the pixel is finished
};

template <int kPixels>
struct LaneState {
    PixelState pixels[kPixels];

    __device__ explicit LaneState(const LanePixels<kPixels>& lane) {
        for (int k = 0; k < kPixels; ++k)
            pixels[k] = {1.0f, lane.inside[k] ? kLog2MinAlpha : INFINITY};
    }
    __device__ bool finished() const {
        float needed = INFINITY;
        for (int k = 0; k < kPixels; ++k)
            needed = fminf(needed, pixels[k].needed);
        return needed == INFINITY;
    }
};

struct Contribution {
    bool blends;
    float raw;    // opacity * falloff
    float alpha;  // clamped
    float before; // transmittance in front
    float weight; // alpha * before
};

// All but `blends` is about what would have been, where that is false.
__device__ inline Contribution contribute(PixelState& pixel, float exponent) {
    Contribution c;
    c.raw = exp2_fast(exponent);
    c.before = pixel.transmittance;
    c.alpha = clamp_alpha(c.raw);
    c.weight = __fmul_rn(c.alpha, c.before);
    const float after = __fsub_rn(c.before, c.weight);
    const bool reaches = exponent >= pixel.needed, lasts = after >= float(kMinTransmittance);
    c.blends = reaches && lasts;
    if (reaches && !lasts)
        pixel.needed = INFINITY;
    if (c.blends)
        pixel.transmittance = after;
    return c;
}

// Where a lane's hit goes when a warp moves those that reach it to the front, in order.
__device__ inline int compacted_slot(bool reaches, unsigned reaching_lanes) {
    const unsigned before = (1u << lane_id()) - 1;
    return reaches ? __popc(reaching_lanes & before) : __popc(reaching_lanes) + __popc(~reaching_lanes & before);
}

// Extra channels are blended a few at a time, in launches of their own beyond the first few.
struct ChannelChunk {
    int begin, count, total;
    bool with_colour;
};

// Calls function(chunk, std::integral_constant<int, capacity>) for each chunk.
template <class Function>
void for_each_chunk(int n_channels, Function&& function) {
    constexpr int kLargest = 8;
    int begin = 0;
    do {
        const int count = n_channels - begin < kLargest ? n_channels - begin : kLargest;
        const ChannelChunk chunk{begin, count, n_channels, begin == 0};
        if (count == 0)
            function(chunk, std::integral_constant<int, 0>{});
        else if (count == 1)
            function(chunk, std::integral_constant<int, 1>{});
        else if (count <= 4)
            function(chunk, std::integral_constant<int, 4>{});
        else
            function(chunk, std::integral_constant<int, kLargest>{});
        begin += count;
    } while (begin < n_channels);
}

} // namespace kinosplat::gpu
