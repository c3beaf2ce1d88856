// Radix sort, one pass: each block ranks its items by their digit, finds out by a scan chained through blocks how many
// of each bin lie in the blocks before it, and writes every bin's items side by side ("Onesweep", Adinets and Merrill
// 2022). The number of items may be known on the device only, so that nobody waits for it between two passes.
#include "gpu/device.cuh"
#include "gpu/radix_sort.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kItems = 16; // a thread
constexpr int kBlockItems = kThreads * kItems;
static_assert(kThreads >= kRadixBins, "a thread a bin");
static_assert(kBlockItems <= 0x10000, "places in a block have 16 bits");

// A block's word for one bin: what the lower 30 bits say, its own count or that of all blocks up to it, or nothing yet.
constexpr uint32_t kOwn = 1u << 30, kTotal = 2u << 30, kCount = kOwn - 1;

// Words looked at side by side.
constexpr int kLookBack = 8;

// Items of this thread's bin in all blocks before `block`. Blocks start in the order of their numbers, so each waits
// for running ones only.
__device__ inline uint32_t count_before(const uint32_t* status, uint32_t block) {
    const volatile uint32_t* words = status + threadIdx.x;
    uint32_t sum = 0;
    for (int64_t nearest = int64_t(block) - 1;; nearest -= kLookBack) {
        uint32_t word[kLookBack];
#pragma unroll
        for (int k = 0; k < kLookBack; ++k)
            word[k] = nearest - k >= 0 ? uint32_t(words[(nearest - k) * kRadixBins]) : uint32_t(kTotal);
#pragma unroll
        for (int k = 0; k < kLookBack; ++k) {
            while (!(word[k] & ~kCount))
                word[k] = words[(nearest - k) * kRadixBins];
            sum += word[k] & kCount;
            if (word[k] & kTotal)
                return sum;
        }
    }
}

// Sum over the threads before this one; `warp_sums` has room for a number a warp.
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

// Lanes whose bin is the same, of those in `valid`.
__device__ inline unsigned peers_of(uint32_t bin, int bits, unsigned valid) {
    unsigned peers = valid;
#pragma unroll
    for (int bit = 0; bit < kMaxRadixBits; ++bit)
        if (bit < bits) {
            const bool set = bin >> bit & 1;
            const unsigned votes = __ballot_sync(kAllLanes, set);
            peers &= set ? votes : ~votes;
        }
    return peers;
}

template <class Key>
__global__ __launch_bounds__(kThreads, 2) void radix_pass_kernel(SortBuffer<Key> from, SortBuffer<Key> to,
                                                                 uint32_t n_items, const uint32_t* n_on_device,
                                                                 RadixDigit digit, const uint32_t* histogram,
                                                                 uint32_t* ticket, uint32_t* status) {
    __shared__ uint16_t bin_counts[kWarps][kRadixBins];
    __shared__ uint32_t bin_targets[kRadixBins]; // where a bin's first item goes, less its place in the block
    __shared__ uint32_t warp_sums[kWarps];
    __shared__ uint32_t staged[kBlockItems]; // keys, then values, in the order of their bins
    const uint32_t block = take_ticket(ticket);
    const uint32_t n = n_on_device ? *n_on_device : n_items;
    const uint32_t begin = block * kBlockItems;
    if (begin >= n)
        return;
    const uint32_t n_block = min(n - begin, uint32_t(kBlockItems));

    // Each warp takes consecutive items, each lane every 32nd of them: ranks keep the order.
    const uint32_t first = warp_id() * kItems * kWarp + lane_id();
    Key keys[kItems];
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        keys[k] = first + k * kWarp < n_block ? from.keys[begin + first + k * kWarp] : Key(0);
    for (int bin = lane_id(); bin < kRadixBins; bin += kWarp)
        bin_counts[warp_id()][bin] = 0;
    __syncwarp();

    uint16_t slots[kItems]; // first the rank among the warp's items of the bin, then the place in the block
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const bool valid = first + k * kWarp < n_block;
        const uint32_t bin = digit.of(keys[k]);
        const unsigned peers = peers_of(bin, digit.bits, __ballot_sync(kAllLanes, valid));
        const unsigned before = peers & ((1u << lane_id()) - 1);
        const uint32_t counted = bin_counts[warp_id()][bin];
        __syncwarp();
        if (valid && !before)
            bin_counts[warp_id()][bin] = uint16_t(counted + __popc(peers));
        __syncwarp();
        slots[k] = uint16_t(counted + __popc(before));
    }
    __syncthreads();

    const int bin = threadIdx.x;
    const bool has_bin = bin < kRadixBins;
    volatile uint32_t* word = status + block * kRadixBins + bin;
    uint32_t own = 0;
    if (has_bin) {
#pragma unroll
        for (int w = 0; w < kWarps; ++w)
            own += bin_counts[w][bin];
        *word = (block > 0 ? kOwn : kTotal) | own;
    }
    const uint32_t in_block = block_prefix(own, warp_sums);
    const uint32_t in_all = block_prefix(has_bin ? histogram[bin] : 0u, warp_sums);
    if (has_bin) {
        uint32_t of_warp = in_block;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            const uint32_t count = bin_counts[w][bin];
            bin_counts[w][bin] = uint16_t(of_warp);
            of_warp += count;
        }
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        if (first + k * kWarp < n_block) {
            slots[k] += bin_counts[warp_id()][digit.of(keys[k])];
            staged[slots[k]] = keys[k];
        }
    uint32_t values[kItems];
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        values[k] = first + k * kWarp < n_block ? from.values[begin + first + k * kWarp] : 0u;

    // As late as possible: the blocks before have had time to find out.
    if (has_bin) {
        uint32_t before = 0;
        if (block > 0) {
            before = count_before(status, block);
            *word = kTotal | (before + own);
        }
        bin_targets[bin] = in_all + before - in_block;
    }
    __syncthreads();

    uint32_t targets[kItems];
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const uint32_t slot = threadIdx.x + k * kThreads;
        if (slot < n_block) {
            const Key key = Key(staged[slot]);
            targets[k] = bin_targets[digit.of(key)] + slot;
            if (to.keys)
                to.keys[targets[k]] = key;
        }
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        if (first + k * kWarp < n_block)
            staged[slots[k]] = values[k];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        if (const uint32_t slot = threadIdx.x + k * kThreads; slot < n_block)
            to.values[targets[k]] = staged[slot];
}

} // namespace

int radix_blocks(uint32_t n_items) { return divide_up(n_items, uint32_t(kBlockItems)); }

template <class Key>
void radix_pass(const SortBuffer<Key>& from, const SortBuffer<Key>& to, uint32_t n_items, const uint32_t* n_on_device,
                RadixDigit digit, const RadixScratch& scratch, int pass, cudaStream_t stream) {
    radix_pass_kernel<Key><<<radix_blocks(n_items), kThreads, 0, stream>>>(
        from, to, n_items, n_on_device, digit, scratch.histograms + pass * kRadixBins, scratch.tickets + pass,
        scratch.status + size_t(pass) * scratch.n_blocks * kRadixBins);
    check_launch("sort");
}

template void radix_pass(const SortBuffer<uint16_t>&, const SortBuffer<uint16_t>&, uint32_t, const uint32_t*,
                         RadixDigit, const RadixScratch&, int, cudaStream_t);
template void radix_pass(const SortBuffer<uint32_t>&, const SortBuffer<uint32_t>&, uint32_t, const uint32_t*,
                         RadixDigit, const RadixScratch&, int, cudaStream_t);

} // namespace kinosplat::gpu
