// Compact: moves the visible rows together, in the order of their numbers, so that equal depths keep the order of the
// set and two runs give the same picture; counts the digits of their keys for the sort; and tells the host how many
// there are, which it wants to know before the lists of hits can be made. The host is told while the sort still runs.
#include "gpu/device.cuh"
#include "gpu/radix_sort.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kItems = 16; // a thread
constexpr int kBlockRows = kThreads * kItems;
constexpr int kDepthBits = 24;

// What keys are sorted by: 24 bits from the highest in which depths differ. That is all of them unless the largest
// depth is more than four times the smallest, and each doubling beyond that costs one of 23 bits of precision.
struct DepthKey {
    uint32_t smallest;
    int shift;

    __device__ explicit DepthKey(const DeviceCounts& counts) {
        smallest = ~counts.max_inverse_depth_key;
        shift = max(32 - __clz(int(counts.max_depth_key - smallest)) - kDepthBits, 0);
    }
    __device__ uint32_t operator()(uint32_t depth_bits) const { return (depth_bits - smallest) >> shift; }
};

__device__ inline uint32_t saturated(unsigned long long n) { return n > 0xffffffffull ? 0xffffffffu : uint32_t(n); }

__device__ inline void send_counts(const ProjectScratch& scratch, uint32_t n_rows) {
    scratch.counts->n_rows = n_rows;
    __threadfence();
    const volatile DeviceCounts* found = scratch.counts;
    volatile HostCounts* host = scratch.host_counts;
    host->counts.n_rows = n_rows;
    host->counts.n_hits = saturated(found->n_hits);
    host->counts.n_entries = saturated(found->n_entries);
    __threadfence_system();
    host->ready = 1;
}

// Adds up this block's share of what the project pass counted; called by one warp.
__device__ inline void add_block_counts(const ProjectScratch& scratch, uint32_t block, uint32_t n_project_blocks) {
    const uint32_t share = divide_up(n_project_blocks, gridDim.x), begin = block * share;
    const uint32_t end = min(begin + share, n_project_blocks);
    uint64_t n_hits = 0, n_entries = 0;
    for (uint32_t k = begin + lane_id(); k < end; k += kWarp) {
        n_hits += scratch.block_counts[k].x;
        n_entries += scratch.block_counts[k].y;
    }
    n_hits = warp_sum(n_hits);
    n_entries = warp_sum(n_entries);
    if (lane_id() == 0) {
        atomicAdd(&scratch.counts->n_hits, static_cast<unsigned long long>(n_hits));
        atomicAdd(&scratch.counts->n_entries, static_cast<unsigned long long>(n_entries));
        __threadfence();
    }
}

__global__ __launch_bounds__(kThreads) void compact_kernel(const __grid_constant__ ProjectScratch scratch,
                                                           uint32_t n_pairs, uint32_t n_project_blocks) {
    __shared__ uint32_t histograms[kDepthPasses][kRadixBins];
    __shared__ uint32_t warp_counts[kWarps];
    __shared__ uint32_t rows_before;
    const SortBuffer<uint32_t> buffer = scratch.by_depth[0];
    const uint32_t block = take_ticket(scratch.compact_ticket);
    const uint32_t first = block * kBlockRows + warp_id() * kItems * kWarp + lane_id();
    uint32_t keys[kItems], n_warp = 0;
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        keys[k] = first + k * kWarp < n_pairs ? buffer.keys[first + k * kWarp] : 0u;
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        n_warp += __popc(__ballot_sync(kAllLanes, keys[k] != 0));
    if (lane_id() == 0)
        warp_counts[warp_id()] = n_warp;
    for (int pass = 0; pass < kDepthPasses; ++pass)
        for (int bin = threadIdx.x; bin < kRadixBins; bin += kThreads)
            histograms[pass][bin] = 0;
    __syncthreads();
    if (warp_id() == 0) {
        uint32_t own = 0;
        for (int w = 0; w < kWarps; ++w)
            own += warp_counts[w];
        // Before the block publishes its rows, so that whoever knows all rows also knows all counts.
        add_block_counts(scratch, block, n_project_blocks);
        const uint32_t before = uint32_t(chained_prefix(scratch.compact_status, block, own));
        if (lane_id() == 0) {
            rows_before = before;
            if (block == gridDim.x - 1)
                send_counts(scratch, before + own);
        }
    }
    __syncthreads();

    // Rows move to where this block or earlier ones have read all keys already.
    uint32_t at = rows_before;
    for (int w = 0; w < warp_id(); ++w)
        at += warp_counts[w];
    const DepthKey depth_key(*scratch.counts);
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const unsigned visible = __ballot_sync(kAllLanes, keys[k] != 0);
        if (keys[k] != 0) {
            const uint32_t key = depth_key(keys[k]), target = at + __popc(visible & ((1u << lane_id()) - 1));
            buffer.keys[target] = key;
            buffer.values[target] = first + k * kWarp;
            for (int pass = 0; pass < kDepthPasses; ++pass)
                atomicAdd(&histograms[pass][radix_digit(pass, kDepthPasses, kDepthBits).of(key)], 1u);
        }
        at += __popc(visible);
    }
    __syncthreads();
    for (int pass = 0; pass < kDepthPasses; ++pass)
        for (int bin = threadIdx.x; bin < kRadixBins; bin += kThreads)
            if (const uint32_t n = histograms[pass][bin])
                atomicAdd(scratch.sort.histograms + pass * kRadixBins + bin, n);
}

} // namespace

int compact_blocks(const Frame& frame) { return divide_up(frame.n_pairs(), kBlockRows); }

void compact(const Frame& frame, const ProjectScratch& scratch, cudaStream_t stream) {
    compact_kernel<<<compact_blocks(frame), kThreads, 0, stream>>>(scratch, frame.n_pairs(), project_blocks(frame));
    check_launch("compact");
}

void sort_by_depth(const Frame& frame, const ProjectScratch& scratch, cudaStream_t stream) {
    for (int pass = 0; pass < kDepthPasses; ++pass) {
        const SortBuffer<uint32_t> from = scratch.by_depth[pass % 2];
        SortBuffer<uint32_t> to = scratch.by_depth[1 - pass % 2];
        if (pass == kDepthPasses - 1)
            to.keys = nullptr;
        radix_pass<uint32_t>(from, to, frame.n_pairs(), &scratch.counts->n_rows,
                             radix_digit(pass, kDepthPasses, kDepthBits), scratch.sort, pass, stream);
    }
}

} // namespace kinosplat::gpu
