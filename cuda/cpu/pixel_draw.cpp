// Rays through pixels drawn at random.
#include <algorithm>

#include "cpu/field_step.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kTask = 1024; // rays

} // namespace

void draw_rays(const PixelPool& pool, const DrawnRays& rays, uint64_t key, int n_threads) {
    parallel_for(chunks_of(rays.n_rays, kTask), n_threads, [&](int64_t task, int) {
        for (int64_t i = task * kTask; i < std::min(rays.n_rays, (task + 1) * kTask); ++i)
            store_ray(rays, i, draw_ray(pool, key, uint64_t(i)));
    });
}

} // namespace kinosplat::cpu
