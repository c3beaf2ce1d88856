// Marching on the GPU, one thread a ray: once to count, once to write. Blocks are small, because a batch of a few
// thousand rays would otherwise leave most multiprocessors without work.
#include "gpu/device.cuh"
#include "gpu/field.h"

namespace kinosplat::gpu {
namespace {

constexpr int kRayThreads = 64;
constexpr int kThreads = 128;

template <class Emit>
__device__ inline int walk(const Marching<float>& m, const Occupancy& occupancy, const RayArrays& rays, int64_t i,
                           Emit&& emit) {
    const MarchedRay<float> ray =
        marched_ray(m, load3(rays.origins, i), load3(rays.directions, i), rays.near[i], rays.far[i], rays.jitter[i]);
    return march_ray(m, occupancy, ray, emit);
}

__global__ __launch_bounds__(kRayThreads) void count_kernel(const __grid_constant__ Marching<float> m,
                                                            const __grid_constant__ Occupancy occupancy,
                                                            const __grid_constant__ RayArrays rays, int32_t* counts,
                                                            int32_t* n_visited) {
    const int64_t i = int64_t(blockIdx.x) * kRayThreads + threadIdx.x;
    if (i >= rays.n_rays)
        return;
    int32_t n = 0;
    const int visited = walk(m, occupancy, rays, i, [&](float, float) { ++n; });
    counts[i] = n;
    if (n_visited)
        n_visited[i] = visited;
}

__global__ __launch_bounds__(kRayThreads) void write_kernel(const __grid_constant__ Marching<float> m,
                                                            const __grid_constant__ Occupancy occupancy,
                                                            const __grid_constant__ RayArrays rays,
                                                            const int64_t* offsets, float* t, float* dt) {
    const int64_t i = int64_t(blockIdx.x) * kRayThreads + threadIdx.x;
    if (i >= rays.n_rays)
        return;
    int64_t at = offsets[i];
    const int64_t end = offsets[i + 1];
    if (at == end)
        return;
    walk(m, occupancy, rays, i, [&](float sample_t, float sample_dt) {
        if (at < end) { // the offsets are the caller's
            t[at] = sample_t;
            dt[at] = sample_dt;
        }
        ++at;
    });
}

// One thread a block: a line of it is one byte of bits.
__global__ __launch_bounds__(kThreads) void blocks_kernel(int resolution, int64_t n_blocks, const uint8_t* bits,
                                                          uint8_t* blocks) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n_blocks)
        return;
    const int n = resolution / kBlockCells;
    const int64_t x = i % n, y = i / n % n, layer = i / n / n; // layers of all cascades lie one behind the other
    unsigned any = 0;
#pragma unroll
    for (int z = 0; z < kBlockCells; ++z)
#pragma unroll
        for (int k = 0; k < kBlockCells; ++k)
            any |= bits[((layer * kBlockCells + z) * resolution + y * kBlockCells + k) * n + x];
    blocks[i] = uint8_t(any);
}

// One warp a ray.
__global__ __launch_bounds__(kThreads) void points_kernel(const __grid_constant__ Space<float> space,
                                                          const __grid_constant__ RayArrays rays,
                                                          const int64_t* offsets, const float* t, const float* dt,
                                                          float* positions, float* directions) {
    const int64_t ray = int64_t(blockIdx.x) * (kThreads / kWarp) + warp_id();
    if (ray >= rays.n_rays)
        return;
    const Vec3<float> origin = load3(rays.origins, ray), direction = load3(rays.directions, ray);
    for (int64_t i = offsets[ray] + lane_id(); i < offsets[ray + 1]; i += kWarp) {
        store3(positions, i, grid_position(space, origin + (t[i] + 0.5f * dt[i]) * direction));
        store3(directions, i, direction);
    }
}

} // namespace

void occupied_blocks(int resolution, int n_cascades, const uint8_t* bits, uint8_t* blocks, cudaStream_t stream) {
    const int64_t n = resolution / kBlockCells, n_blocks = n_cascades * n * n * n;
    blocks_kernel<<<unsigned(divide_up(n_blocks, int64_t(kThreads))), kThreads, 0, stream>>>(resolution, n_blocks, bits,
                                                                                             blocks);
    check_launch("occupied blocks");
}

void march_count(const Marching<float>& m, const Occupancy& occupancy, const RayArrays& rays, int32_t* counts,
                 int32_t* n_visited, cudaStream_t stream) {
    if (rays.n_rays == 0)
        return;
    count_kernel<<<unsigned(divide_up(rays.n_rays, int64_t(kRayThreads))), kRayThreads, 0, stream>>>(m, occupancy, rays,
                                                                                                     counts, n_visited);
    check_launch("march count");
}

void march_write(const Marching<float>& m, const Occupancy& occupancy, const RayArrays& rays, const int64_t* offsets,
                 float* t, float* dt, cudaStream_t stream) {
    if (rays.n_rays == 0)
        return;
    write_kernel<<<unsigned(divide_up(rays.n_rays, int64_t(kRayThreads))), kRayThreads, 0, stream>>>(m, occupancy, rays,
                                                                                                     offsets, t, dt);
    check_launch("march write");
}

void sample_points(const Space<float>& space, const RayArrays& rays, const int64_t* offsets, const float* t,
                   const float* dt, float* positions, float* directions, cudaStream_t stream) {
    if (rays.n_rays == 0)
        return;
    points_kernel<<<unsigned(divide_up(rays.n_rays, int64_t(kThreads / kWarp))), kThreads, 0, stream>>>(
        space, rays, offsets, t, dt, positions, directions);
    check_launch("sample points");
}

} // namespace kinosplat::gpu
