// What every kernel needs: warp sums, copies of rows to shared memory, and a scan chained through blocks.
#pragma once

#include <cstdint>

#include "gpu/check.h"

namespace kinosplat::gpu {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <class Integer>
__host__ __device__ constexpr Integer divide_up(Integer a, Integer b) {
    return (a + b - 1) / b;
}

// Rows of a buffer that are in use: all, or as many as the device keeps in `count`.
__device__ inline int64_t rows_in_use(int64_t n_rows, const int32_t* count) {
    return count ? min(n_rows, int64_t(*count)) : n_rows;
}

__device__ inline int lane_id() { return threadIdx.x & (kWarp - 1); }
__device__ inline int warp_id() { return threadIdx.x / kWarp; }

template <class T>
__device__ inline T warp_sum(T x) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(kAllLanes, x, offset);
    return x;
}

__device__ inline uint32_t warp_sum(uint32_t x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_add_sync(kAllLanes, x);
#else
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(kAllLanes, x, offset);
    return x;
#endif
}

__device__ inline uint32_t warp_max(uint32_t x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(kAllLanes, x);
#else
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        x = max(x, __shfl_xor_sync(kAllLanes, x, offset));
    return x;
#endif
}

// Inclusive sum over the lanes up to this one.
template <class T>
__device__ inline T warp_prefix(T x) {
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
        const T before = __shfl_up_sync(kAllLanes, x, offset);
        if (lane_id() >= offset)
            x += before;
    }
    return x;
}

// Asynchronous copy of 16 bytes to shared memory, both sides aligned; a plain copy before compute capability 8.0.
__device__ inline void copy_16_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#else
    *static_cast<float4*>(shared) = *static_cast<const float4*>(global);
#endif
}

__device__ inline void wait_for_async_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// ---- a scan chained through blocks (decoupled look-back, Merrill and Garland 2016) ----

// A block's status word: the upper two bits say whether the rest is unknown, the block's own sum, or the sum up to and
// with this block. The sum itself is whatever the caller packs into the lower 62 bits.
constexpr uint64_t kStatusOwn = 1ull << 62;
constexpr uint64_t kStatusTotal = 2ull << 62;
constexpr uint64_t kStatusValue = kStatusOwn - 1;

// Blocks must be numbered in the order in which they start, or a block could wait for one that cannot start.
__device__ inline uint32_t take_ticket(uint32_t* ticket) {
    __shared__ uint32_t shared_ticket;
    if (threadIdx.x == 0)
        shared_ticket = atomicAdd(ticket, 1);
    __syncthreads();
    return shared_ticket;
}

// Words a lane looks at side by side: a thousand blocks that wait for one another are passed in a few steps.
constexpr int kLookBack = 8;

// Called by one whole warp; returns the sum over all blocks before `block`, and publishes this block's `own` sum.
__device__ inline uint64_t chained_prefix(uint64_t* status, uint32_t block, uint64_t own) {
    volatile uint64_t* words = status;
    uint64_t before = 0;
    if (block > 0) {
        if (lane_id() == 0)
            words[block] = kStatusOwn | own;
        // Each lane adds up what it looked at; the lanes are summed once, at the end, because exchanges cost more than
        // the looking.
        uint64_t seen = 0;
        bool found = false;
        for (int64_t nearest = int64_t(block) - 1 - lane_id(); !found; nearest -= kWarp * kLookBack) {
            uint64_t word[kLookBack];
#pragma unroll
            for (int k = 0; k < kLookBack; ++k)
                word[k] = nearest - k * kWarp >= 0 ? uint64_t(words[nearest - k * kWarp]) : uint64_t(kStatusTotal);
#pragma unroll
            for (int k = 0; k < kLookBack; ++k) {
                if (found)
                    break;
                while (!(word[k] & ~kStatusValue))
                    word[k] = words[nearest - k * kWarp];
                const unsigned totals = __ballot_sync(kAllLanes, (word[k] & kStatusTotal) != 0);
                // Nothing counts beyond the nearest block that knows its total.
                if (!totals || lane_id() <= __ffs(totals) - 1)
                    seen += word[k] & kStatusValue;
                found = totals != 0;
            }
        }
        before = warp_sum(seen);
    }
    if (lane_id() == 0)
        words[block] = kStatusTotal | (before + own);
    return before;
}

} // namespace kinosplat::gpu
