// Marching on the CPU: a task is a run of rays. Rays are walked twice, once to count and once to write, which is
// cheaper than moving samples about afterwards.
#include <algorithm>

#include "cpu/field.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kTask = 64; // rays

template <class T>
Vec3<T> row(const T* rows, int64_t i) {
    return {rows[3 * i], rows[3 * i + 1], rows[3 * i + 2]};
}

template <class T, class Emit>
int walk(const Marching<T>& marching, Occupancy occupancy, const RayArrays<T>& rays, int64_t i, Emit&& emit) {
    const MarchedRay<T> ray =
        marched_ray(marching, row(rays.origins, i), row(rays.directions, i), rays.near[i], rays.far[i], rays.jitter[i]);
    return march_ray(marching, occupancy, ray, emit);
}

template <class Function>
void for_rays(int64_t n_rays, int n_threads, Function&& function) {
    parallel_for(chunks_of(n_rays, kTask), n_threads, [&](int64_t task, int) {
        for (int64_t i = task * kTask; i < std::min(n_rays, (task + 1) * kTask); ++i)
            function(i);
    });
}

} // namespace

void occupied_blocks(int resolution, int n_cascades, const uint8_t* bits, uint8_t* blocks, int n_threads) {
    // A line of a block is one byte of bits, because x runs fastest.
    const int n = resolution / kBlockCells;
    parallel_for(int64_t(n_cascades) * n, n_threads, [&](int64_t layer, int) { // of blocks with equal z
        uint8_t* out = blocks + layer * n * n;
        std::fill_n(out, n * n, uint8_t(0));
        for (int z = 0; z < kBlockCells; ++z)
            for (int y = 0; y < resolution; ++y) {
                const uint8_t* line = bits + ((layer * kBlockCells + z) * resolution + y) * n;
                for (int x = 0; x < n; ++x)
                    out[y / kBlockCells * n + x] |= line[x];
            }
    });
}

template <class T>
int64_t march_count(const Marching<T>& marching, Occupancy occupancy, const RayArrays<T>& rays, int64_t* offsets,
                    int32_t* n_visited, int n_threads) {
    for_rays(rays.n_rays, n_threads, [&](int64_t i) {
        int64_t n = 0;
        const int visited = walk(marching, occupancy, rays, i, [&](T, T) { ++n; });
        offsets[i + 1] = n;
        if (n_visited)
            n_visited[i] = visited;
    });
    offsets[0] = 0;
    for (int64_t i = 0; i < rays.n_rays; ++i)
        offsets[i + 1] += offsets[i];
    return offsets[rays.n_rays];
}

template <class T>
void march_write(const Marching<T>& marching, Occupancy occupancy, const RayArrays<T>& rays, const int64_t* offsets,
                 T* t, T* dt, int n_threads) {
    for_rays(rays.n_rays, n_threads, [&](int64_t i) {
        int64_t at = offsets[i];
        if (at < offsets[i + 1])
            walk(marching, occupancy, rays, i, [&](T sample_t, T sample_dt) {
                t[at] = sample_t;
                dt[at] = sample_dt;
                ++at;
            });
    });
}

template <class T>
void sample_points(const Space<T>& space, const RayArrays<T>& rays, const int64_t* offsets, const T* t, const T* dt,
                   T* positions, T* directions, int n_threads) {
    for_rays(rays.n_rays, n_threads, [&](int64_t i) {
        const Vec3<T> origin = row(rays.origins, i), direction = row(rays.directions, i);
        for (int64_t k = offsets[i]; k < offsets[i + 1]; ++k) {
            const Vec3<T> position = grid_position(space, origin + (t[k] + T(0.5) * dt[k]) * direction);
            const T values[6] = {position.x, position.y, position.z, direction.x, direction.y, direction.z};
            std::copy_n(values, 3, positions + 3 * k);
            std::copy_n(values + 3, 3, directions + 3 * k);
        }
    });
}

#define KS_INSTANTIATE(T)                                                                                              \
    template int64_t march_count(const Marching<T>&, Occupancy, const RayArrays<T>&, int64_t*, int32_t*, int);         \
    template void march_write(const Marching<T>&, Occupancy, const RayArrays<T>&, const int64_t*, T*, T*, int);        \
    template void sample_points(const Space<T>&, const RayArrays<T>&, const int64_t*, const T*, const T*, T*, T*, int);
KS_INSTANTIATE(float)
KS_INSTANTIATE(double)
#undef KS_INSTANTIATE

} // namespace kinosplat::cpu
