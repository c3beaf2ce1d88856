// Blend, backward: front to back once more. What lies behind a contribution is what the finished pixel has left after it, so
// that nothing but the picture itself has to be kept from the forward pass.
//
// A lane is a pixel, but gradients are summed over pixels. Each warp collects what 8 hits get from its 32 pixels in shared
// memory and then turns its lanes around: four lanes a hit, one line of 8 pixels each. Moments along a line have constant
// factors, and two exchanges sum the four lines; a hit costs about 14 instructions that way, where summing nine numbers over a
// warp by exchanges would cost 90.
#include <type_traits>

#include "gpu/blend.cuh"
#include "math/blending.h"

namespace kinosplat::gpu {
namespace {

constexpr int kCollected = 8;               // hits
constexpr int kCollectedStride = kWarp + 4; // floats; the padding keeps 16-byte reads of the turned lanes off each other's banks
constexpr int kBlendWarps = kBlendThreads / kWarp;
constexpr int kWaiting = kWarp + kCollected; // hits that reach a warp: those left over from the last group, and a group's

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

struct WarpCollection {
    float exponents[kCollected * kCollectedStride]; // dL_dexponent of each hit at each pixel
    float weights[kCollected * kCollectedStride];   // alpha * transmittance
    float rgb[3][kWarp];                            // dL_drgb of each pixel
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

// Sum over the four lanes of a hit.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
}

__device__ inline float dot8(const float* a, const float* b) {
    float sum = a[0] * b[0];
#pragma unroll
    for (int k = 1; k < 8; ++k)
        sum = fmaf(a[k], b[k], sum);
    return sum;
}

__device__ inline void read8(float* to, const float* from) {
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
    *reinterpret_cast<float4*>(to + 4) = *reinterpret_cast<const float4*>(from + 4);
}

// Adds what the hits from `first` on get to their rows; (warp_u, warp_v) is the centre of the warp's pixels.
__device__ inline void add_collected(const WarpCollection& collection, const WarpHits& hits, int first, int n_hits, float warp_u,
                                     float warp_v, float* moments) {
    __syncwarp();
    const int slot = lane_id() / 4, line = lane_id() % 4;
    float values[8], gradient[8];
    read8(values, collection.exponents + slot * kCollectedStride + line * 8);
    float one = 0.0f, u = 0.0f, uu = 0.0f;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        const float position = float(k) - 0.5f * (kWarpColumns - 1);
        one += values[k];
        u = fmaf(values[k], position, u);
        uu = fmaf(values[k], position * position, uu);
    }
    const float height = float(line) - 0.5f * (kWarpRows - 1);
    read8(values, collection.weights + slot * kCollectedStride + line * 8);
    float rgb[3];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        read8(gradient, collection.rgb[c] + line * 8);
        rgb[c] = quad_sum(dot8(values, gradient));
    }
    const float v = quad_sum(height * one), vv = quad_sum(height * height * one), uv = quad_sum(height * u);
    one = quad_sum(one);
    u = quad_sum(u);
    uu = quad_sum(uu);
    if (slot < n_hits) {
        const float2 offset = hits.offset[first + slot];
        const float x = offset.x + warp_u, y = offset.y + warp_v;
        float* target = moments + int64_t(hits.row[first + slot]) * kRowGradientFloats;
        if (line == 0)
            add4(target, {one, fmaf(x, one, u), fmaf(y, one, v), fmaf(x, fmaf(x, one, 2.0f * u), uu)});
        else if (line == 1)
            add4(target + 4, {fmaf(x, fmaf(y, one, v), fmaf(y, u, uv)), fmaf(y, fmaf(y, one, 2.0f * v), vv), rgb[0], rgb[1]});
        else if (line == 2 && rgb[2] != 0.0f)
            atomicAdd(target + 8, rgb[2]);
    }
    __syncwarp();
}

template <int kChannels>
__global__ __launch_bounds__(kBlendThreads) void blend_backward_kernel(const __grid_constant__ Rows rows,
                                                                       const __grid_constant__ TileLists lists,
                                                                       const __grid_constant__ Pictures pictures,
                                                                       const __grid_constant__ PictureGradients gradients,
                                                                       const __grid_constant__ RowGradients out, int width,
                                                                       int height, TileGrid grid, ChannelChunk chunk) {
    __shared__ float4 staged_a[kBlendThreads], staged_b[kBlendThreads];
    __shared__ float staged_blue[kBlendThreads];
    __shared__ uint32_t staged_row[kBlendThreads];
    __shared__ float2 staged_offset[kBlendThreads];
    __shared__ WarpHits warp_hits[kBlendWarps];
    __shared__ WarpCollection collections[kBlendWarps];
    WarpHits& hits = warp_hits[warp_id()];
    WarpCollection& collection = collections[warp_id()];

    const TilePixel pixel = this_pixel(grid, width, height);
    const uint2 range = lists.ranges[pixel.tile];
    float3 dL_drgb{0.0f, 0.0f, 0.0f};
    float dL_dchannels[kChannels > 0 ? kChannels : 1] = {};
    PixelState state(pixel.inside);
    float behind = 0.0f;
    if (pixel.inside) {
        if (chunk.with_colour) {
            const float *rgb = pictures.rgb + 3 * pixel.index, *g = gradients.rgb + 3 * pixel.index;
            dL_drgb = {g[0], g[1], g[2]};
            behind = rgb[0] * g[0] + rgb[1] * g[1] + rgb[2] * g[2];
            if (gradients.alpha)
                behind -= (1.0f - pictures.alpha[pixel.index]) * gradients.alpha[pixel.index];
        }
        if (kChannels > 0)
            for (int k = 0; k < chunk.count; ++k) {
                const int64_t at = pixel.index * chunk.total + chunk.begin + k;
                dL_dchannels[k] = gradients.channels[at];
                behind = fmaf(pictures.channels[at], dL_dchannels[k], behind);
            }
    }
    collection.rgb[0][lane_id()] = dL_drgb.x;
    collection.rgb[1][lane_id()] = dL_drgb.y;
    collection.rgb[2][lane_id()] = dL_drgb.z;

    // Blends kCollected waiting hits, of which the last may have been filled up with nothing, and adds up what they get.
    const auto collect = [&](int first, int n_hits) {
#pragma unroll
        for (int k = 0; k < kCollected; ++k) {
            const float4 b = hits.b[first + k];
            const float exponent = unpack(hits.a[first + k], b.x, b.y).exponent(pixel.u, pixel.v);
            const Contribution one = contribute(state, exponent);
            float value_dot_g = fmaf(b.z, dL_drgb.x, fmaf(b.w, dL_drgb.y, hits.blue[first + k] * dL_drgb.z));
            if (kChannels > 0 && k < n_hits) {
                const int64_t at = int64_t(hits.row[first + k]) * chunk.total + chunk.begin;
#pragma unroll
                for (int c = 0; c < kChannels; ++c)
                    if (c < chunk.count) {
                        value_dot_g = fmaf(rows.channels[at + c], dL_dchannels[c], value_dot_g);
                        const float sum = warp_sum(one.weight * dL_dchannels[c]);
                        if (lane_id() == 0)
                            atomicAdd(out.channels + at + c, sum);
                    }
            }
            behind = fmaf(-one.weight, value_dot_g, behind);
            collection.exponents[k * kCollectedStride + lane_id()] =
                blend_vjp(one.raw, one.alpha, __fdividef(1.0f, 1.0f - one.alpha), one.before, value_dot_g, behind);
            collection.weights[k * kCollectedStride + lane_id()] = one.weight;
        }
        add_collected(collection, hits, first, n_hits, pixel.warp_u, pixel.warp_v, out.moments);
    };

    float4 next_a{}, next_b{};
    float next_blue = 0.0f;
    uint32_t next_row = 0;
    const auto fetch = [&](uint32_t position) {
        if (position < range.y) {
            next_row = lists.hits[position];
            const float4* record = rows.records + int64_t(next_row) * kRowFloat4s;
            next_a = record[0];
            next_b = record[1];
            next_blue = record[2].x;
        }
    };
    int n_waiting = 0;
    fetch(range.x + threadIdx.x);
    for (uint32_t begin = range.x; begin < range.y; begin += kBlendThreads) {
        if (__syncthreads_and(state.finished()))
            break;
        staged_a[threadIdx.x] = staged_falloff({next_a.x, next_a.y, next_a.z, next_a.w, next_b.x, next_b.y}, pixel.centre_x,
                                               pixel.centre_y);
        staged_b[threadIdx.x] = next_b;
        staged_blue[threadIdx.x] = next_blue;
        staged_row[threadIdx.x] = next_row;
        staged_offset[threadIdx.x] = {pixel.centre_x - next_a.x, pixel.centre_y - next_a.y};
        __syncthreads();
        fetch(begin + kBlendThreads + threadIdx.x);

        const int count = min(range.y - begin, uint32_t(kBlendThreads));
        for (int group = 0; group < count; group += kWarp) {
            if (__all_sync(kAllLanes, state.finished())) {
                n_waiting = 0;
                break;
            }
            const int mine = group + lane_id();
            const float4 a = staged_a[mine], b = staged_b[mine];
            const bool reaches = mine < count && unpack(a, b.x, b.y).reaches(pixel.warp_u, pixel.warp_v);
            const unsigned reaching_lanes = __ballot_sync(kAllLanes, reaches);
            if (reaches) {
                const int slot = n_waiting + compacted_slot(true, reaching_lanes);
                hits.a[slot] = a;
                hits.b[slot] = b;
                hits.blue[slot] = staged_blue[mine];
                hits.row[slot] = staged_row[mine];
                hits.offset[slot] = staged_offset[mine];
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
            hits.a[lane_id()] = hits.b[lane_id()] = {0.0f, -INFINITY, 0.0f, 0.0f};
            hits.a[lane_id()].y = 0.0f;
            hits.blue[lane_id()] = 0.0f;
        }
        __syncwarp();
        collect(0, n_waiting);
    }
}

} // namespace

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
