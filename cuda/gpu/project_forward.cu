// Project, forward: one thread a row, a pair of a Gaussian and a camera. Slices in time, projects, counts tiles,
// evaluates the colour, and writes the row's record at its own place, so that no block waits for another. What is not
// drawn (cuda/math/gaussian.h) or touches no tile gets a depth key of zero and nothing else.
#include <type_traits>

#include "gpu/rows.cuh"
#include "gpu/stored.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

// Few blocks have news after the first ones.
__device__ inline void record_depths(DeviceCounts* counts, uint32_t largest, uint32_t inverse_of_smallest) {
    if (lane_id() == 0) {
        const volatile DeviceCounts* known = counts;
        if (largest > known->max_depth_key)
            atomicMax(&counts->max_depth_key, largest);
        if (inverse_of_smallest > known->max_inverse_depth_key)
            atomicMax(&counts->max_inverse_depth_key, inverse_of_smallest);
    }
}

__device__ inline bool features_are_finite(const Frame& frame, int i) {
    float sum = 0.0f;
    for (int k = 0; k < frame.n_features; ++k)
        sum += frame.gaussians.features[int64_t(i) * frame.n_features + k];
    return is_finite(sum);
}

__device__ inline void record_projection(const StatisticsArrays& to, int i, const ScreenGaussian<float>& s) {
    if (to.visible)
        to.visible[i] = true;
    if (!to.n_seen)
        return;
    atomicAdd(to.n_seen + i, 1);
    // Positive floats sort like integers.
    atomicMax(reinterpret_cast<int*>(to.max_radius + i), __float_as_int(screen_radius(s.projection.covariance)));
}

// A cheap test, false only if the Gaussian cannot be visible: on screen it reaches at most sqrt(2 ln 255) = 3.33
// standard deviations, none of which is longer than the longest scale times the length of a row of the Jacobian.
__device__ inline bool is_near_view(const StoredGaussian<float>& g, const View<float>& view) {
    const PinholeCamera<float>& c = view.camera;
    const Vec3<float> mean =
        view.moving ? slice_in_time(g.mean, g.displacement, g.time_centre, g.log_duration, view.time).mean : g.mean;
    const Vec3<float> m = c.rotation * mean + c.translation;
    if (!(m.z >= c.near && m.z <= c.far))
        return false;
    const float scale = expf(fmaxf(fmaxf(g.log_scale.x, g.log_scale.y), g.log_scale.z)), inverse_z = 1.0f / m.z;
    const auto reaches = [&](float x, float focal, float centre, float size) {
        const float u = focal * x * inverse_z + centre;
        const float slope = fmaxf(fabsf(centre), fabsf(size - centre)) + float(kJacobianMargin) * size;
        const float jacobian = sqrtf(focal * focal + slope * slope) * inverse_z;
        const float reach = 3.4f * sqrtf(jacobian * jacobian * scale * scale + float(kDilation)) + 1.0f;
        return u + reach > 0.0f && u - reach < size;
    };
    return reaches(m.x, c.fx, c.cx, c.width) && reaches(m.y, c.fy, c.cy, c.height);
}

// `Coefficient` is the type of the stored harmonics beyond the first.
template <int kDegree, class Coefficient>
__global__ __launch_bounds__(kThreads, 9) void project_forward_kernel(const __grid_constant__ Frame frame,
                                                                      const Coefficient* __restrict__ sh_rest,
                                                                      const __grid_constant__ ProjectScratch scratch,
                                                                      const __grid_constant__ Rows rows) {
    extern __shared__ float4 shared_sh[];
    __shared__ uint2 warp_counts[kWarps];
    const int blocks_per_camera = divide_up(frame.n_gaussians, kThreads);
    const int camera = blockIdx.x / blocks_per_camera;
    const int first = (blockIdx.x - camera * blocks_per_camera) * kThreads + warp_id() * kWarp;
    const int i = first + lane_id();
    const View<float> view = load_view(frame, camera);

    StoredGaussian<float> g;
    bool candidate = i < frame.n_gaussians && (!view.moving || is_alive(frame.gaussians, i, view));
    if (candidate) {
        g = load_gaussian(frame.gaussians, i, view.moving);
        candidate = is_near_view(g, view);
    }

    // Coefficients are on their way while the rest is worked out; those of Gaussians that turn out not to be visible
    // come in vain.
    const WarpRows sh_rows{first, frame.n_gaussians, 3 * frame.n_sh_rest};
    Coefficient* warp_sh = reinterpret_cast<Coefficient*>(shared_sh) + warp_id() * kWarp * sh_rows.row_length;
    if (kDegree > 0)
        start_loading_warp_rows(warp_sh, sh_rest, sh_rows, __ballot_sync(kAllLanes, candidate));
    bool visible = false;
    ScreenGaussian<float> s;
    Falloff falloff;
    CountedSpan span;
    if (candidate) {
        s = to_screen(g, view);
        if (is_drawn(g, view, s)) {
            falloff = falloff_of(s);
            span = tile_span(s, falloff, frame.width, frame.height);
            visible = span.n_hits > 0;
        }
    }
    if (kDegree > 0)
        finish_loading_warp_rows();
    Vec3<float> colour;
    if (visible) {
        float basis[(kDegree + 1) * (kDegree + 1)];
        sh_basis<kDegree>(view_direction(s.mean, view.camera.position), basis);
        colour = sh_colour<kDegree>(basis, load3(frame.gaussians.sh_dc, i), warp_sh + lane_id() * sh_rows.row_length);
        visible = is_finite(colour) && (frame.n_features == 0 || features_are_finite(frame, i));
    }

    const unsigned visible_lanes = __ballot_sync(kAllLanes, visible);
    const uint32_t key = visible ? __float_as_uint(s.projection.depth) : 0u;
    if (visible_lanes)
        record_depths(scratch.counts, warp_max(key), warp_max(visible ? ~key : 0u));
    const uint32_t n_hits = warp_sum(visible ? span.n_hits : 0u);
    const uint32_t n_entries = warp_sum(visible ? span.span.n_entries() : 0u);
    if (lane_id() == 0)
        warp_counts[warp_id()] = {n_hits, n_entries};
    __syncthreads();
    if (threadIdx.x == 0) {
        uint2 sum{0u, 0u};
        for (int w = 0; w < kWarps; ++w)
            sum = {sum.x + warp_counts[w].x, sum.y + warp_counts[w].y};
        scratch.block_counts[blockIdx.x] = sum;
    }

    if (i >= frame.n_gaussians)
        return;
    const uint32_t row = uint32_t(camera) * frame.n_gaussians + i;
    scratch.by_depth[0].keys[row] = key;
    if (!visible)
        return;
    colour = {fmaxf(colour.x, 0.0f), fmaxf(colour.y, 0.0f), fmaxf(colour.z, 0.0f)};
    if (frame.packed)
        write_packed_record(rows, row, falloff, colour);
    else
        write_record(rows, row, falloff, colour, s.projection.depth);
    scratch.spans[row] = span.span.bits;
    if (span.span.has_more())
        scratch.more_spans[row] = span.span.more;
    record_projection(frame.statistics, i, s);
}

template <class Coefficient>
void launch(const Frame& frame, const Coefficient* sh_rest, const ProjectScratch& scratch, const Rows& rows,
            cudaStream_t stream) {
    const size_t shared_bytes = frame.sh_degree == 0 ? 0 : kThreads * 3 * frame.n_sh_rest * sizeof(Coefficient);
    with_sh_degree(frame.sh_degree, [&](auto degree) {
        project_forward_kernel<degree(), Coefficient>
            <<<project_blocks(frame), kThreads, shared_bytes, stream>>>(frame, sh_rest, scratch, rows);
    });
    check_launch("project");
}

} // namespace

TileGrid tile_grid(const Frame& frame) {
    return {divide_up(frame.width, kTileSize), divide_up(frame.height, kTileSize), frame.n_cameras};
}

int project_blocks(const Frame& frame) { return divide_up(frame.n_gaussians, kThreads) * frame.n_cameras; }

void project_forward(const Frame& frame, const ProjectScratch& scratch, const Rows& rows, cudaStream_t stream) {
    check(cudaMemsetAsync(scratch.counts, 0, scratch.zeroed_bytes, stream), "project");
    if (frame.n_pairs() == 0)
        return;
    if (frame.half_sh_rest)
        launch(frame, frame.half_sh_rest, scratch, rows, stream);
    else
        launch(frame, frame.gaussians.sh_rest, scratch, rows, stream);
}

} // namespace kinosplat::gpu
