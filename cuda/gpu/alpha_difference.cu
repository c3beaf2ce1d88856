// The weighted mean of |rendered - target| of alphas and its gradient; each thread takes several pixels, because the
// sum has to be brought together.
#include "gpu/alpha_difference.h"
#include "gpu/device.cuh"
#include "math/alpha_difference.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kPixelsOfThread = 8;

__global__ __launch_bounds__(kThreads) void difference_kernel(const __grid_constant__ AlphaDifferenceArrays a) {
    const int64_t first = int64_t(blockIdx.x) * kThreads * kPixelsOfThread + threadIdx.x;
    float sum = 0.0f;
    for (int k = 0; k < kPixelsOfThread; ++k) {
        const int64_t i = first + k * kThreads;
        if (i >= a.n_pixels)
            break;
        const AlphaDifference<float> point =
            alpha_difference_point(a.rendered[i], a.target[i], a.mask ? a.scale * a.mask[i] : a.scale);
        sum += point.value;
        a.dL_drendered[i] = point.d_rendered;
    }
    __shared__ float warps[kThreads / kWarp];
    sum = warp_sum(sum);
    if (lane_id() == 0)
        warps[warp_id()] = sum;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    float total = 0.0f;
    for (float of_warp : warps)
        total += of_warp;
    atomicAdd(a.loss, total);
}

} // namespace

void alpha_difference(const AlphaDifferenceArrays& a, cudaStream_t stream) {
    check(cudaMemsetAsync(a.loss, 0, sizeof(float), stream), "alpha difference");
    if (a.n_pixels == 0)
        return;
    difference_kernel<<<unsigned(divide_up(a.n_pixels, int64_t(kThreads * kPixelsOfThread))), kThreads, 0, stream>>>(a);
    check_launch("alpha difference");
}

} // namespace kinosplat::gpu
