// Blend, forward: front to back over the hits of a tile until every pixel's transmittance is used up (cuda/math/blending.h).
#include <type_traits>

#include "gpu/blend.cuh"

namespace kinosplat::gpu {
namespace {

// What a call wants: kPlain is the colour alone; kDetailed adds channels, median depth and statistics.
enum class Mode { kPacked, kPlain, kDetailed };

// Weights are summed over a warp as integers, in steps of 2^-26: 32 weights of at most 1 fit.
constexpr float kWeightStep = 1.0f / (1 << 26);

// Hits are blended so many at a time, so that their exponents are computed side by side.
constexpr int kUnroll = 4;

// The hits of one group that reach a warp, then the others with an opacity of zero.
template <bool kDetailed>
struct WarpHits {
    float4 a[kWarp], b[kWarp]; // {u_x, u_y, u_0, v_0}, {v_y, log2_opacity, red, green}
    float blue[kWarp];
    float depth[kDetailed ? kWarp : 1];
    uint32_t row[kDetailed ? kWarp : 1];
};

template <Mode kMode, int kChannels>
__global__ __launch_bounds__(kBlendThreads) void blend_forward_kernel(const __grid_constant__ Rows rows,
                                                                      const __grid_constant__ TileLists lists,
                                                                      const __grid_constant__ Pictures pictures,
                                                                      const __grid_constant__ StatisticsArrays statistics,
                                                                      const float* background, int width, int height,
                                                                      TileGrid grid, ChannelChunk chunk) {
    constexpr bool kPacked = kMode == Mode::kPacked, kDetailed = kMode == Mode::kDetailed;
    __shared__ float4 staged_a[kBlendThreads], staged_b[kBlendThreads];
    __shared__ float2 staged_c[kPacked ? 1 : kBlendThreads]; // blue, depth
    __shared__ uint32_t staged_row[kDetailed ? kBlendThreads : 1];
    __shared__ WarpHits<kDetailed> warp_hits[kBlendThreads / kWarp];
    WarpHits<kDetailed>& hits = warp_hits[warp_id()];

    const TilePixel pixel = this_pixel(grid, width, height);
    const uint2 range = lists.ranges[pixel.tile];
    PixelState state(pixel.inside);
    float median = 0.0f;
    float3 colour{0.0f, 0.0f, 0.0f};
    float channels[kChannels > 0 ? kChannels : 1] = {};

    float4 next_a{}, next_b{}, next_c{};
    uint32_t next_row = 0;
    const auto fetch = [&](uint32_t position) {
        if (position < range.y) {
            next_row = lists.hits[position];
            const float4* record = rows.records + int64_t(next_row) * (kPacked ? kPackedRowFloat4s : kRowFloat4s);
            next_a = record[0];
            next_b = record[1];
            if (!kPacked)
                next_c = record[2];
        }
    };
    fetch(range.x + threadIdx.x);
    for (uint32_t begin = range.x; begin < range.y; begin += kBlendThreads) {
        if (__syncthreads_and(state.finished()))
            break;
        staged_a[threadIdx.x] = staged_falloff({next_a.x, next_a.y, next_a.z, next_a.w, next_b.x, next_b.y}, pixel.centre_x,
                                               pixel.centre_y);
        staged_b[threadIdx.x] = next_b;
        if (!kPacked)
            staged_c[threadIdx.x] = {next_c.x, next_c.y};
        if (kDetailed)
            staged_row[threadIdx.x] = next_row;
        __syncthreads();
        fetch(begin + kBlendThreads + threadIdx.x);

        const int count = min(range.y - begin, uint32_t(kBlendThreads));
        for (int group = 0; group < count; group += kWarp) {
            if (__all_sync(kAllLanes, state.finished()))
                break;
            const int mine = group + lane_id();
            const float4 a = staged_a[mine];
            float4 b = staged_b[mine];
            const bool reaches = mine < count && unpack(a, b.x, b.y).reaches(pixel.warp_u, pixel.warp_v);
            const unsigned reaching_lanes = __ballot_sync(kAllLanes, reaches);
            const int slot = compacted_slot(reaches, reaching_lanes);
            float2 c;
            if (kPacked) {
                c = as_pair(b.w);
                const float2 red_green = as_pair(b.z);
                b.z = red_green.x;
                b.w = red_green.y;
            } else {
                c = staged_c[mine];
            }
            hits.a[slot] = a;
            hits.b[slot] = reaches ? b : float4{0.0f, -INFINITY, 0.0f, 0.0f};
            hits.blue[slot] = reaches ? c.x : 0.0f;
            if (kDetailed) {
                hits.depth[slot] = c.y;
                hits.row[slot] = reaches ? staged_row[mine] : 0;
            }
            __syncwarp();
            const int n_hits = __popc(reaching_lanes);
            for (int first = 0; first < n_hits; first += kUnroll) {
#pragma unroll
                for (int hit = first; hit < first + kUnroll; ++hit) {
                    const float4 hit_b = hits.b[hit];
                    const float exponent = unpack(hits.a[hit], hit_b.x, hit_b.y).exponent(pixel.u, pixel.v);
                    const Contribution one = contribute(state, exponent);
                    colour.x = fmaf(one.weight, hit_b.z, colour.x);
                    colour.y = fmaf(one.weight, hit_b.w, colour.y);
                    colour.z = fmaf(one.weight, hits.blue[hit], colour.z);
                    if (kDetailed) {
                        if (one.before > float(kMedianTransmittance) &&
                            state.transmittance <= float(kMedianTransmittance))
                            median = hits.depth[hit];
                        const float* values = rows.channels + int64_t(hits.row[hit]) * chunk.total + chunk.begin;
#pragma unroll
                        for (int k = 0; k < kChannels; ++k)
                            if (k < chunk.count)
                                channels[k] = fmaf(one.weight, values[k], channels[k]);
                        if (statistics.blend_weight && chunk.with_colour) {
                            const uint32_t steps = warp_sum(uint32_t(one.weight / kWeightStep));
                            const int n_pixels = __popc(__ballot_sync(kAllLanes, one.weight > 0.0f));
                            if (n_pixels > 0 && lane_id() == 0) {
                                const int gaussian = rows.gaussian_of_row[hits.row[hit]];
                                atomicAdd(statistics.blend_weight + gaussian, float(steps) * kWeightStep);
                                atomicAdd(statistics.n_pixels + gaussian, n_pixels);
                            }
                        }
                    }
                }
            }
            __syncwarp();
        }
    }

    if (!pixel.inside)
        return;
    if (chunk.with_colour) {
        const float* behind = background + 3 * pixel.camera;
        float* rgb = pictures.rgb + 3 * pixel.index;
        rgb[0] = fmaf(state.transmittance, behind[0], colour.x);
        rgb[1] = fmaf(state.transmittance, behind[1], colour.y);
        rgb[2] = fmaf(state.transmittance, behind[2], colour.z);
        pictures.alpha[pixel.index] = 1.0f - state.transmittance;
        if (kDetailed && pictures.median_depth)
            pictures.median_depth[pixel.index] = median;
    }
    if (kChannels > 0)
        for (int k = 0; k < chunk.count; ++k)
            pictures.channels[pixel.index * chunk.total + chunk.begin + k] = channels[k];
}

} // namespace

void blend_forward(const Frame& frame, const Rows& rows, const TileLists& lists, const Pictures& pictures,
                   cudaStream_t stream) {
    const TileGrid grid = tile_grid(frame);
    const bool detailed = frame.n_channels() > 0 || pictures.median_depth || frame.statistics.blend_weight;
    for_each_chunk(frame.n_channels(), [&](ChannelChunk chunk, auto capacity) {
        auto kernel = blend_forward_kernel<Mode::kDetailed, capacity()>;
        if constexpr (capacity() == 0)
            if (!detailed)
                kernel = frame.packed ? blend_forward_kernel<Mode::kPacked, 0> : blend_forward_kernel<Mode::kPlain, 0>;
        kernel<<<grid.n_all(), kBlendThreads, 0, stream>>>(rows, lists, pictures, frame.statistics, frame.background,
                                                           frame.width, frame.height, grid, chunk);
    });
    check_launch("blend");
}

} // namespace kinosplat::gpu
