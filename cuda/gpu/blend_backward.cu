// Blend, backward: front to back once more. What lies behind a contribution is what the finished pixel has left after
// it, so that nothing but the picture itself has to be kept from the forward pass.
//
// Lanes are pixels, but gradients are summed over pixels. Each warp collects what 8 hits get from its 32 pixels in
// shared memory and then turns its lanes around: four lanes a hit, a line of 8 pixels each. Moments along a line
// have constant factors, and two exchanges sum the four lanes; that takes a seventh of the instructions that summing
// nine numbers over a warp by exchanges would.
#include <type_traits>

#include "gpu/blend.cuh"
#include "math/blending.h"

namespace kinosplat::gpu {
namespace {

// One pixel a lane: with two, the registers leave room for too few warps to hide what they wait for (measured: 10%
// slower).
constexpr int kPixels = 1;
constexpr int kBlendThreads = Shares<kPixels>::kThreads;
constexpr int kBlendWarps = Shares<kPixels>::kWarps;

constexpr int kCollected = 8; // hits
constexpr int kWarpPixels = kWarp * kPixels;
// Floats from hit to hit; the padding keeps 16-byte reads of the turned lanes off each other's banks.
constexpr int kCollectedStride = kWarpPixels + 4;
// Hits that reach a warp: what is left of the last group, fewer than are collected, and those of a group.
constexpr int kWaiting = kWarp + kCollected - 1;

struct WarpHits {
    float4 a[kWaiting], b[kWaiting]; // {u_x, u_y, u_0, v_0}, {v_y, log2_opacity, red, green}
    float blue[kWaiting];
    uint32_t row[kWaiting];
    float2 offset[kWaiting]; // from the Gaussian's mean to the centre of the tile

    __device__ void move(int from, int to) {
        a[to] = a[from];
        b[to] = b[from];
        blue[to] = blue[from];
        row[to] = row[from];
        offset[to] = offset[from];
    }
};

// What hits get from the warp's pixels.
struct WarpCollection {
    float exponents[kCollected * kCollectedStride]; // dL_dexponent
    float weights[kCollected * kCollectedStride];   // alpha * transmittance
    float dL_drgb[3][kWarpPixels];                  // of the pixels themselves
};

__device__ inline void add4(float* target, float4 v) {
    if (v.x == 0.0f && v.y == 0.0f && v.z == 0.0f && v.w == 0.0f)
        return;
#if __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(target), v);
#else
    atomicAdd(target, v.x);
    atomicAdd(target + 1, v.y);
    atomicAdd(target + 2, v.z);
    atomicAdd(target + 3, v.w);
#endif
}

__device__ inline void add1(float* target, float x) {
    if (x != 0.0f)
        atomicAdd(target, x);
}

// Sum over the four lanes of a hit.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
}

__device__ inline void read8(float* to, const float* from) {
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
    *reinterpret_cast<float4*>(to + 4) = *reinterpret_cast<const float4*>(from + 4);
}

// A lane as one of four that look after a hit: `slot` of the collection, and the lines of pixels it sums over.
struct TurnedLane {
    int slot = lane_id() / 4, line = lane_id() % 4;

    __device__ int place(int k) const { return k * kWarp + line * kWarpColumns; }
    __device__ float height(int k) const {
        return float(line + k * kPixelStep) - 0.5f * (Shares<kPixels>::kWarpLines - 1);
    }
};

// Adds what the hits from `first` on get to their rows; (warp_u, warp_v) is the centre of the warp's pixels.
__device__ inline void add_collected(const WarpCollection& collection, const TurnedLane& lane, const WarpHits& hits,
                                     int first, int n_hits, float warp_u, float warp_v, const RowGradients& out) {
    __syncwarp();
    float one = 0.0f, u = 0.0f, v = 0.0f, uu = 0.0f, uv = 0.0f, vv = 0.0f, rgb[3] = {};
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
        float values[kWarpColumns];
        read8(values, collection.exponents + lane.slot * kCollectedStride + lane.place(k));
        float line_one = 0.0f, line_u = 0.0f;
#pragma unroll
        for (int i = 0; i < kWarpColumns; ++i) {
            const float position = float(i) - 0.5f * (kWarpColumns - 1);
            line_one += values[i];
            line_u = fmaf(values[i], position, line_u);
            uu = fmaf(values[i], position * position, uu);
        }
        const float height = lane.height(k);
        one += line_one;
        u += line_u;
        v = fmaf(height, line_one, v);
        uv = fmaf(height, line_u, uv);
        vv = fmaf(height * height, line_one, vv);
        read8(values, collection.weights + lane.slot * kCollectedStride + lane.place(k));
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            float gradient[kWarpColumns];
            read8(gradient, collection.dL_drgb[c] + lane.place(k));
#pragma unroll
            for (int i = 0; i < kWarpColumns; ++i)
                rgb[c] = fmaf(values[i], gradient[i], rgb[c]);
        }
    }
    one = quad_sum(one);
    u = quad_sum(u);
    v = quad_sum(v);
    uu = quad_sum(uu);
    uv = quad_sum(uv);
    vv = quad_sum(vv);
#pragma unroll
    for (int c = 0; c < 3; ++c)
        rgb[c] = quad_sum(rgb[c]);
    if (lane.slot < n_hits) {
        const float2 offset = hits.offset[first + lane.slot];
        const float x = offset.x + warp_u, y = offset.y + warp_v;
        const int64_t row = hits.row[first + lane.slot];
        if (lane.line == 0)
            add4(out.moments + 4 * row, {one, fmaf(x, one, u), fmaf(y, one, v), fmaf(x, fmaf(x, one, 2.0f * u), uu)});
        // Neighbouring lanes add to neighbouring numbers, which travel together.
        if (lane.line < 2)
            add1(out.second_moments + 3 * row + lane.line,
                 lane.line == 0 ? fmaf(x, fmaf(y, one, v), fmaf(y, u, uv)) : fmaf(y, fmaf(y, one, 2.0f * v), vv));
        if (lane.line < 3)
            add1(out.rgb + 3 * row + lane.line, lane.line == 0 ? rgb[0] : lane.line == 1 ? rgb[1] : rgb[2]);
    }
    __syncwarp();
}

template <int kChannels>
__global__ __launch_bounds__(kBlendThreads, kChannels == 0 ? 4 : 1) void blend_backward_kernel(
    const __grid_constant__ Rows rows, const __grid_constant__ TileLists lists,
    const __grid_constant__ Pictures pictures, const __grid_constant__ PictureGradients gradients,
    const __grid_constant__ RowGradients out, int width, int height, TileGrid grid, ChannelChunk chunk) {
    __shared__ float4 staged_a[kBlendThreads], staged_b[kBlendThreads];
    __shared__ float staged_blue[kBlendThreads];
    __shared__ uint32_t staged_row[kBlendThreads];
    __shared__ WarpHits warp_hits[kBlendWarps];
    __shared__ WarpCollection collections[kBlendWarps];
    WarpHits& hits = warp_hits[warp_id()];
    WarpCollection& collection = collections[warp_id()];

    const LanePixels lane = this_lane<kPixels>(grid, width, height);
    using Hits = TileHits<kBlendThreads>;
    __shared__ typename Hits::Shared shared_hits;
    Hits tile_hits(shared_hits, lists, lane.quad, lane.quad_bit);
    float3 dL_drgb[kPixels] = {};
    float dL_dchannels[kPixels][kChannels > 0 ? kChannels : 1] = {};
    float behind[kPixels] = {};
    LaneState state(lane);
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
        if (!lane.inside[k])
            continue;
        const int64_t pixel = lane.index[k];
        if (chunk.with_colour) {
            const float *rgb = pictures.rgb + 3 * pixel, *g = gradients.rgb + 3 * pixel;
            dL_drgb[k] = {g[0], g[1], g[2]};
            behind[k] = rgb[0] * g[0] + rgb[1] * g[1] + rgb[2] * g[2];
            if (gradients.alpha)
                behind[k] -= (1.0f - pictures.alpha[pixel]) * gradients.alpha[pixel];
        }
        if (kChannels > 0)
            for (int c = 0; c < chunk.count; ++c) {
                const int64_t at = pixel * chunk.total + chunk.begin + c;
                dL_dchannels[k][c] = gradients.channels[at];
                behind[k] = fmaf(pictures.channels[at], dL_dchannels[k][c], behind[k]);
            }
    }
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
        collection.dL_drgb[0][k * kWarp + lane_id()] = dL_drgb[k].x;
        collection.dL_drgb[1][k * kWarp + lane_id()] = dL_drgb[k].y;
        collection.dL_drgb[2][k * kWarp + lane_id()] = dL_drgb[k].z;
    }
    const TurnedLane turned;

    // Blends kCollected waiting hits, of which the last may have been filled up with nothing, and adds up what they
    // get.
    const auto collect = [&](int first, int n_hits) {
#pragma unroll
        for (int i = 0; i < kCollected; ++i) {
            const float4 b = hits.b[first + i];
            const TileFalloff falloff = unpack(hits.a[first + i], b.x, b.y);
            const float blue = hits.blue[first + i];
            const int64_t channels_at = int64_t(hits.row[first + i]) * chunk.total + chunk.begin;
            float dL_dvalues[kChannels > 0 ? kChannels : 1] = {};
#pragma unroll
            for (int k = 0; k < kPixels; ++k) {
                Contribution one = contribute(state.pixels[k], falloff.exponent(lane.u, lane.v[k]));
                one.alpha = one.blends ? one.alpha : 0.0f;
                one.weight = one.blends ? one.weight : 0.0f;
                float value_dot_g = fmaf(b.z, dL_drgb[k].x, fmaf(b.w, dL_drgb[k].y, blue * dL_drgb[k].z));
                if (kChannels > 0 && i < n_hits)
#pragma unroll
                    for (int c = 0; c < kChannels; ++c)
                        if (c < chunk.count) {
                            value_dot_g = fmaf(rows.channels[channels_at + c], dL_dchannels[k][c], value_dot_g);
                            dL_dvalues[c] = fmaf(one.weight, dL_dchannels[k][c], dL_dvalues[c]);
                        }
                behind[k] = fmaf(-one.weight, value_dot_g, behind[k]);
                const int at = i * kCollectedStride + k * kWarp + lane_id();
                collection.exponents[at] = blend_vjp(one.raw, one.alpha, __fdividef(1.0f, 1.0f - one.alpha), one.before,
                                                     value_dot_g, behind[k]);
                collection.weights[at] = one.weight;
            }
            if (kChannels > 0 && i < n_hits)
                for (int c = 0; c < chunk.count; ++c) {
                    const float sum = warp_sum(dL_dvalues[c]);
                    if (lane_id() == 0)
                        atomicAdd(out.channels + channels_at + c, sum);
                }
        }
        add_collected(collection, turned, hits, first, n_hits, lane.warp_u, lane.warp_v, out);
    };

    float4 next_a{}, next_b{};
    float next_blue = 0.0f;
    uint32_t next_row = 0;
    const auto fetch = [&] {
        if (int(threadIdx.x) < tile_hits.count()) {
            next_row = tile_hits.row(threadIdx.x);
            const float4* record = rows.records + int64_t(next_row) * kRowFloat4s;
            next_a = record[0];
            next_b = record[1];
            next_blue = rows.blue_depth[next_row].x;
        }
    };
    int n_waiting = 0;
    tile_hits.advance(0);
    fetch();
    while (const int count = tile_hits.count()) {
        if (__syncthreads_and(state.finished()))
            break;
        // From the mean to the centre of the tile: moments need it too.
        staged_a[threadIdx.x] = {next_a.z, next_a.w, lane.centre_x - next_a.x, lane.centre_y - next_a.y};
        staged_b[threadIdx.x] = next_b;
        staged_blue[threadIdx.x] = next_blue;
        staged_row[threadIdx.x] = next_row;
        tile_hits.advance(count);
        __syncthreads();
        fetch();

        for (int group = 0; group < count; group += kWarp) {
            if (__all_sync(kAllLanes, state.finished())) {
                n_waiting = 0;
                break;
            }
            const int mine = group + lane_id();
            const float4 staged = staged_a[mine], b = staged_b[mine];
            const float4 a = tile_falloff(staged.x, staged.y, b.x, staged.z, staged.w);
            const bool reaches = mine < count && unpack(a, b.x, b.y).reaches(lane);
            const unsigned reaching_lanes = __ballot_sync(kAllLanes, reaches);
            if (reaches) {
                const int slot = n_waiting + compacted_slot(true, reaching_lanes);
                hits.a[slot] = a;
                hits.b[slot] = b;
                hits.blue[slot] = staged_blue[mine];
                hits.row[slot] = staged_row[mine];
                hits.offset[slot] = {staged.z, staged.w};
            }
            __syncwarp();
            n_waiting += __popc(reaching_lanes);
            int first = 0;
            for (; first + kCollected <= n_waiting; first += kCollected)
                collect(first, kCollected);
            n_waiting -= first;
            // What is left is fewer than were taken, so it moves to places nobody reads.
            if (first > 0 && lane_id() < n_waiting)
                hits.move(first + lane_id(), lane_id());
            __syncwarp();
        }
    }
    if (n_waiting > 0) {
        if (lane_id() >= n_waiting && lane_id() < kCollected) {
            hits.a[lane_id()] = {0.0f, 0.0f, 0.0f, 0.0f};
            hits.b[lane_id()] = {0.0f, -INFINITY, 0.0f, 0.0f};
            hits.blue[lane_id()] = 0.0f;
            hits.row[lane_id()] = 0;
        }
        __syncwarp();
        collect(0, n_waiting);
    }
}

// Three arrays in one launch; neighbouring threads write neighbouring numbers.
__global__ __launch_bounds__(kBlendThreads) void clear_kernel(RowGradients out, int64_t n_rows) {
    const int64_t first = int64_t(blockIdx.x) * kBlendThreads;
    if (first + threadIdx.x < n_rows)
        reinterpret_cast<float4*>(out.moments)[first + threadIdx.x] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < 3; ++k) {
        const int64_t at = 3 * first + k * kBlendThreads + threadIdx.x;
        if (at < 3 * n_rows)
            out.second_moments[at] = out.rgb[at] = 0.0f;
    }
}

} // namespace

void clear_row_gradients(const Frame& frame, const RowGradients& out, cudaStream_t stream) {
    if (frame.n_pairs() == 0)
        return;
    clear_kernel<<<divide_up(frame.n_pairs(), kBlendThreads), kBlendThreads, 0, stream>>>(out, frame.n_pairs());
    check_launch("blend backward");
}

void blend_backward(const Frame& frame, const Rows& rows, const TileLists& lists, const Pictures& pictures,
                    const PictureGradients& gradients, const RowGradients& out, cudaStream_t stream) {
    const TileGrid grid = tile_grid(frame);
    for_each_chunk(frame.n_channels(), [&](ChannelChunk chunk, auto capacity) {
        blend_backward_kernel<capacity()><<<grid.n_all(), kBlendThreads, 0, stream>>>(
            rows, lists, pictures, gradients, out, frame.width, frame.height, grid, chunk);
    });
    check_launch("blend backward");
}

} // namespace kinosplat::gpu
