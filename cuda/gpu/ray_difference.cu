// What rays cost beside what they should have seen, one thread a ray.
#include "gpu/device.cuh"
#include "gpu/field_step.h"
#include "math/ray_difference.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kSums = 3;

__global__ __launch_bounds__(kThreads) void difference_kernel(const __grid_constant__ RayDifferenceArrays a) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    float sums[kSums] = {};
    if (i < a.n_rays) {
        const int64_t n_whole = a.counts ? a.counts->n_rays : a.n_rays;
        RayDifference<float> ray{};
        float share = 0.0f;
        if (i < n_whole) {
            // Those that did not fit are as good a sample of all rays as the others.
            const float total = a.total ? *a.total * (float(n_whole) / float(a.n_rays)) : float(n_whole);
            share = (a.weight ? a.weight[i] : 1.0f) / total;
            ray =
                ray_difference(load3(a.rgb, i), a.alpha[i], load3(a.background, i), load3(a.target, i), share, a.huber);
        }
        store3(a.dL_drgb, i, ray.dL_drgb);
        a.dL_dalpha[i] = ray.dL_dalpha;
        sums[0] = ray.loss;
        sums[2] = ray.squared;
        if (a.distortion) {
            a.dL_ddistortion[i] = share * a.distortion_weight;
            sums[1] = a.dL_ddistortion[i] * a.distortion[i];
        }
    }
    // Summed over the block first: atomics on one address take turns.
    __shared__ float warps[kSums][kThreads / kWarp];
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
        sums[k] = warp_sum(sums[k]);
        if (lane_id() == 0)
            warps[k][warp_id()] = sums[k];
    }
    __syncthreads();
    if (threadIdx.x >= kSums)
        return;
    float sum = 0.0f;
    for (const float warp : warps[threadIdx.x])
        sum += warp;
    atomicAdd(a.sums + threadIdx.x, sum);
}

} // namespace

void ray_difference(const RayDifferenceArrays& a, cudaStream_t stream) {
    if (a.n_rays == 0)
        return;
    difference_kernel<<<unsigned(divide_up(a.n_rays, int64_t(kThreads))), kThreads, 0, stream>>>(a);
    check_launch("ray difference");
}

} // namespace kinosplat::gpu
