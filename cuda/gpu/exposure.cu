// Colours as cameras show them, one thread a pixel; backward each thread takes several, because twelve sums a picture
// have to be brought together.
#include "gpu/device.cuh"
#include "gpu/exposure.h"
#include "math/exposure.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kPixelsOfThread = 8; // backward

__device__ inline Exposure<float> exposure_of(const ExposureArrays& a, int image) {
    return a.exposures ? exposure_from_rows(a.exposures + kExposureNumbers * image) : no_exposure<float>();
}

__global__ __launch_bounds__(kThreads) void expose_kernel(const __grid_constant__ ExposureArrays a, float* shown) {
    const int pixel = blockIdx.x * kThreads + threadIdx.x, image = blockIdx.y;
    if (pixel >= a.n_pixels)
        return;
    const int64_t i = int64_t(image) * a.n_pixels + pixel;
    const Vec3<float> colour = exposed(exposure_of(a, image), load3(a.rgb, i));
    store3(shown, i, a.target ? cut_off(colour, load3(a.target, i), a.saturated) : colour);
}

__global__ __launch_bounds__(kThreads) void expose_backward_kernel(const __grid_constant__ ExposureArrays a,
                                                                   const float* dL_dshown, float* dL_drgb,
                                                                   float* dL_dexposures) {
    const int image = blockIdx.y, first = blockIdx.x * kThreads * kPixelsOfThread + threadIdx.x;
    const Exposure<float> exposure = exposure_of(a, image);
    Exposure<float> sum{};
    for (int k = 0; k < kPixelsOfThread; ++k) {
        const int pixel = first + k * kThreads;
        if (pixel >= a.n_pixels)
            break;
        const int64_t i = int64_t(image) * a.n_pixels + pixel;
        const Vec3<float> rgb = load3(a.rgb, i);
        Vec3<float> dL = load3(dL_dshown, i);
        if (a.target)
            dL = cut_off_vjp(exposed(exposure, rgb), load3(a.target, i), a.saturated, dL);
        add_exposure_vjp(sum, rgb, dL);
        store3(dL_drgb, i, transposed_times(exposure.matrix, dL));
    }
    if (!dL_dexposures)
        return;
    // Summed over the block first: atomics on one address take turns.
    __shared__ float warps[kExposureNumbers][kThreads / kWarp];
    float numbers[kExposureNumbers];
    rows_from_exposure(sum, numbers);
#pragma unroll
    for (int k = 0; k < kExposureNumbers; ++k) {
        const float total = warp_sum(numbers[k]);
        if (lane_id() == 0)
            warps[k][warp_id()] = total;
    }
    __syncthreads();
    if (threadIdx.x >= kExposureNumbers)
        return;
    float total = 0.0f;
    for (float of_warp : warps[threadIdx.x])
        total += of_warp;
    atomicAdd(dL_dexposures + kExposureNumbers * image + threadIdx.x, total);
}

} // namespace

void expose(const ExposureArrays& a, float* shown, cudaStream_t stream) {
    if (a.n_images == 0 || a.n_pixels == 0)
        return;
    expose_kernel<<<dim3(divide_up(a.n_pixels, kThreads), a.n_images), kThreads, 0, stream>>>(a, shown);
    check_launch("exposure");
}

void expose_backward(const ExposureArrays& a, const float* dL_dshown, float* dL_drgb, float* dL_dexposures,
                     cudaStream_t stream) {
    if (dL_dexposures)
        check(cudaMemsetAsync(dL_dexposures, 0, a.n_images * kExposureNumbers * sizeof(float), stream),
              "exposure backward");
    if (a.n_images == 0 || a.n_pixels == 0)
        return;
    const dim3 grid(divide_up(a.n_pixels, kThreads * kPixelsOfThread), a.n_images);
    expose_backward_kernel<<<grid, kThreads, 0, stream>>>(a, dL_dshown, dL_drgb, dL_dexposures);
    check_launch("exposure backward");
}

} // namespace kinosplat::gpu
