// Project, backward: one thread a Gaussian, which sums over the cameras that saw it, so that every gradient is written
// exactly once, without atomics; what was not visible gets zeros. The screen quantities are computed again from what is
// stored.
#include <type_traits>

#include "gpu/stored.cuh"
#include "math/blending.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

struct ChannelLayout {
    int n_channels;
    bool depth, normal;
    __device__ int normal_offset() const { return depth ? 1 : 0; }
    __device__ int feature_offset() const { return normal_offset() + (normal ? 3 : 0); }
};

struct RowGradient {
    FalloffMoments<float> moments;
    Vec3<float> rgb;
    bool any; // whether a pixel saw the row: else all gradients are zero, and nothing of the Gaussian has to be read
};

__device__ inline RowGradient load_row_gradient(const RowGradients& from, int64_t row, int n_channels) {
    const float4 m = reinterpret_cast<const float4*>(from.moments)[row];
    const float xy = from.second_moments[3 * row], yy = from.second_moments[3 * row + 1];
    RowGradient g{{m.x, m.y, m.z, m.w, xy, yy}, load3(from.rgb, row), false};
    g.any = m.x != 0.0f || m.y != 0.0f || m.z != 0.0f || m.w != 0.0f || xy != 0.0f || yy != 0.0f || g.rgb.x != 0.0f ||
            g.rgb.y != 0.0f || g.rgb.z != 0.0f;
    for (int k = 0; k < n_channels; ++k)
        g.any |= from.channels[row * n_channels + k] != 0.0f;
    return g;
}

// d colour_c / d coefficient_k = basis_k where the colour was not clamped at 0; through the basis goes the direction.
template <int kDegree>
__device__ inline Vec3<float> sh_vjp(Vec3<float> direction, const float* basis, const float* rest, float* dL_drest,
                                     Vec3<float> dL_dcolour, bool add) {
    constexpr int kSize = (kDegree + 1) * (kDegree + 1);
    float dL_dbasis[kSize];
    dL_dbasis[0] = 0.0f;
#pragma unroll
    for (int k = 1; k < kSize; ++k) {
        dL_dbasis[k] = dot(load3(rest, k - 1), dL_dcolour);
        Vec3<float> dL_dcoefficient = basis[k] * dL_dcolour;
        if (add)
            dL_dcoefficient = dL_dcoefficient + load3(dL_drest, k - 1);
        store3(dL_drest, k - 1, dL_dcoefficient);
    }
    return sh_basis_vjp<kDegree>(direction, dL_dbasis);
}

// Sums over the block, then one atomic a block and number.
__device__ inline void add_camera_gradient(float value, float* target) {
    __shared__ float warp_sums[kWarps];
    const float sum = warp_sum(value);
    __syncthreads();
    if (lane_id() == 0)
        warp_sums[warp_id()] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (int w = 0; w < kWarps; ++w)
            total += warp_sums[w];
        if (total != 0.0f)
            atomicAdd(target, total);
    }
}

__device__ inline void add_camera_gradients(CameraGradient<float> g, const PinholeCamera<float>& camera, int index,
                                            const CameraGradients& to) {
    camera_position_vjp(camera.rotation, camera.translation, g);
    if (to.world_to_camera) {
        float* m = to.world_to_camera + 16 * index;
        const Mat3<float>& r = g.rotation;
        const float values[12] = {r.x.x, r.x.y,           r.x.z, g.translation.x, r.y.x, r.y.y,
                                  r.y.z, g.translation.y, r.z.x, r.z.y,           r.z.z, g.translation.z};
        for (int k = 0; k < 12; ++k)
            add_camera_gradient(values[k], m + k);
    }
    if (to.K) {
        float* k = to.K + 9 * index;
        add_camera_gradient(g.fx, k);
        add_camera_gradient(g.cx, k + 2);
        add_camera_gradient(g.fy, k + 4);
        add_camera_gradient(g.cy, k + 5);
    }
}

template <int kDegree, bool kCameraGradients>
__global__ __launch_bounds__(kThreads,
                             3) void project_backward_kernel(const __grid_constant__ Frame frame,
                                                             const __grid_constant__ RowGradients row_gradients,
                                                             const __grid_constant__ GaussianArrays<float> out,
                                                             const __grid_constant__ CameraGradients cameras,
                                                             const ChannelLayout layout) {
    extern __shared__ float4 shared_sh[];
    const int first = blockIdx.x * kThreads + warp_id() * kWarp;
    const int i = first + lane_id();
    const bool exists = i < frame.n_gaussians;
    const bool moving = frame.gaussians.displacements != nullptr;
    const bool one_camera = frame.n_cameras == 1;

    // With several cameras they are read again when it is their turn.
    RowGradient gradient{};
    bool seen = false;
    for (int camera = 0; exists && camera < frame.n_cameras; ++camera) {
        gradient = load_row_gradient(row_gradients, int64_t(camera) * frame.n_gaussians + i, layout.n_channels);
        seen |= gradient.any;
    }

    // With one camera a Gaussian's coefficients are read once, and their gradients can take their place.
    const WarpRows sh_rows{first, frame.n_gaussians, 3 * frame.n_sh_rest};
    float* warp_sh = reinterpret_cast<float*>(shared_sh) + warp_id() * kWarp * sh_rows.row_length;
    float* warp_dL_dsh = one_camera ? warp_sh : warp_sh + kThreads * sh_rows.row_length;
    const unsigned seen_lanes = __ballot_sync(kAllLanes, seen);
    if (kDegree > 0)
        start_loading_warp_rows(warp_sh, frame.gaussians.sh_rest, sh_rows, seen_lanes);
    const float* rest = warp_sh + lane_id() * sh_rows.row_length;
    float* dL_drest = warp_dL_dsh + lane_id() * sh_rows.row_length;
    StoredGaussian<float> g;
    if (seen)
        g = load_gaussian(frame.gaussians, i, moving);
    finish_loading_warp_rows();
    constexpr int kUsed = 3 * ((kDegree + 1) * (kDegree + 1) - 1);
    for (int k = one_camera && seen ? kUsed : 0; k < sh_rows.row_length; ++k)
        dL_drest[k] = 0.0f;
    float* dL_dfeatures = exists && out.features ? out.features + int64_t(i) * frame.n_features : nullptr;
    if (dL_dfeatures)
        for (int k = 0; k < frame.n_features; ++k)
            dL_dfeatures[k] = 0.0f;

    StoredGradient<float> sum{};
    Vec3<float> dL_ddc{0.0f, 0.0f, 0.0f};
    float screen_gradient = 0.0f;
    for (int camera = 0; camera < frame.n_cameras; ++camera) {
        const View<float> view = load_view(frame, camera);
        CameraGradient<float> camera_gradient{};
        const int64_t row = int64_t(camera) * frame.n_gaussians + i;
        if (seen && !one_camera)
            gradient = load_row_gradient(row_gradients, row, layout.n_channels);
        if (seen && gradient.any) {
            const ScreenGaussian<float> s = to_screen(g, view);
            const Vec3<float> direction = view_direction(s.mean, view.camera.position);
            float basis[(kDegree + 1) * (kDegree + 1)];
            sh_basis<kDegree>(direction, basis);
            const Vec3<float> colour = sh_colour<kDegree>(basis, load3(frame.gaussians.sh_dc, i), rest);
            const Vec3<float> dL_dcolour{colour.x > 0.0f ? gradient.rgb.x : 0.0f,
                                         colour.y > 0.0f ? gradient.rgb.y : 0.0f,
                                         colour.z > 0.0f ? gradient.rgb.z : 0.0f};
            dL_ddc = dL_ddc + basis[0] * dL_dcolour;

            const FalloffGradient<float> falloff = falloff_vjp(gradient.moments, s.projection.conic, s.opacity);
            ScreenGradient<float> dL{};
            dL.mean2d = falloff.mean2d;
            dL.conic = falloff.conic;
            dL.opacity = falloff.opacity;
            dL.direction = sh_vjp<kDegree>(direction, basis, rest, dL_drest, dL_dcolour, !one_camera);
            if (layout.n_channels > 0) {
                const float* channels = row_gradients.channels + row * layout.n_channels;
                if (layout.depth)
                    dL.depth = channels[0];
                if (layout.normal)
                    dL.axes = outer(load3(channels + layout.normal_offset(), 0),
                                    normal_factors(s.projection.axes, g.log_scale, s.mean, view.camera.position));
                if (dL_dfeatures)
                    for (int k = 0; k < frame.n_features; ++k)
                        dL_dfeatures[k] += channels[layout.feature_offset() + k];
            }
            const StoredGradient<float> one = to_screen_vjp(g, view, s, direction, dL, camera_gradient);
            sum.mean = sum.mean + one.mean;
            sum.quat = {sum.quat.w + one.quat.w, sum.quat.x + one.quat.x, sum.quat.y + one.quat.y,
                        sum.quat.z + one.quat.z};
            sum.log_scale = sum.log_scale + one.log_scale;
            sum.opacity_logit += one.opacity_logit;
            if (moving) {
                sum.time.displacement = sum.time.displacement + one.time.displacement;
                sum.time.time_centre += one.time.time_centre;
                sum.time.log_duration += one.time.log_duration;
            }
            const float x = dL.mean2d.x * 0.5f * float(frame.width), y = dL.mean2d.y * 0.5f * float(frame.height);
            screen_gradient += sqrtf(x * x + y * y);
        }
        if (kCameraGradients)
            add_camera_gradients(camera_gradient, view.camera, camera, cameras);
    }

    if (sh_rows.row_length > 0 && out.sh_rest)
        store_warp_rows(warp_dL_dsh, out.sh_rest, sh_rows);
    if (!exists)
        return;
    if (out.means)
        store3(out.means, i, sum.mean);
    if (out.quats)
        reinterpret_cast<float4*>(out.quats)[i] = {sum.quat.w, sum.quat.x, sum.quat.y, sum.quat.z};
    if (out.log_scales)
        store3(out.log_scales, i, sum.log_scale);
    if (out.opacity_logits)
        out.opacity_logits[i] = sum.opacity_logit;
    if (out.sh_dc)
        store3(out.sh_dc, i, dL_ddc);
    if (out.displacements)
        store3(out.displacements, i, sum.time.displacement);
    if (out.time_centres)
        out.time_centres[i] = sum.time.time_centre;
    if (out.log_durations)
        out.log_durations[i] = sum.time.log_duration;
    if (frame.statistics.screen_gradient)
        frame.statistics.screen_gradient[i] += screen_gradient;
}

} // namespace

void project_backward(const Frame& frame, const RowGradients& row_gradients, const GaussianArrays<float>& gradients,
                      const CameraGradients& cameras, cudaStream_t stream) {
    if (frame.n_pairs() == 0)
        return;
    const int n_blocks = divide_up(frame.n_gaussians, kThreads);
    const size_t shared_bytes = (frame.n_cameras == 1 ? 1 : 2) * kThreads * 3 * frame.n_sh_rest * sizeof(float);
    const ChannelLayout layout{frame.n_channels(), frame.depth_channel, frame.normal_channel};
    const bool camera_gradients = cameras.world_to_camera || cameras.K;
    with_sh_degree(frame.sh_degree, [&](auto degree) {
        const auto kernel =
            camera_gradients ? project_backward_kernel<degree(), true> : project_backward_kernel<degree(), false>;
        kernel<<<n_blocks, kThreads, shared_bytes, stream>>>(frame, row_gradients, gradients, cameras, layout);
    });
    check_launch("project backward");
}

} // namespace kinosplat::gpu
