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

constexpr int kCollected = 8;             // hits
constexpr int kCollectedStride = kWarp + 4; // floats; the padding keeps 16-byte reads of the turned lanes off each other's banks
constexpr int kBlendWarps = kBlendThreads / kWarp;

struct WarpCollection {
    float exponents[kCollected * kCollectedStride]; // dL_dexponent of each hit at each pixel
    float weights[kCollected * kCollectedStride];   // alpha * transmittance
    float rgb[3][kWarp];                            // dL_drgb of each pixel
};

__device__ inline void add4(float* target, float4 v) {
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

// `hit` is what this lane's quad remembers of its hit: {unused, row, offset_x, offset_y} with the offset from the Gaussian's mean to
// the centre of the warp's pixels.
__device__ inline void add_collected(const WarpCollection& collection, int n_collected, float4 hit, float* moments) {
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
    if (slot < n_collected) {
        const float x = hit.z, y = hit.w;
        float* target = moments + int64_t(__float_as_uint(hit.y)) * kRowGradientFloats;
        if (line == 0)
            add4(target, {one, fmaf(x, one, u), fmaf(y, one, v), fmaf(x, fmaf(x, one, 2.0f * u), uu)});
        else if (line == 1)
            add4(target + 4, {fmaf(x, fmaf(y, one, v), fmaf(y, u, uv)), fmaf(y, fmaf(y, one, 2.0f * v), vv), rgb[0], rgb[1]});
        else if (line == 2)
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
    __shared__ float4 staged_c[kBlendThreads]; // blue, row, offset from the mean to the centre of the tile
    __shared__ WarpCollection collections[kBlendWarps];
    WarpCollection& collection = collections[warp_id()];

    const TilePixel pixel = this_pixel(grid, width, height);
    const uint2 range = lists.ranges[pixel.tile];
    float3 dL_drgb{0.0f, 0.0f, 0.0f};
    float dL_dchannels[kChannels > 0 ? kChannels : 1] = {};
    float transmittance = 1.0f, behind = 0.0f;
    uint32_t n_blended = 0;
    if (pixel.inside) {
        n_blended = pictures.n_blended[pixel.index];
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
    const uint32_t warp_n_blended = warp_max(n_blended);
    __shared__ uint32_t block_n_blended;
    if (threadIdx.x == 0)
        block_n_blended = 0;
    __syncthreads();
    if (lane_id() == 0)
        atomicMax(&block_n_blended, warp_n_blended);
    __syncthreads();
    const uint32_t end = range.x + block_n_blended;

    float4 next_a{}, next_b{};
    float next_blue = 0.0f;
    uint32_t next_row = 0;
    const auto fetch = [&](uint32_t position) {
        if (position < end) {
            next_row = lists.hits[position];
            const float4* record = rows.records + int64_t(next_row) * kRowFloat4s;
            next_a = record[0];
            next_b = record[1];
            next_blue = record[2].x;
        }
    };
    int n_collected = 0;
    float4 collected_hit{};
    fetch(range.x + threadIdx.x);
    for (uint32_t begin = range.x; begin < end; begin += kBlendThreads) {
        __syncthreads();
        staged_a[threadIdx.x] = staged_falloff({next_a.x, next_a.y, next_a.z, next_a.w, next_b.x, next_b.y}, pixel.centre_x,
                                               pixel.centre_y);
        staged_b[threadIdx.x] = next_b;
        staged_c[threadIdx.x] = {next_blue, __uint_as_float(next_row), pixel.centre_x - next_a.x, pixel.centre_y - next_a.y};
        __syncthreads();
        fetch(begin + kBlendThreads + threadIdx.x);

        // Positions in the batch at which the warp, and this pixel, have nothing left to blend.
        const int warp_count = min(int(warp_n_blended) - int(begin - range.x), kBlendThreads);
        const int pixel_count = int(n_blended) - int(begin - range.x);
        for (int group = 0; group < warp_count; group += kWarp) {
            const int mine = group + lane_id();
            const float4 mine_b = staged_b[mine];
            const bool reaches =
                mine < warp_count && unpack(staged_a[mine], mine_b.x, mine_b.y).reaches(pixel.warp_u, pixel.warp_v);
            for (unsigned hits = __ballot_sync(kAllLanes, reaches); hits; hits &= hits - 1) {
                const int hit = group + __ffs(hits) - 1;
                const float4 b = staged_b[hit];
                const float exponent = unpack(staged_a[hit], b.x, b.y).exponent(pixel.u, pixel.v);
                const bool contributes = exponent >= kLog2MinAlpha && hit < pixel_count;
                if (!__any_sync(kAllLanes, contributes))
                    continue;
                const float4 c = staged_c[hit];
                const float* values = kChannels > 0
                                          ? rows.channels + int64_t(__float_as_uint(c.y)) * chunk.total + chunk.begin
                                          : nullptr;
                float weight = 0.0f, dL_dexponent = 0.0f;
                if (contributes) {
                    const float raw = exp2_fast(exponent), alpha = clamp_alpha(raw);
                    weight = alpha * transmittance;
                    float value_dot_g = fmaf(b.z, dL_drgb.x, fmaf(b.w, dL_drgb.y, c.x * dL_drgb.z));
#pragma unroll
                    for (int k = 0; k < kChannels; ++k)
                        if (k < chunk.count)
                            value_dot_g = fmaf(values[k], dL_dchannels[k], value_dot_g);
                    behind = fmaf(-weight, value_dot_g, behind);
                    dL_dexponent = blend_vjp(raw, alpha, __fdividef(1.0f, 1.0f - alpha), transmittance, value_dot_g, behind);
                    transmittance -= weight;
                }
                collection.exponents[n_collected * kCollectedStride + lane_id()] = dL_dexponent;
                collection.weights[n_collected * kCollectedStride + lane_id()] = weight;
                if (lane_id() / 4 == n_collected)
                    collected_hit = {0.0f, c.y, c.z + pixel.warp_u, c.w + pixel.warp_v};
                if (kChannels > 0)
                    for (int k = 0; k < chunk.count; ++k) {
                        const float sum = warp_sum(weight * dL_dchannels[k]);
                        if (lane_id() == 0)
                            atomicAdd(out.channels + (values - rows.channels) + k, sum);
                    }
                if (++n_collected == kCollected) {
                    add_collected(collection, kCollected, collected_hit, out.moments);
                    n_collected = 0;
                }
            }
        }
    }
    if (n_collected > 0)
        add_collected(collection, n_collected, collected_hit, out.moments);
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
