// Blend, forward: front to back over the hits of a tile until every pixel's transmittance is used up
// (cuda/math/blending.h).
#include <type_traits>

#include "gpu/blend.cuh"

namespace kinosplat::gpu {
namespace {

// What a call wants: kPlain is the colour alone; kDetailed adds channels, median depth and statistics.
enum class Mode { kPacked, kPlain, kDetailed };

// Weights are summed over a warp as integers, in steps of 2^-25: 64 weights of at most 1 fit.
constexpr float kWeightStep = 1.0f / (1 << 25);

// Two pixels a lane halve what is read from shared memory for each pixel; where Gaussians are large, that is what
// bounds the pass.
constexpr int kPixels = 2;
constexpr int kBlendThreads = Shares<kPixels>::kThreads;
constexpr int kBlendWarps = Shares<kPixels>::kWarps;

// Hits are blended so many at a time, so that their exponents are computed side by side.
constexpr int kUnroll = 2;

// The hits of one group that reach a warp, then the others with an opacity of zero.
template <bool kDetailed>
struct WarpHits {
    float4 a[kWarp], b[kWarp]; // {u_x, u_y, u_0, v_0}, {v_y, log2_opacity, red, green}
    float blue[kWarp];
    float depth[kDetailed ? kWarp : 1];
    uint32_t row[kDetailed ? kWarp : 1];
};

template <Mode kMode, int kChannels>
__global__ __launch_bounds__(kBlendThreads, kMode == Mode::kDetailed ? 1 : 9) void blend_forward_kernel(
    const __grid_constant__ Rows rows, const __grid_constant__ TileLists lists,
    const __grid_constant__ Pictures pictures, const __grid_constant__ StatisticsArrays statistics,
    const float* background, int n_gaussians, int width, int height, TileGrid grid, ChannelChunk chunk) {
    constexpr bool kPacked = kMode == Mode::kPacked, kDetailed = kMode == Mode::kDetailed;
    __shared__ float4 staged_a[kBlendThreads], staged_b[kBlendThreads];
    __shared__ float2 staged_c[kPacked ? 1 : kBlendThreads]; // blue, depth
    __shared__ uint32_t staged_row[kDetailed ? kBlendThreads : 1];
    __shared__ WarpHits<kDetailed> warp_hits[kBlendWarps];
    WarpHits<kDetailed>& hits = warp_hits[warp_id()];

    const LanePixels lane = this_lane<kPixels>(grid, width, height);
    using Hits = TileHits<kBlendThreads>;
    __shared__ typename Hits::Shared shared_hits;
    Hits tile_hits(shared_hits, lists, lane.quad, lane.quad_bit);
    LaneState state(lane);
    float median[kPixels] = {};
    float3 colour[kPixels] = {};
    float channels[kPixels][kChannels > 0 ? kChannels : 1] = {};

    float4 next_a{}, next_b{};
    float2 next_c{};
    uint32_t next_row = 0;
    const auto fetch = [&] {
        if (int(threadIdx.x) < tile_hits.count()) {
            next_row = tile_hits.row(threadIdx.x);
            const float4* record = rows.records + int64_t(next_row) * kRowFloat4s;
            next_a = record[0];
            next_b = record[1];
            if (!kPacked)
                next_c = rows.blue_depth[next_row];
        }
    };
    tile_hits.advance(0);
    fetch();
    while (const int count = tile_hits.count()) {
        if (__syncthreads_and(state.finished()))
            break;
        staged_a[threadIdx.x] =
            tile_falloff(next_a.z, next_a.w, next_b.x, lane.centre_x - next_a.x, lane.centre_y - next_a.y);
        staged_b[threadIdx.x] = next_b;
        if (!kPacked)
            staged_c[threadIdx.x] = next_c;
        if (kDetailed)
            staged_row[threadIdx.x] = next_row;
        tile_hits.advance(count);
        __syncthreads();
        fetch();

        for (int group = 0; group < count; group += kWarp) {
            if (__all_sync(kAllLanes, state.finished()))
                break;
            const int mine = group + lane_id();
            const float4 a = staged_a[mine];
            float4 b = staged_b[mine];
            const bool reaches = mine < count && unpack(a, b.x, b.y).reaches(lane);
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
                    const TileFalloff falloff = unpack(hits.a[hit], hit_b.x, hit_b.y);
                    const float blue = hits.blue[hit];
                    float weight = 0.0f;
                    int n_pixels = 0;
#pragma unroll
                    for (int k = 0; k < kPixels; ++k) {
                        const Contribution one = contribute(state.pixels[k], falloff.exponent(lane.u, lane.v[k]));
                        if (one.blends) {
                            colour[k].x = fmaf(one.weight, hit_b.z, colour[k].x);
                            colour[k].y = fmaf(one.weight, hit_b.w, colour[k].y);
                            colour[k].z = fmaf(one.weight, blue, colour[k].z);
                        }
                        if (kDetailed && one.blends) {
                            if (one.before > float(kMedianTransmittance) &&
                                state.pixels[k].transmittance <= float(kMedianTransmittance))
                                median[k] = hits.depth[hit];
                            const float* values = rows.channels + int64_t(hits.row[hit]) * chunk.total + chunk.begin;
#pragma unroll
                            for (int c = 0; c < kChannels; ++c)
                                if (c < chunk.count)
                                    channels[k][c] = fmaf(one.weight, values[c], channels[k][c]);
                            weight += one.weight;
                            ++n_pixels;
                        }
                    }
                    if (kDetailed && statistics.blend_weight && chunk.with_colour) {
                        const uint32_t steps = warp_sum(uint32_t(weight / kWeightStep));
                        const uint32_t sum = warp_sum(uint32_t(n_pixels));
                        if (sum > 0 && lane_id() == 0) {
                            const int gaussian = hits.row[hit] - lane.camera * n_gaussians;
                            atomicAdd(statistics.blend_weight + gaussian, float(steps) * kWeightStep);
                            atomicAdd(statistics.n_pixels + gaussian, int(sum));
                        }
                    }
                }
            }
            __syncwarp();
        }
    }

#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
        if (!lane.inside[k])
            continue;
        const int64_t at = lane.index[k];
        if (chunk.with_colour) {
            const float transmittance = state.pixels[k].transmittance;
            if (background) {
                const float* behind = background + 3 * lane.camera;
                colour[k].x = fmaf(transmittance, behind[0], colour[k].x);
                colour[k].y = fmaf(transmittance, behind[1], colour[k].y);
                colour[k].z = fmaf(transmittance, behind[2], colour[k].z);
            }
            float* rgb = pictures.rgb + 3 * at;
            rgb[0] = colour[k].x;
            rgb[1] = colour[k].y;
            rgb[2] = colour[k].z;
            pictures.alpha[at] = 1.0f - transmittance;
            if (kDetailed && pictures.median_depth)
                pictures.median_depth[at] = median[k];
        }
        if (kChannels > 0)
            for (int c = 0; c < chunk.count; ++c)
                pictures.channels[at * chunk.total + chunk.begin + c] = channels[k][c];
    }
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
                                                           frame.n_gaussians, frame.width, frame.height, grid, chunk);
    });
    check_launch("blend");
}

} // namespace kinosplat::gpu
