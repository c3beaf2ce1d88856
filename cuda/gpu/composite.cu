// Compositing on the GPU, one warp a ray and one lane a sample: transmittances are products over the lanes before, the
// sums of weights before a sample are prefix sums. Nothing is kept for the backward pass but what was rendered.
#include "gpu/field.h"
#include "gpu/ray_lanes.cuh"
#include "math/composite.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kRays = kThreads / kWarp;

// A lane's sample with its place; zeros where it has none.
struct PlacedSample : LaneSample {
    float dt, mid;
};

__device__ inline PlacedSample placed_sample(const CompositeArrays& a, int64_t i, bool inside, float& transmittance) {
    const float dt = inside ? a.dt[i] : 0.0f, t = inside ? a.t[i] : 0.0f;
    return {lane_sample(inside ? a.density[i] : 0.0f, dt, transmittance), dt, t + 0.5f * dt};
}

__global__ __launch_bounds__(kThreads) void forward_kernel(const __grid_constant__ CompositeArrays a) {
    const int64_t ray = int64_t(blockIdx.x) * kRays + warp_id();
    if (ray >= a.n_rays)
        return;
    const int64_t begin = a.offsets[ray], end = a.offsets[ray + 1];
    float transmittance = 1.0f, weights = 0.0f, depths = 0.0f; // of the samples passed
    Vec3<float> rgb{0.0f, 0.0f, 0.0f};                         // of this lane
    float distortion = 0.0f;
    int n_used = 0;
    for (int64_t first = begin; first < end; first += kWarp) {
        const int64_t i = first + lane_id();
        const bool inside = i < end;
        const PlacedSample s = placed_sample(a, i, inside, transmittance);
        const bool counts = inside && (i == begin || !(s.transmittance_before < a.stop)); // the first always does
        const float weight = counts ? s.weight : 0.0f;
        const float weight_sum = warp_prefix(weight), depth_sum = warp_prefix(weight * s.mid);
        if (counts) {
            rgb = rgb + weight * load3(a.rgb, i);
            distortion += distortion_of_sample(weight, s.dt, s.mid, weights + weight_sum - weight,
                                               depths + depth_sum - weight * s.mid);
        }
        weights += of_last_lane(weight_sum);
        depths += of_last_lane(depth_sum);
        n_used += __popc(__ballot_sync(kAllLanes, counts));
        if (transmittance < a.stop)
            break;
    }
    rgb = {warp_sum(rgb.x), warp_sum(rgb.y), warp_sum(rgb.z)};
    distortion = warp_sum(distortion);
    if (lane_id() == 0) {
        store3(a.out_rgb, ray, rgb);
        a.alpha[ray] = weights;
        a.depth[ray] = depths;
        a.distortion[ray] = distortion;
        a.n_used[ray] = n_used;
    }
}

__global__ __launch_bounds__(kThreads) void backward_kernel(const __grid_constant__ CompositeArrays a,
                                                            const __grid_constant__ CompositeGradients g) {
    const int64_t ray = int64_t(blockIdx.x) * kRays + warp_id();
    if (ray >= a.n_rays)
        return;
    const int64_t begin = a.offsets[ray], end = a.offsets[ray + 1], used = begin + a.n_used[ray];
    const RaySums<float> total{a.alpha[ray], load3(a.out_rgb, ray), a.depth[ray], a.distortion[ray]};
    const RayGradient<float> gradient{g.rgb ? load3(g.rgb, ray) : Vec3<float>{0.0f, 0.0f, 0.0f},
                                      g.alpha ? g.alpha[ray] : 0.0f, g.depth ? g.depth[ray] : 0.0f,
                                      g.distortion ? g.distortion[ray] : 0.0f};
    float transmittance = 1.0f, weights = 0.0f, depths = 0.0f;
    float behind = weighted_gradients(gradient, total);
    for (int64_t first = begin; first < used; first += kWarp) {
        const int64_t i = first + lane_id();
        const bool inside = i < used;
        const PlacedSample s = placed_sample(a, i, inside, transmittance);
        const float weight = s.weight; // 0 outside
        const float weight_sum = warp_prefix(weight), depth_sum = warp_prefix(weight * s.mid);
        const float dL_dweight =
            inside ? weight_gradient(gradient, load3(a.rgb, i), weight, s.dt, s.mid, weights + weight_sum - weight,
                                     depths + depth_sum - weight * s.mid, total)
                   : 0.0f;
        const float passed = warp_prefix(weight * dL_dweight);
        if (inside) {
            g.density[i] = density_gradient(s.dt, s.transmittance_after, dL_dweight, behind - passed);
            store3(g.sample_rgb, i, weight * gradient.rgb);
        }
        weights += of_last_lane(weight_sum);
        depths += of_last_lane(depth_sum);
        behind -= of_last_lane(passed);
    }
    for (int64_t i = used + lane_id(); i < end; i += kWarp) {
        g.density[i] = 0.0f;
        store3(g.sample_rgb, i, {0.0f, 0.0f, 0.0f});
    }
}

unsigned blocks_of(const CompositeArrays& a) { return unsigned(divide_up(a.n_rays, int64_t(kRays))); }

} // namespace

void composite_forward(const CompositeArrays& a, cudaStream_t stream) {
    if (a.n_rays == 0)
        return;
    forward_kernel<<<blocks_of(a), kThreads, 0, stream>>>(a);
    check_launch("composite forward");
}

void composite_backward(const CompositeArrays& a, const CompositeGradients& g, cudaStream_t stream) {
    if (a.n_rays == 0)
        return;
    backward_kernel<<<blocks_of(a), kThreads, 0, stream>>>(a, g);
    check_launch("composite backward");
}

} // namespace kinosplat::gpu
