// Marching for a training step, one warp a ray: the lanes look at 32 members of the ray's sequence at a time, where a
// thread alone would wait for one after the other. A block counts its rays' samples, learns from the blocks before it
// where they go, and its warps walk again to write them.
#include "gpu/ray_lanes.cuh"
#include "math/pixel_ray.h"

namespace kinosplat::gpu {
namespace {

// Calls emit(member, number) in the lanes that have a sample, numbered along the ray; returns how many there are.
template <class Emit>
__device__ inline int walk_together(const Marching<float>& m, const Occupancy& occupancy, const MarchedRay<float>& ray,
                                    Emit&& emit) {
    const float slack = float(kMarchSlack) * m.dt_min;
    int n = 0;
    Member<float> first = advance_to(m, ray, first_member(m, ray), ray.first);
    while (first.mid < ray.last) {
        Member<float> own = first, behind = first;
        if (m.cone_angle == 0.0f) {
            own = numbered_member(m, ray, first.number + float(lane_id()));
            behind = numbered_member(m, ray, first.number + float(kWarp));
            if (!(behind.t > first.t))
                behind.mid = ray.last; // steps too small to change t
        } else {
            for (int k = 0; k < kWarp; ++k) {
                if (k == lane_id())
                    own = behind;
                behind = next_member(m, ray, behind);
            }
        }
        bool found = false;
        float leave = first.mid; // where emptiness around this member ends
        if (own.mid < ray.last) {
            const OccupancyCell cell = cell_at(m, ray.start + own.mid * ray.rate);
            if (cell.cascade >= 0) {
                const bool any = occupancy.blocks[block_number(m.resolution, cell)];
                found = any && is_occupied(occupancy.bits, cell_number(m.resolution, cell));
                if (!found && lane_id() == kWarp - 1)
                    leave = leaves_at(m, ray, cell, any ? 1 : kBlockCells) - slack;
            }
        }
        const unsigned all = __ballot_sync(kAllLanes, found);
        if (found)
            emit(own, n + __popc(all & ((1u << lane_id()) - 1)));
        n += __popc(all);
        leave = of_last_lane(leave);
        first = behind.mid < leave ? advance_to(m, ray, behind, leave) : behind;
    }
    return n;
}

__global__ __launch_bounds__(kBufferThreads) void march_kernel(const __grid_constant__ Marching<float> m,
                                                               const __grid_constant__ Occupancy occupancy,
                                                               const __grid_constant__ MarchBuffer a) {
    const uint32_t block = take_ticket(a.chain.ticket);
    const int64_t i = int64_t(block) * kBufferRays + warp_id();
    Vec3<float> origin{}, direction{};
    MarchedRay<float> ray{};
    int n = 0;
    if (i < a.n_rays) {
        origin = load3(a.origins, i);
        direction = load3(a.directions, i);
        const RayPart<float> part = part_in_space(m.space, origin, direction, a.near);
        ray = marched_ray(m, origin, direction, part.near, part.far, a.jitter[i]);
        n = walk_together(m, occupancy, ray, [](const Member<float>&, int) {});
    }
    const int64_t place = take_place(a.chain, block, n, a.n_rays, a.n_rays, a.capacity, a.offsets);
    if (n == 0 || place >= a.capacity)
        return;
    walk_together(m, occupancy, ray, [&](const Member<float>& member, int number) {
        const int64_t at = place + number;
        if (at >= a.capacity)
            return;
        a.t[at] = member.t;
        a.dt[at] = member.dt;
        store3(a.positions, at, grid_position(m.space, origin + member.mid * direction));
    });
}

} // namespace

int64_t buffer_blocks(int64_t n_rays) { return divide_up(n_rays, int64_t(kBufferRays)); }

void march_into(const Marching<float>& m, const Occupancy& occupancy, const MarchBuffer& a, cudaStream_t stream) {
    if (a.n_rays == 0)
        return;
    march_kernel<<<unsigned(buffer_blocks(a.n_rays)), kBufferThreads, 0, stream>>>(m, occupancy, a);
    check_launch("march into a buffer");
}

} // namespace kinosplat::gpu
