// Bin: which rows each tile has to blend, nearest first. The visible rows are sorted by depth once; then every row
// emits its hits in that order, and a stable sort by tile number alone keeps it within each tile ("Splatshop", Schuetz
// et al. 2025: about 24 bytes of traffic a hit instead of 144 when every hit carries its depth through the sort).
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

// The bits in which the depths differ. A radix pass handles 8; where that saves one, up to two of the lowest are left
// out, which is less than projection rounds.
BitRange depth_bits(const FrameCounts& counts) {
    const int end = bit_length(counts.max_depth_key ^ ~counts.max_inverse_depth_key);
    const int excess = end % 8;
    return {excess <= 2 && end > 8 ? excess : 0, end};
}

bool short_tile_keys(const TileGrid& grid) { return grid.n_all() <= 0x10000; }

// Where a block puts its hits: in shared memory first, from which they go out side by side, or, if there are too many
// of them, straight to their place.
template <class TileKey>
struct HitWriter {
    TileKey* keys;
    uint32_t* hits;
    __device__ void write(uint32_t at, uint32_t tile, uint32_t row) const {
        keys[at] = TileKey(tile);
        hits[at] = row;
    }
};

constexpr uint32_t kStagedHits = 2048;

template <class TileKey>
__device__ inline void write_small(const HitWriter<TileKey>& out, uint32_t at, TileSpan span, uint32_t row,
                                   uint32_t first_tile, int columns) {
    for (unsigned r = 0; r < span.n_rows(); ++r) {
        const uint32_t tile = first_tile + (span.first_row() + r) * columns + span.column(r);
        for (unsigned c = 0; c < span.n_columns(r); ++c)
            out.write(at++, tile + c, row);
    }
}

// One large Gaussian: the warp walks down the tile rows, its lanes write the columns.
template <class TileKey>
__device__ inline void write_large(const HitWriter<TileKey>& out, uint32_t at, uint32_t count, const float4* record,
                                   uint32_t row, uint32_t first_tile, int columns, int width, int height) {
    const Falloff falloff = read_falloff(record);
    const uint32_t end = at + count;
    const TileRange tile_rows = columns_of_row(falloff, width, height, -1);
    for (int r = tile_rows.begin; r < tile_rows.end; ++r) {
        const TileRange touched = columns_of_row(falloff, width, height, r);
        for (int c = touched.begin + lane_id(); c < touched.end; c += kWarp)
            if (at + c - touched.begin < end)
                out.write(at + c - touched.begin, first_tile + r * columns + c, row);
        at += touched.end - touched.begin;
    }
}

template <class TileKey>
__global__ __launch_bounds__(kThreads) void emit_hits_kernel(const uint32_t* __restrict__ sorted_rows, int n_rows,
                                                             const uint2* __restrict__ spans,
                                                             const __grid_constant__ Rows rows, int width, int height,
                                                             TileGrid grid, uint64_t* status, uint32_t* ticket,
                                                             TileKey* keys, uint32_t* hits) {
    __shared__ uint32_t warp_counts[kWarps];
    __shared__ uint32_t block_prefix;
    __shared__ TileKey staged_keys[kStagedHits];
    __shared__ uint32_t staged_hits[kStagedHits];
    const uint32_t block = take_ticket(ticket);
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
    const bool staged = own <= kStagedHits;
    if (warp_id() == 0) {
        const uint64_t prefix = chained_prefix(status, block, own);
        if (lane_id() == 0)
            block_prefix = uint32_t(prefix);
    }
    if (!staged)
        __syncthreads();

    const HitWriter<TileKey> out = staged ? HitWriter<TileKey>{staged_keys, staged_hits}
                                          : HitWriter<TileKey>{keys + block_prefix, hits + block_prefix};
    // Several cameras: their grids follow each other.
    const uint32_t first_tile = grid.n_cameras > 1 && position < n_rows ? rows.camera_of_row[row] * grid.n_tiles() : 0;
    if (!span.is_large())
        write_small(out, before, span, row, first_tile, grid.columns);
    for (unsigned large = __ballot_sync(kAllLanes, span.is_large()); large; large &= large - 1) {
        const int lane = __ffs(large) - 1;
        const uint32_t large_row = __shfl_sync(kAllLanes, row, lane);
        write_large(out, __shfl_sync(kAllLanes, before, lane), __shfl_sync(kAllLanes, count, lane),
                    rows.records + int64_t(kRowFloat4s) * large_row, large_row,
                    __shfl_sync(kAllLanes, first_tile, lane), grid.columns, width, height);
    }
    if (staged) {
        __syncthreads();
        for (uint32_t k = threadIdx.x; k < own; k += kThreads) {
            keys[block_prefix + k] = staged_keys[k];
            hits[block_prefix + k] = staged_hits[k];
        }
    }
}

// 16 bytes of keys a thread.
template <class TileKey>
__global__ __launch_bounds__(kThreads) void tile_ranges_kernel(const TileKey* __restrict__ keys, uint32_t n_hits,
                                                               uint2* __restrict__ ranges) {
    constexpr uint32_t kKeys = 16 / sizeof(TileKey);
    const uint32_t first = kKeys * (blockIdx.x * kThreads + threadIdx.x);
    if (first >= n_hits)
        return;
    union {
        uint4 bits;
        TileKey keys[kKeys];
    } mine;
    mine.bits = *reinterpret_cast<const uint4*>(keys + first); // the buffer is longer than its hits
    uint32_t before = first > 0 ? uint32_t(keys[first - 1]) : ~0u;
#pragma unroll
    for (uint32_t k = 0; k < kKeys; ++k) {
        if (first + k >= n_hits)
            break;
        const uint32_t tile = mine.keys[k];
        if (tile != before) {
            ranges[tile].x = first + k;
            if (before != ~0u)
                ranges[before].y = first + k;
        }
        if (first + k == n_hits - 1)
            ranges[tile].y = n_hits;
        before = tile;
    }
}

// Sorts to and fro between two buffers and returns where the values ended up; with space == nullptr it only sets
// n_bytes.
template <class Key>
uint32_t* sort_pairs(void* space, size_t& n_bytes, Key* const (&keys)[2], uint32_t* const (&values)[2], uint32_t n,
                     BitRange bits, Key** sorted_keys, cudaStream_t stream) {
    cub::DoubleBuffer<Key> key_buffers(keys[0], keys[1]);
    cub::DoubleBuffer<uint32_t> value_buffers(values[0], values[1]);
    check(cub::DeviceRadixSort::SortPairs(space, n_bytes, key_buffers, value_buffers, n, bits.begin, bits.end, stream),
          "sort");
    if (sorted_keys)
        *sorted_keys = key_buffers.Current();
    return value_buffers.Current();
}

BitRange tile_bits(const TileGrid& grid) { return {0, std::max(bit_length(grid.n_all() - 1), 1)}; }

template <class TileKey>
void bin_with_keys(const Frame& frame, const FrameCounts& counts, const ProjectScratch& project, const Rows& rows,
                   const BinScratch& scratch, const TileLists& lists, cudaStream_t stream) {
    const TileGrid grid = tile_grid(frame);
    size_t space_bytes = scratch.sort_space_bytes;
    const uint32_t* rows_by_depth = sort_pairs<uint32_t>(
        scratch.sort_space, space_bytes, {project.depth_keys, scratch.other_depth_keys},
        {project.row_numbers, scratch.other_row_numbers}, counts.n_rows, depth_bits(counts), nullptr, stream);

    // An even number of sorting passes ends where it began.
    const BitRange bits = tile_bits(grid);
    const bool even = (bits.end + 7) / 8 % 2 == 0;
    uint32_t* const hits[2] = {even ? lists.hits : scratch.other_hits, even ? scratch.other_hits : lists.hits};
    TileKey* const keys[2] = {static_cast<TileKey*>(scratch.tile_keys[0]), static_cast<TileKey*>(scratch.tile_keys[1])};
    emit_hits_kernel<TileKey><<<emit_blocks(counts.n_rows), kThreads, 0, stream>>>(
        rows_by_depth, counts.n_rows, project.spans, rows, frame.width, frame.height, grid, project.emit_status,
        project.emit_ticket, keys[0], hits[0]);
    check_launch("emit hits");

    TileKey* sorted_keys;
    const uint32_t* sorted_hits =
        sort_pairs<TileKey>(scratch.sort_space, space_bytes, keys, hits, counts.n_hits, bits, &sorted_keys, stream);
    if (sorted_hits != lists.hits) // few hits are sorted in one pass
        check(cudaMemcpyAsync(lists.hits, sorted_hits, counts.n_hits * sizeof(uint32_t), cudaMemcpyDeviceToDevice,
                              stream),
              "sort");
    constexpr uint32_t kKeysABlock = kThreads * 16 / sizeof(TileKey);
    tile_ranges_kernel<TileKey>
        <<<divide_up(counts.n_hits, kKeysABlock), kThreads, 0, stream>>>(sorted_keys, counts.n_hits, lists.ranges);
    check_launch("tile ranges");
}

} // namespace

int emit_blocks(uint32_t n_rows) { return divide_up(n_rows, uint32_t(kThreads)); }

int tile_key_bytes(const Frame& frame) {
    return short_tile_keys(tile_grid(frame)) ? sizeof(uint16_t) : sizeof(uint32_t);
}

size_t sort_space_bytes(const Frame& frame, const FrameCounts& counts) {
    size_t depth_bytes = 0, tile_bytes = 0;
    sort_pairs<uint32_t>(nullptr, depth_bytes, {nullptr, nullptr}, {nullptr, nullptr}, counts.n_rows,
                         depth_bits(counts), nullptr, nullptr);
    const BitRange bits = tile_bits(tile_grid(frame));
    if (tile_key_bytes(frame) == sizeof(uint16_t))
        sort_pairs<uint16_t>(nullptr, tile_bytes, {nullptr, nullptr}, {nullptr, nullptr}, counts.n_hits, bits, nullptr,
                             nullptr);
    else
        sort_pairs<uint32_t>(nullptr, tile_bytes, {nullptr, nullptr}, {nullptr, nullptr}, counts.n_hits, bits, nullptr,
                             nullptr);
    return std::max(depth_bytes, tile_bytes);
}

void bin(const Frame& frame, const FrameCounts& counts, const ProjectScratch& project, const Rows& rows,
         const BinScratch& scratch, const TileLists& lists, cudaStream_t stream) {
    check(cudaMemsetAsync(lists.ranges, 0, tile_grid(frame).n_all() * sizeof(uint2), stream), "tile ranges");
    if (counts.n_hits == 0)
        return;
    if (tile_key_bytes(frame) == sizeof(uint16_t))
        bin_with_keys<uint16_t>(frame, counts, project, rows, scratch, lists, stream);
    else
        bin_with_keys<uint32_t>(frame, counts, project, rows, scratch, lists, stream);
}

} // namespace kinosplat::gpu
