// Sort by quad: entries are counted by quad in chunks, the counts become sums over the chunks before, and each chunk
// puts its entries where they belong. One pass over the entries replaces two of a radix sort, and where the lists begin
// and end comes with it. A chain through the blocks, as in radix_sort.cu, would read more counts than there are
// entries: a chunk has four entries a quad only.
#include "gpu/quad_sort.h"
#include "gpu/ranking.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kBits = 11;
constexpr int kQuads = 1 << kBits;
static_assert(kQuads == kMostCountedQuads);

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kItems = 32; // a thread
constexpr int kWarpItems = kItems * kWarp;
constexpr int kChunk = kThreads * kItems;
static_assert(kChunk < 0x10000, "places in a chunk have 16 bits");

// Quads of a thread that read as 16 bytes; with the others of the block all of them.
constexpr int kOwnQuads = 16 / sizeof(uint16_t);
static_assert(kOwnQuads * kThreads == kQuads);

// A chunk is put in order by parts, so that one lies where the counts have been.
constexpr int kPart = kChunk / 2;

struct Chunk {
    uint32_t begin, size;

    __device__ explicit Chunk(uint32_t n_entries)
        : begin(blockIdx.x * kChunk), size(min(n_entries - blockIdx.x * kChunk, uint32_t(kChunk))) {}
};

__global__ __launch_bounds__(kThreads) void count_quads_kernel(const uint16_t* __restrict__ quads, uint32_t n_entries,
                                                               int n_counted, uint32_t* counts) {
    __shared__ uint32_t chunk_counts[kQuads];
    const Chunk chunk(n_entries);
    for (int quad = threadIdx.x; quad < n_counted; quad += kThreads)
        chunk_counts[quad] = 0;
    __syncthreads();
    for (uint32_t first = kOwnQuads * threadIdx.x; first < chunk.size; first += kOwnQuads * kThreads) {
        union {
            uint4 bits;
            uint16_t quads[kOwnQuads];
        } own;
        own.bits = *reinterpret_cast<const uint4*>(quads + chunk.begin + first);
#pragma unroll
        for (int k = 0; k < kOwnQuads; ++k)
            if (first + k < chunk.size)
                atomicAdd(chunk_counts + own.quads[k], 1u);
    }
    __syncthreads();
    for (int quad = threadIdx.x; quad < n_counted; quad += kThreads)
        counts[size_t(blockIdx.x) * n_counted + quad] = chunk_counts[quad];
}

// A block takes 32 quads, one a lane, and each of its warps a share of the chunks.
constexpr int kScanWarps = kWarp;

__global__ __launch_bounds__(kScanWarps* kWarp) void scan_chunks_kernel(uint32_t* counts, uint32_t n_chunks,
                                                                        int n_counted, uint32_t* totals) {
    __shared__ uint32_t shares[kScanWarps][kWarp];
    constexpr int kAtOnce = 8;
    const int quad = blockIdx.x * kWarp + lane_id();
    const uint32_t share = divide_up(n_chunks, uint32_t(kScanWarps));
    const uint32_t begin = min(warp_id() * share, n_chunks), end = min(begin + share, n_chunks);
    uint32_t sum = 0;
#pragma unroll kAtOnce
    for (uint32_t chunk = begin; chunk < end; ++chunk)
        sum += counts[size_t(chunk) * n_counted + quad];
    shares[warp_id()][lane_id()] = sum;
    __syncthreads();
    uint32_t before = 0;
    for (int w = 0; w < warp_id(); ++w)
        before += shares[w][lane_id()];
    for (uint32_t first = begin; first < end; first += kAtOnce) {
        uint32_t own[kAtOnce];
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k)
            own[k] = first + k < end ? counts[size_t(first + k) * n_counted + quad] : 0u;
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k)
            if (first + k < end) {
                counts[size_t(first + k) * n_counted + quad] = before;
                before += own[k];
            }
    }
    if (warp_id() == kScanWarps - 1)
        totals[quad] = before;
}

// A thread's quads, two numbers of 16 bits a word; none of their sums is longer.
__device__ inline uint4 operator+(uint4 a, uint4 b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }
__device__ inline uint32_t halves(uint32_t word) { return (word & 0xffff) + (word >> 16); }

struct Places {
    uint16_t counts[kWarps][kQuads]; // of a warp's entries, then the place in the chunk of the first of them
};

struct Part {
    uint32_t entries[kPart];
    uint16_t quads[kPart];
};

// Where the chunk's entries of each quad go in the lists, less their place in the chunk; turns the counts of the warps
// into places.
__device__ inline void find_targets(Places& places, uint32_t* targets, const uint32_t* chunks_before,
                                    const uint32_t* totals, int n_quads, int n_counted, const TileLists& lists) {
    __shared__ uint32_t warp_sums[kWarps];
    const int first = kOwnQuads * threadIdx.x;
    const auto own_counts = [&](int warp) -> uint4& { return *reinterpret_cast<uint4*>(places.counts[warp] + first); };
    uint4 in_chunk{};
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
        in_chunk = in_chunk + own_counts(w);
    const uint32_t n_chunk = halves(in_chunk.x) + halves(in_chunk.y) + halves(in_chunk.z) + halves(in_chunk.w);
    uint32_t n_all = 0;
    const int end = min(first + kOwnQuads, n_counted); // of those that the tables have
    for (int quad = first; quad < end; ++quad)
        n_all += totals[quad];
    uint32_t place = block_prefix(n_chunk, warp_sums), target = block_prefix(n_all, warp_sums);
    const auto take = [&](int quad, uint32_t count) {
        const uint32_t at = place, total = quad < n_counted ? totals[quad] : 0u;
        targets[quad] = target + (quad < n_counted ? chunks_before[quad] : 0u) - place;
        if (blockIdx.x == 0 && quad < n_quads)
            lists.ranges[quad] = total > 0 ? uint2{target, target + total} : uint2{0u, 0u};
        place += count;
        target += total;
        return at;
    };
    const auto take_two = [&](int quad, uint32_t counts) {
        const uint32_t low = take(quad, counts & 0xffff);
        return low | take(quad + 1, counts >> 16) << 16;
    };
    uint4 at;
    at.x = take_two(first, in_chunk.x);
    at.y = take_two(first + 2, in_chunk.y);
    at.z = take_two(first + 4, in_chunk.z);
    at.w = take_two(first + 6, in_chunk.w);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
        const uint4 own = own_counts(w);
        own_counts(w) = at;
        at = at + own;
    }
}

__global__ __launch_bounds__(kThreads, 3) void place_entries_kernel(const uint16_t* __restrict__ quads,
                                                                    const uint32_t* __restrict__ entries,
                                                                    uint32_t n_entries, int n_quads, int n_bits,
                                                                    int n_counted, const uint32_t* counts,
                                                                    const uint32_t* totals, TileLists lists) {
    __shared__ union {
        Places places;
        Part part;
        uint4 aligned;
    } shared;
    __shared__ uint32_t targets[kQuads];
    const Chunk chunk(n_entries);
    uint16_t* warp_counts = shared.places.counts[warp_id()];
    for (int at = lane_id(); at < kQuads / kOwnQuads; at += kWarp)
        reinterpret_cast<uint4*>(warp_counts)[at] = {0u, 0u, 0u, 0u};
    __syncwarp();

    // Each warp takes consecutive entries, each lane every 32nd of them: ranks keep the order.
    const uint32_t first = warp_id() * kWarpItems + lane_id();
    const int n_left = int(chunk.size) - int(first);
    const uint16_t* own_quads = quads + chunk.begin + first;
    const uint32_t* own_entries = entries + chunk.begin + first;
    uint32_t items[kItems]; // quad, and in the lower half first the rank in the warp, then the place in the chunk
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        items[k] = k * kWarp < n_left ? own_quads[k * kWarp] : 0u;
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        items[k] = items[k] << 16 | rank_in_warp<kBits>(warp_counts, items[k], n_bits, k * kWarp < n_left);
    __syncthreads();
    find_targets(shared.places, targets, counts + size_t(blockIdx.x) * n_counted, totals, n_quads, n_counted, lists);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k)
        items[k] += warp_counts[items[k] >> 16];

    for (uint32_t part = 0; part < chunk.size; part += kPart) {
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kItems; ++k) {
            const uint32_t place = (items[k] & 0xffff) - part;
            if (k * kWarp < n_left && place < kPart) {
                shared.part.entries[place] = own_entries[k * kWarp];
                shared.part.quads[place] = uint16_t(items[k] >> 16);
            }
        }
        __syncthreads();
        const uint32_t n_part = min(chunk.size - part, uint32_t(kPart));
        for (uint32_t place = threadIdx.x; place < n_part; place += kThreads)
            lists.entries[targets[shared.part.quads[place]] + part + place] = shared.part.entries[place];
    }
}

} // namespace

uint32_t quad_sort_chunks(uint32_t n_entries) { return divide_up(n_entries, uint32_t(kChunk)); }

int counted_quads(int n_quads) { return divide_up(n_quads, kWarp) * kWarp; }

void sort_by_quad(const uint16_t* quads, const uint32_t* entries, uint32_t n_entries, int n_quads,
                  const QuadSortScratch& scratch, const TileLists& lists, cudaStream_t stream) {
    const uint32_t n_chunks = quad_sort_chunks(n_entries);
    const int n_counted = counted_quads(n_quads);
    int n_bits = 1;
    while (n_quads - 1 >> n_bits)
        ++n_bits;
    count_quads_kernel<<<n_chunks, kThreads, 0, stream>>>(quads, n_entries, n_counted, scratch.counts);
    scan_chunks_kernel<<<n_counted / kWarp, kScanWarps * kWarp, 0, stream>>>(scratch.counts, n_chunks, n_counted,
                                                                             scratch.totals);
    place_entries_kernel<<<n_chunks, kThreads, 0, stream>>>(quads, entries, n_entries, n_quads, n_bits, n_counted,
                                                            scratch.counts, scratch.totals, lists);
    check_launch("sort by quad");
}

} // namespace kinosplat::gpu
