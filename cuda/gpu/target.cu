// Targets of renderings from the bytes of pictures, one thread a pixel.
#include "gpu/device.cuh"
#include "gpu/target.h"
#include "math/target.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void compose_kernel(const __grid_constant__ TargetArrays a) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= a.n_pixels)
        return;
    const TargetPixel<float> pixel =
        target_pixel(a.pixels + a.n_channels * i, a.n_channels, a.mask ? a.mask + i : nullptr, a.mask_cuts_out,
                     load3(a.background, 0));
    store3(a.rgb, i, pixel.rgb);
    if (a.alpha)
        a.alpha[i] = pixel.alpha;
    if (a.weight)
        a.weight[i] = pixel.weight;
}

} // namespace

void compose_target(const TargetArrays& a, cudaStream_t stream) {
    if (a.n_pixels == 0)
        return;
    compose_kernel<<<divide_up(a.n_pixels, kThreads), kThreads, 0, stream>>>(a);
    check_launch("target");
}

} // namespace kinosplat::gpu
