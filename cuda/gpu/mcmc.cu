// Noise on positions and penalties on what is in view, one thread a Gaussian; of Gaussians that neither concerns, a
// few bytes are read.
#include "gpu/device.cuh"
#include "gpu/mcmc.h"
#include "math/mcmc.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void shake_kernel(const __grid_constant__ ShakeArrays a) {
    const int i = blockIdx.x * kThreads + threadIdx.x;
    if (i >= a.n || !is_shaken(a.opacity_logits[i]))
        return;
    const float4 q = reinterpret_cast<const float4*>(a.quats)[i];
    const Vec3<float> shift = position_noise<float>({q.x, q.y, q.z, q.w}, load3(a.log_scales, i), a.opacity_logits[i],
                                                    a.strength, a.key, uint64_t(i));
    if (is_finite(shift))
        store3(a.means, i, load3(a.means, i) + shift);
}

__device__ inline float fade_of(const PenaltyArrays& a, int i) {
    return a.time_centres ? largest_fade(a.time_centres[i], a.log_durations[i], a.times, a.n_times) : 1.0f;
}

__global__ __launch_bounds__(kThreads) void penalties_kernel(const __grid_constant__ PenaltyArrays a, float* sums,
                                                             float* add_to_opacity_logits, float* add_to_log_scales) {
    const int i = blockIdx.x * kThreads + threadIdx.x;
    PenaltyPoint<float> point{0.0f, 0.0f};
    if (i < a.n && a.visible[i]) {
        const float opacity_logit = a.opacity_logits[i], fade = fade_of(a, i);
        const Vec3<float> log_scale = load3(a.log_scales, i);
        point = penalty_point(opacity_logit, log_scale, fade);
        if (add_to_opacity_logits) {
            const PenaltyGradient<float> gradient =
                penalty_point_vjp(opacity_logit, log_scale, fade, {a.opacity_weight, a.scale_weight});
            add_to_opacity_logits[i] += gradient.opacity_logit;
            store3(add_to_log_scales, i, load3(add_to_log_scales, i) + gradient.log_scale);
        }
    }
    // Summed over the block first: atomics on one address take turns.
    __shared__ PenaltyPoint<float> warps[kThreads / kWarp];
    const float opacities = warp_sum(point.opacity), scales = warp_sum(point.scale);
    if (lane_id() == 0)
        warps[warp_id()] = {opacities, scales};
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    PenaltyPoint<float> sum{0.0f, 0.0f};
    for (const PenaltyPoint<float>& warp : warps) {
        sum.opacity += warp.opacity;
        sum.scale += warp.scale;
    }
    atomicAdd(&sums[0], a.opacity_weight * sum.opacity);
    atomicAdd(&sums[1], a.scale_weight * sum.scale);
}

__global__ __launch_bounds__(kThreads) void penalties_backward_kernel(const __grid_constant__ PenaltyArrays a,
                                                                      const float* dL_dopacity, const float* dL_dscale,
                                                                      float* dL_dopacity_logits,
                                                                      float* dL_dlog_scales) {
    const int i = blockIdx.x * kThreads + threadIdx.x;
    if (i >= a.n)
        return;
    PenaltyGradient<float> gradient{0.0f, {0.0f, 0.0f, 0.0f}};
    if (a.visible[i])
        gradient = penalty_point_vjp(a.opacity_logits[i], load3(a.log_scales, i), fade_of(a, i),
                                     {*dL_dopacity * a.opacity_weight, *dL_dscale * a.scale_weight});
    dL_dopacity_logits[i] = gradient.opacity_logit;
    store3(dL_dlog_scales, i, gradient.log_scale);
}

} // namespace

void shake(const ShakeArrays& a, cudaStream_t stream) {
    if (a.n == 0)
        return;
    shake_kernel<<<divide_up(a.n, kThreads), kThreads, 0, stream>>>(a);
    check_launch("noise");
}

void penalties(const PenaltyArrays& a, float* sums, float* add_to_opacity_logits, float* add_to_log_scales,
               cudaStream_t stream) {
    check(cudaMemsetAsync(sums, 0, 2 * sizeof(float), stream), "penalties");
    if (a.n == 0)
        return;
    penalties_kernel<<<divide_up(a.n, kThreads), kThreads, 0, stream>>>(a, sums, add_to_opacity_logits,
                                                                        add_to_log_scales);
    check_launch("penalties");
}

void penalties_backward(const PenaltyArrays& a, const float* dL_dopacity, const float* dL_dscale,
                        float* dL_dopacity_logits, float* dL_dlog_scales, cudaStream_t stream) {
    if (a.n == 0)
        return;
    penalties_backward_kernel<<<divide_up(a.n, kThreads), kThreads, 0, stream>>>(a, dL_dopacity, dL_dscale,
                                                                                 dL_dopacity_logits, dL_dlog_scales);
    check_launch("penalties backward");
}

} // namespace kinosplat::gpu
