// Marching by occupied blocks on the GPU: a block of threads is a tile of the picture. It picks out the occupied blocks
// that may cover the tile, 256 candidates at a time and in order, and every thread takes them for its ray.
#include "gpu/device.cuh"
#include "gpu/field.h"

namespace kinosplat::gpu {
namespace {

constexpr int kTile = 16; // pixels along one side
constexpr int kThreads = kTile * kTile;
constexpr int kWarps = kThreads / kWarp;

// Returns cells and blocks looked at; called by all threads of a tile, those outside of the picture with ray < 0.
template <class Emit>
__device__ inline int walk(const Marching<float>& m, const Occupancy& occupancy, const RayArrays& rays,
                           const BlockList& list, int x, int y, int64_t ray, Emit&& emit) {
    __shared__ int picked[kThreads];
    __shared__ int4 rectangles[kThreads];
    __shared__ int warp_counts[kWarps];
    const int x0 = blockIdx.x * kTile, y0 = blockIdx.y * kTile;
    MarchedRay<float> marched{};
    Member<float> member{};
    if (ray >= 0) {
        marched = marched_ray(m, load3(rays.origins, ray), load3(rays.directions, ray), rays.near[ray], rays.far[ray],
                              rays.jitter[ray]);
        member = first_member(m, marched);
    }
    int n_visited = 0;
    for (int first = 0; first < list.n; first += kThreads) {
        const int candidate = first + int(threadIdx.x);
        int4 r = make_int4(0, -1, 0, -1);
        if (candidate < list.n)
            r = list.rectangles[candidate];
        const bool covers = r.x < x0 + kTile && r.y >= x0 && r.z < y0 + kTile && r.w >= y0;
        const unsigned covering = __ballot_sync(kAllLanes, covers);
        if (lane_id() == 0)
            warp_counts[warp_id()] = __popc(covering);
        __syncthreads();
        int place = __popc(covering & ((1u << lane_id()) - 1)), n = 0;
        for (int warp = 0; warp < kWarps; ++warp) {
            place += warp < warp_id() ? warp_counts[warp] : 0;
            n += warp_counts[warp];
        }
        if (covers) {
            picked[place] = list.blocks[candidate];
            rectangles[place] = r;
        }
        __syncthreads();
        for (int k = 0; k < n && member.mid < marched.last; ++k) {
            const int4 pixels = rectangles[k];
            if (x >= pixels.x && x <= pixels.y && y >= pixels.z && y <= pixels.w)
                n_visited += march_block(m, occupancy, marched, picked[k], member, emit);
        }
        __syncthreads();
    }
    return n_visited;
}

__device__ inline int64_t ray_of_thread(const BlockList& list, int* x, int* y) {
    *x = blockIdx.x * kTile + threadIdx.x % kTile;
    *y = blockIdx.y * kTile + threadIdx.x / kTile;
    return *x < list.width && *y < list.height ? int64_t(*y) * list.width + *x : -1;
}

__global__ __launch_bounds__(kThreads) void count_kernel(const __grid_constant__ Marching<float> m,
                                                         const __grid_constant__ Occupancy occupancy,
                                                         const __grid_constant__ RayArrays rays,
                                                         const __grid_constant__ BlockList list, int32_t* counts,
                                                         int32_t* n_visited) {
    int x, y;
    const int64_t ray = ray_of_thread(list, &x, &y);
    int32_t n = 0;
    const int visited = walk(m, occupancy, rays, list, x, y, ray, [&](float, float) { ++n; });
    if (ray < 0)
        return;
    counts[ray] = n;
    if (n_visited)
        n_visited[ray] = visited;
}

__global__ __launch_bounds__(kThreads) void write_kernel(const __grid_constant__ Marching<float> m,
                                                         const __grid_constant__ Occupancy occupancy,
                                                         const __grid_constant__ RayArrays rays,
                                                         const __grid_constant__ BlockList list, const int64_t* offsets,
                                                         float* t, float* dt) {
    int x, y;
    const int64_t ray = ray_of_thread(list, &x, &y);
    int64_t at = ray >= 0 ? offsets[ray] : 0;
    const int64_t end = ray >= 0 ? offsets[ray + 1] : 0;
    walk(m, occupancy, rays, list, x, y, at < end ? ray : -1, [&](float sample_t, float sample_dt) {
        if (at < end) {
            t[at] = sample_t;
            dt[at] = sample_dt;
        }
        ++at;
    });
}

dim3 tiles_of(const BlockList& list) {
    return dim3(unsigned(divide_up(list.width, kTile)), unsigned(divide_up(list.height, kTile)));
}

} // namespace

void march_blocks_count(const Marching<float>& m, const Occupancy& occupancy, const RayArrays& rays,
                        const BlockList& list, int32_t* counts, int32_t* n_visited, cudaStream_t stream) {
    count_kernel<<<tiles_of(list), kThreads, 0, stream>>>(m, occupancy, rays, list, counts, n_visited);
    check_launch("march blocks count");
}

void march_blocks_write(const Marching<float>& m, const Occupancy& occupancy, const RayArrays& rays,
                        const BlockList& list, const int64_t* offsets, float* t, float* dt, cudaStream_t stream) {
    write_kernel<<<tiles_of(list), kThreads, 0, stream>>>(m, occupancy, rays, list, offsets, t, dt);
    check_launch("march blocks write");
}

} // namespace kinosplat::gpu
