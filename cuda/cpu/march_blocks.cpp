// Marching by occupied blocks on the CPU: a task is a tile of the picture, which first picks out the blocks that may
// cover it and then takes them in order for each of its rays.
#include <algorithm>

#include "cpu/field.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int kTile = 16;     // pixels along one side
constexpr int kPicked = 1024; // blocks of a tile taken at a time

template <class T>
Vec3<T> row(const T* rows, int64_t i) {
    return {rows[3 * i], rows[3 * i + 1], rows[3 * i + 2]};
}

// Calls begin_ray(ray), then emit(ray, t, dt) for its samples and visited(ray, n) for every group of blocks.
template <class T, class Begin, class Emit, class Visited>
void walk_tile(const Marching<T>& m, Occupancy occupancy, const RayArrays<T>& rays, const BlockList& list, int x0,
               int y0, Begin&& begin_ray, Emit&& emit, Visited&& visited) {
    const int x1 = std::min(x0 + kTile, list.width), y1 = std::min(y0 + kTile, list.height);
    MarchedRay<T> marched[kTile * kTile];
    Member<T> members[kTile * kTile];
    for (int y = y0; y < y1; ++y)
        for (int x = x0; x < x1; ++x) {
            const int64_t i = int64_t(y) * list.width + x;
            const int k = (y - y0) * kTile + x - x0;
            marched[k] = marched_ray(m, row(rays.origins, i), row(rays.directions, i), rays.near[i], rays.far[i],
                                     rays.jitter[i]);
            members[k] = first_member(m, marched[k]);
            begin_ray(i);
        }
    int32_t picked[kPicked];
    for (int64_t next = 0; next < list.n;) {
        int n = 0;
        for (; next < list.n && n < kPicked; ++next) {
            const int32_t* r = list.rectangles + 4 * next;
            if (r[0] < x1 && r[1] >= x0 && r[2] < y1 && r[3] >= y0)
                picked[n++] = int32_t(next);
        }
        for (int y = y0; y < y1; ++y)
            for (int x = x0; x < x1; ++x) {
                const int64_t i = int64_t(y) * list.width + x;
                const int k = (y - y0) * kTile + x - x0;
                int n_visited = 0;
                for (int p = 0; p < n && members[k].mid < marched[k].last; ++p) {
                    const int32_t* r = list.rectangles + 4 * int64_t(picked[p]);
                    if (x >= r[0] && x <= r[1] && y >= r[2] && y <= r[3])
                        n_visited += march_block(m, occupancy, marched[k], list.blocks[picked[p]], members[k],
                                                 [&](T t, T dt) { emit(i, t, dt); });
                }
                visited(i, n_visited);
            }
    }
}

template <class Function>
void for_tiles(const BlockList& list, int n_threads, Function&& function) {
    const int64_t across = chunks_of(list.width, kTile), down = chunks_of(list.height, kTile);
    parallel_for(across * down, n_threads,
                 [&](int64_t tile, int) { function(int(tile % across) * kTile, int(tile / across) * kTile); });
}

} // namespace

template <class T>
int64_t march_blocks_count(const Marching<T>& m, Occupancy occupancy, const RayArrays<T>& rays, const BlockList& list,
                           int64_t* offsets, int32_t* n_visited, int n_threads) {
    for_tiles(list, n_threads, [&](int x0, int y0) {
        walk_tile(
            m, occupancy, rays, list, x0, y0,
            [&](int64_t i) {
                offsets[i + 1] = 0;
                if (n_visited)
                    n_visited[i] = 0;
            },
            [&](int64_t i, T, T) { ++offsets[i + 1]; },
            [&](int64_t i, int n) {
                if (n_visited)
                    n_visited[i] += n;
            });
    });
    offsets[0] = 0;
    for (int64_t i = 0; i < rays.n_rays; ++i)
        offsets[i + 1] += offsets[i];
    return offsets[rays.n_rays];
}

template <class T>
void march_blocks_write(const Marching<T>& m, Occupancy occupancy, const RayArrays<T>& rays, const BlockList& list,
                        const int64_t* offsets, T* t, T* dt, int n_threads) {
    for_tiles(list, n_threads, [&](int x0, int y0) {
        int64_t at[kTile * kTile];
        const auto place = [&](int64_t i) -> int64_t& {
            return at[(i / list.width - y0) * kTile + i % list.width - x0];
        };
        walk_tile(
            m, occupancy, rays, list, x0, y0, [&](int64_t i) { place(i) = offsets[i]; },
            [&](int64_t i, T sample_t, T sample_dt) {
                const int64_t k = place(i)++;
                t[k] = sample_t;
                dt[k] = sample_dt;
            },
            [](int64_t, int) {});
    });
}

#define KS_INSTANTIATE(T)                                                                                              \
    template int64_t march_blocks_count(const Marching<T>&, Occupancy, const RayArrays<T>&, const BlockList&,          \
                                        int64_t*, int32_t*, int);                                                      \
    template void march_blocks_write(const Marching<T>&, Occupancy, const RayArrays<T>&, const BlockList&,             \
                                     const int64_t*, T*, T*, int);
KS_INSTANTIATE(float)
KS_INSTANTIATE(double)
#undef KS_INSTANTIATE

} // namespace kinosplat::cpu
