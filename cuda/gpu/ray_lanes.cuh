// A warp's 32 lanes as neighbouring samples of one ray, and blocks of rays that share a buffer of samples.
#pragma once

#include "gpu/device.cuh"
#include "gpu/field_step.h"

namespace kinosplat::gpu {

// Product over the lanes up to and with this one.
__device__ inline float prefix_product(float x) {
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
        const float before = __shfl_up_sync(kAllLanes, x, offset);
        if (lane_id() >= offset)
            x *= before;
    }
    return x;
}

template <class T>
__device__ inline T of_last_lane(T x) {
    return __shfl_sync(kAllLanes, x, kWarp - 1);
}

// What a lane knows of its sample.
struct LaneSample {
    float weight, transmittance_before, transmittance_after;
};

// `transmittance` is that in front of the 32 samples, and behind them afterwards. Lanes without a sample bring zeros.
__device__ inline LaneSample lane_sample(float density, float dt, float& transmittance) {
    const float step = expf(-(density * dt));
    const float product = prefix_product(step);
    const float before = __shfl_up_sync(kAllLanes, product, 1);
    const float transmittance_before = lane_id() > 0 ? transmittance * before : transmittance;
    const LaneSample sample{transmittance_before * (1.0f - step), transmittance_before, transmittance * product};
    transmittance = of_last_lane(sample.transmittance_after);
    return sample;
}

// Rays of a block, a warp each: few, so that a long one keeps few others waiting.
constexpr int kBufferRays = 8;
constexpr int kBufferThreads = kBufferRays * kWarp;
static_assert(kBufferRays <= kWarp, "a warp finds the places of a block's rays");

// Where the `n` samples of the calling warp's ray go, which may be behind the buffer's end; the whole block comes here.
// Of the rays from `n_whole` on none counts as one whose samples are all there.
__device__ inline int64_t take_place(const PlaceChain& chain, uint32_t block, int n, int64_t n_rays, int64_t n_whole,
                                     int64_t capacity, int64_t* offsets) {
    __shared__ int counts[kBufferRays];
    __shared__ int64_t places[kBufferRays];
    if (lane_id() == 0)
        counts[warp_id()] = n;
    __syncthreads();
    if (warp_id() == 0) {
        const bool inside = lane_id() < kBufferRays;
        const int64_t ray = int64_t(block) * kBufferRays + lane_id();
        const uint64_t own = inside ? uint64_t(counts[lane_id()]) : 0u, up_to = warp_prefix(own);
        const uint64_t of_block = of_last_lane(up_to), before = chained_prefix(chain.status, block, of_block);
        const int64_t end = int64_t(before + up_to);
        if (inside)
            places[lane_id()] = end - int64_t(own);
        if (inside && ray < n_rays)
            offsets[ray + 1] = min(end, capacity);
        const unsigned whole = __ballot_sync(kAllLanes, inside && ray < n_whole && end <= capacity);
        if (lane_id() == 0) {
            if (whole)
                atomicAdd(&chain.counts->n_rays, __popc(whole));
            if (block == 0)
                offsets[0] = 0;
            if (block == gridDim.x - 1) {
                const uint64_t all = before + of_block;
                chain.counts->n_wanted = int32_t(min(all, uint64_t(INT32_MAX)));
                chain.counts->n_rows = int32_t(min(all, uint64_t(capacity)));
            }
        }
    }
    __syncthreads();
    return places[warp_id()];
}

} // namespace kinosplat::gpu
