// Rays through pixels drawn at random, one thread each.
#include "gpu/device.cuh"
#include "gpu/field_step.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128;

__global__ __launch_bounds__(kThreads) void draw_kernel(const __grid_constant__ PixelPool pool,
                                                        const __grid_constant__ DrawnRays rays, uint64_t key) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i < rays.n_rays)
        store_ray(rays, i, draw_ray(pool, key, uint64_t(i)));
}

} // namespace

void draw_rays(const PixelPool& pool, const DrawnRays& rays, uint64_t key, cudaStream_t stream) {
    if (rays.n_rays == 0)
        return;
    draw_kernel<<<unsigned(divide_up(rays.n_rays, int64_t(kThreads))), kThreads, 0, stream>>>(pool, rays, key);
    check_launch("draw rays");
}

} // namespace kinosplat::gpu
