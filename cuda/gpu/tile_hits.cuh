// The rows that hit one tile, nearest first, out of the list of its quad: a block reads the list some way ahead, and
// only as far as its pixels need it.
#pragma once

#include "gpu/device.cuh"
#include "gpu/frame.h"

namespace kinosplat::gpu {

template <int kThreads>
class TileHits {
    static constexpr int kWarps = kThreads / kWarp;
    static constexpr int kRead = kThreads <= 128 ? 4 : 1; // entries a thread reads at once
    static constexpr int kBlockRead = kThreads * kRead;
    static constexpr int kCapacity = kThreads <= 128 ? 1024 : 512; // a ring
    static_assert(kCapacity >= kBlockRead + kThreads, "what is left and what is read have to fit");

    struct alignas(sizeof(uint32_t) * kRead) Entries {
        uint32_t of[kRead];
    };

  public:
    struct Shared {
        uint32_t rows[kCapacity];
        uint32_t warp_counts[kWarps];
    };

    __device__ TileHits(Shared& shared, const TileLists& lists, int quad, int bit)
        : shared_(shared), entries_(lists.entries), range_(lists.ranges[quad]), bit_(bit),
          position_(range_.x / kRead * kRead) {
        read_ahead();
    }

    // How many rows are there to take, at most one a thread; 0 only at the end of the list.
    __device__ int count() const { return min(n_waiting_, kThreads); }
    __device__ uint32_t row(int k) const { return shared_.rows[(head_ + k) % kCapacity]; }

    // Gives away the first `n` rows and looks for more. Called by the whole block, between two barriers: one after the
    // last call of row(), one before the next.
    __device__ void advance(int n) {
        head_ += n;
        n_waiting_ -= n;
        while (n_waiting_ < kThreads && position_ < range_.y)
            append();
    }

  private:
    Shared& shared_;
    const uint32_t* entries_;
    uint2 range_;
    int bit_;
    uint32_t position_;
    uint32_t head_ = 0;
    int n_waiting_ = 0;
    Entries next_;

    __device__ uint32_t first() const { return position_ + threadIdx.x * kRead; }

    // The list's buffer ends at a multiple of 16 bytes.
    __device__ void read_ahead() {
        if (first() < range_.y)
            next_ = *reinterpret_cast<const Entries*>(entries_ + first());
    }

    __device__ void append() {
        unsigned hit_lanes[kRead], before = 0, of_warp = 0;
        bool hit[kRead];
#pragma unroll
        for (int k = 0; k < kRead; ++k) {
            const uint32_t at = first() + k;
            hit[k] = (kRead == 1 || at >= range_.x) && at < range_.y && (next_.of[k] >> bit_ & 1);
            hit_lanes[k] = __ballot_sync(kAllLanes, hit[k]);
            before += __popc(hit_lanes[k] & ((1u << lane_id()) - 1));
            of_warp += __popc(hit_lanes[k]);
        }
        if (lane_id() == 0)
            shared_.warp_counts[warp_id()] = of_warp;
        __syncthreads();
        int of_block = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            before += w < warp_id() ? shared_.warp_counts[w] : 0;
            of_block += shared_.warp_counts[w];
        }
        uint32_t slot = head_ + n_waiting_ + before;
#pragma unroll
        for (int k = 0; k < kRead; ++k)
            if (hit[k])
                shared_.rows[slot++ % kCapacity] = next_.of[k] >> kQuadBits;
        n_waiting_ += of_block;
        position_ += kBlockRead;
        read_ahead();
        __syncthreads();
    }
};

} // namespace kinosplat::gpu
