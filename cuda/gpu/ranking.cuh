// Stable ranks within a block: what the sorts share.
#pragma once

#include "gpu/device.cuh"

namespace kinosplat::gpu {

// Lanes whose bin, a number of `bits` <= kMostBits bits, is the same, of those in `valid`.
template <int kMostBits>
__device__ inline unsigned peers_of(uint32_t bin, int bits, unsigned valid) {
    unsigned peers = valid;
#pragma unroll
    for (int bit = 0; bit < kMostBits; ++bit)
        if (bit < bits) {
            const bool set = bin >> bit & 1;
            const unsigned votes = __ballot_sync(kAllLanes, set);
            peers &= set ? votes : ~votes;
        }
    return peers;
}

// Called by a whole warp: counts this lane's item in its warp's `counts`, a number a bin, and returns how many valid
// items of the bin came before it, in earlier calls or on lower lanes.
template <int kMostBits>
__device__ inline uint32_t rank_in_warp(uint16_t* counts, uint32_t bin, int bits, bool valid) {
    const unsigned peers = peers_of<kMostBits>(bin, bits, __ballot_sync(kAllLanes, valid));
    const unsigned before = peers & ((1u << lane_id()) - 1);
    const uint32_t counted = counts[bin];
    __syncwarp();
    if (valid && !before)
        counts[bin] = uint16_t(counted + __popc(peers));
    __syncwarp();
    return counted + __popc(before);
}

// Sum over the threads of the block before this one; `warp_sums` has room for a number a warp.
__device__ inline uint32_t block_prefix(uint32_t own, uint32_t* warp_sums) {
    const uint32_t inclusive = warp_prefix(own);
    __syncthreads();
    if (lane_id() == kWarp - 1)
        warp_sums[warp_id()] = inclusive;
    __syncthreads();
    uint32_t before = inclusive - own;
    for (int w = 0; w < warp_id(); ++w)
        before += warp_sums[w];
    return before;
}

} // namespace kinosplat::gpu
