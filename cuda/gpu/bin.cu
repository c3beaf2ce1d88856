// Bin: which rows each tile has to blend, nearest first. The visible rows are sorted by depth once; then every row emits its
// hits in that order, and a stable sort by tile number alone keeps it within each tile ("Splatshop", Schuetz et al. 2025:
// about 24 bytes of traffic a hit instead of 144 when every hit carries its depth through the sort).
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>

#include "gpu/device.cuh"
#include "gpu/rows.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

struct BitRange {
    int begin, end;
};

int bit_length(uint64_t x) {
    int n = 0;
    for (; x; x >>= 1)
        ++n;
    return n;
}

// The bits in which the depths differ. A radix pass handles 8; where that saves one, up to two of the lowest are left out,
// which is less than projection rounds.
BitRange depth_bits(const FrameCounts& counts) {
    const int end = bit_length(counts.max_depth_key ^ ~counts.max_inverse_depth_key);
    const int excess = end % 8;
    return {excess <= 2 && end > 8 ? excess : 0, end};
}

bool short_tile_keys(const TileGrid& grid) { return grid.n_all() <= 0x10000; }

template <class TileKey>
__global__ __launch_bounds__(kThreads) void emit_hits_kernel(const uint32_t* __restrict__ sorted_rows, int n_rows,
                                                             const uint2* __restrict__ spans, Rows rows, int record_float4s,
                                                             int width, int height, TileGrid grid, BinScratch scratch) {
    __shared__ uint32_t warp_counts[kWarps];
    __shared__ uint32_t block_prefix;
    const uint32_t block = take_ticket(scratch.ticket);
    const int position = block * kThreads + threadIdx.x;
    const uint32_t row = position < n_rows ? sorted_rows[position] : 0u;
    TileSpan span{{0u, 0u}};
    if (position < n_rows)
        span.bits = spans[row];
    const uint32_t count = span.n_tiles();
    const uint32_t warp_total = warp_prefix(count);
    if (lane_id() == kWarp - 1)
        warp_counts[warp_id()] = warp_total;
    __syncthreads();
    uint32_t before = warp_total - count, own = 0;
    for (int w = 0; w < kWarps; ++w) {
        before += w < warp_id() ? warp_counts[w] : 0;
        own += warp_counts[w];
    }
    if (warp_id() == 0) {
        const uint64_t prefix = chained_prefix(scratch.status, block, own);
        if (lane_id() == 0)
            block_prefix = uint32_t(prefix);
    }
    __syncthreads();

    TileKey* keys = static_cast<TileKey*>(scratch.tile_keys[0]);
    uint32_t* hits = scratch.hits[0];
    uint32_t out = block_prefix + before;
    // Several cameras: the grids follow each other.
    const uint32_t first_tile = grid.n_cameras > 1 && position < n_rows ? rows.camera_of_row[row] * grid.n_tiles() : 0;
    const bool large = span.is_large();
    if (!large)
        for (unsigned r = 0; r < span.n_rows(); ++r) {
            const uint32_t tile = first_tile + (span.first_row() + r) * grid.columns + span.column(r);
            for (unsigned c = 0; c < span.n_columns(r); ++c, ++out) {
                keys[out] = TileKey(tile + c);
                hits[out] = row;
            }
        }

    // Large ones, one after the other: the warp walks down the tile rows, its lanes write the columns.
    for (unsigned waiting = __ballot_sync(kAllLanes, large); waiting; waiting &= waiting - 1) {
        const int lane = __ffs(waiting) - 1;
        const uint32_t large_row = __shfl_sync(kAllLanes, row, lane);
        const uint32_t tile_base = __shfl_sync(kAllLanes, first_tile, lane);
        uint32_t target = __shfl_sync(kAllLanes, out, lane);
        const uint32_t end = target + __shfl_sync(kAllLanes, count, lane);
        const Falloff falloff = read_falloff(rows.records + int64_t(record_float4s) * large_row);
        const TileRange tile_rows = columns_of_row(falloff, width, height, -1);
        for (int r = tile_rows.begin; r < tile_rows.end; ++r) {
            const TileRange columns = columns_of_row(falloff, width, height, r);
            for (int c = columns.begin + lane_id(); c < columns.end; c += kWarp) {
                const uint32_t at = target + c - columns.begin;
                if (at < end) {
                    keys[at] = TileKey(tile_base + r * grid.columns + c);
                    hits[at] = large_row;
                }
            }
            target += columns.end - columns.begin;
        }
    }
}

template <class TileKey>
__global__ __launch_bounds__(kThreads) void tile_ranges_kernel(const TileKey* __restrict__ keys, uint32_t n_hits,
                                                               uint2* __restrict__ ranges) {
    const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
    if (i >= n_hits)
        return;
    const TileKey tile = keys[i];
    if (i == 0 || keys[i - 1] != tile)
        ranges[tile].x = i;
    if (i == n_hits - 1 || keys[i + 1] != tile)
        ranges[tile].y = i + 1;
}

// Sorts to and fro between two buffers and returns where the values ended up; with space == nullptr it only sets n_bytes.
template <class Key>
uint32_t* sort_pairs(void* space, size_t& n_bytes, Key* const (&keys)[2], uint32_t* const (&values)[2], uint32_t n,
                     BitRange bits, Key** sorted_keys, cudaStream_t stream) {
    cub::DoubleBuffer<Key> key_buffers(keys[0], keys[1]);
    cub::DoubleBuffer<uint32_t> value_buffers(values[0], values[1]);
    check(cub::DeviceRadixSort::SortPairs(space, n_bytes, key_buffers, value_buffers, n, bits.begin, bits.end, stream), "sort");
    if (sorted_keys)
        *sorted_keys = key_buffers.Current();
    return value_buffers.Current();
}

BitRange tile_bits(const TileGrid& grid) { return {0, std::max(bit_length(grid.n_all() - 1), 1)}; }

template <class TileKey>
uint32_t* bin_with_keys(const Frame& frame, const FrameCounts& counts, const ProjectScratch& project, const Rows& rows,
                        const BinScratch& scratch, uint2* ranges, cudaStream_t stream) {
    const TileGrid grid = tile_grid(frame);
    size_t space_bytes = scratch.sort_space_bytes;
    const uint32_t* rows_by_depth =
        sort_pairs<uint32_t>(scratch.sort_space, space_bytes, {project.depth_keys, scratch.other_depth_keys},
                             {project.row_numbers, scratch.other_row_numbers}, counts.n_rows,
                             depth_bits(counts), nullptr, stream);

    check(cudaMemsetAsync(scratch.status, 0, scratch.zeroed_bytes, stream), "emit hits");
    emit_hits_kernel<TileKey><<<emit_blocks(counts), kThreads, 0, stream>>>(
        rows_by_depth, counts.n_rows, project.spans, rows, frame.packed ? kPackedRowFloat4s : kRowFloat4s, frame.width,
        frame.height, grid, scratch);
    check_launch("emit hits");

    TileKey* sorted_keys;
    uint32_t* hits = sort_pairs<TileKey>(scratch.sort_space, space_bytes,
                                         {static_cast<TileKey*>(scratch.tile_keys[0]), static_cast<TileKey*>(scratch.tile_keys[1])},
                                         scratch.hits, counts.n_hits, tile_bits(grid), &sorted_keys, stream);
    tile_ranges_kernel<TileKey><<<divide_up(counts.n_hits, uint32_t(kThreads)), kThreads, 0, stream>>>(
        sorted_keys, counts.n_hits, ranges);
    check_launch("tile ranges");
    return hits;
}

} // namespace

int emit_blocks(const FrameCounts& counts) { return divide_up(counts.n_rows, uint32_t(kThreads)); }

int tile_key_bytes(const Frame& frame) { return short_tile_keys(tile_grid(frame)) ? sizeof(uint16_t) : sizeof(uint32_t); }

size_t sort_space_bytes(const Frame& frame, const FrameCounts& counts) {
    size_t depth_bytes = 0, tile_bytes = 0;
    sort_pairs<uint32_t>(nullptr, depth_bytes, {nullptr, nullptr}, {nullptr, nullptr}, counts.n_rows, depth_bits(counts),
                         nullptr, nullptr);
    const BitRange bits = tile_bits(tile_grid(frame));
    if (tile_key_bytes(frame) == sizeof(uint16_t))
        sort_pairs<uint16_t>(nullptr, tile_bytes, {nullptr, nullptr}, {nullptr, nullptr}, counts.n_hits, bits, nullptr, nullptr);
    else
        sort_pairs<uint32_t>(nullptr, tile_bytes, {nullptr, nullptr}, {nullptr, nullptr}, counts.n_hits, bits, nullptr, nullptr);
    return std::max(depth_bytes, tile_bytes);
}

uint32_t* bin(const Frame& frame, const FrameCounts& counts, const ProjectScratch& project, const Rows& rows,
              const BinScratch& scratch, uint2* ranges, cudaStream_t stream) {
    check(cudaMemsetAsync(ranges, 0, tile_grid(frame).n_all() * sizeof(uint2), stream), "tile ranges");
    if (counts.n_hits == 0)
        return scratch.hits[0];
    return tile_key_bytes(frame) == sizeof(uint16_t)
               ? bin_with_keys<uint16_t>(frame, counts, project, rows, scratch, ranges, stream)
               : bin_with_keys<uint32_t>(frame, counts, project, rows, scratch, ranges, stream);
}

} // namespace kinosplat::gpu
