// Bin: which rows the tiles have to blend, nearest first. The visible rows come sorted by depth; every row emits its
// entries in that order, and a stable sort by quad alone keeps it within each list ("Splatshop", Schuetz et al. 2025:
// about 24 bytes of traffic a hit instead of 144 when every hit carries its depth through the sort). A list for four
// tiles is shorter than four lists, and which of the four are hit costs nothing: it lies beside the number of the row.
#include <algorithm>

#include "gpu/device.cuh"
#include "gpu/radix_sort.h"
#include "gpu/rows.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowsAThread = 2;
constexpr int kBlockRows = kThreads * kRowsAThread;
constexpr int kMaxPasses = 4;

int quad_bits(const Frame& frame) {
    int n_bits = 1;
    while (tile_grid(frame).n_all_quads() - 1 >> n_bits)
        ++n_bits;
    return n_bits;
}

// The digits that a sort by quad takes one after the other.
struct QuadDigits {
    int n_passes;
    RadixDigit digits[kMaxPasses];
};

QuadDigits quad_digits(const Frame& frame) {
    QuadDigits all{quad_passes(frame), {}};
    for (int pass = 0; pass < all.n_passes; ++pass)
        all.digits[pass] = radix_digit(pass, all.n_passes, quad_bits(frame));
    return all;
}

// Where a block puts its entries, counting their digits for the sort: in shared memory first, from which they go out
// side by side, or, if there are too many of them, straight to their place.
template <class Key>
struct EntryWriter {
    Key* keys;
    uint32_t* entries;
    uint32_t (*histograms)[kRadixBins];
    QuadDigits digits;

    __device__ void write(uint32_t at, uint32_t quad, uint32_t row, unsigned tiles) const {
        keys[at] = Key(quad);
        entries[at] = row << kQuadBits | tiles;
#pragma unroll
        for (int pass = 0; pass < kMaxPasses; ++pass)
            if (pass < digits.n_passes)
                atomicAdd(&histograms[pass][digits.digits[pass].of(quad)], 1u);
    }
};

constexpr uint32_t kStaged = 2048;

template <class Key>
__device__ inline void write_small(const EntryWriter<Key>& out, uint32_t at, TileSpan span, uint32_t row,
                                   uint32_t first_quad, int quad_columns) {
    uint32_t first = first_quad + span.first_quad_row() * quad_columns + span.first_quad_column();
    for (int k = 0; k < span.n_quad_rows(); ++k, first += quad_columns) {
        const QuadLine line = span.quad_line(k);
        for (unsigned left = line.quads(); left; left &= left - 1) {
            const int column = __ffs(left) - 1;
            out.write(at++, first + column / 2, row, line.tiles(column));
        }
    }
}

// The large Gaussians of a warp, one a lane at most: their rows of quads are shared out among the lanes.
template <class Key>
__device__ inline void write_large(const EntryWriter<Key>& out, uint32_t at, TileSpan span, const Rows& rows,
                                   uint32_t row, uint32_t first_quad, int quad_columns, int width, int height) {
    const bool large = span.is_large();
    if (!__any_sync(kAllLanes, large))
        return;
    const TileRange tile_rows = large ? span.large_rows() : TileRange{0, 0};
    const uint32_t n_lines = (tile_rows.end + 1) / 2 - tile_rows.begin / 2, n_entries = large ? span.n_entries() : 0u;
    const uint32_t lines_before = warp_prefix(n_lines) - n_lines, entries_before = warp_prefix(n_entries) - n_entries;
    const uint32_t n_all = __shfl_sync(kAllLanes, lines_before + n_lines, kWarp - 1);
    uint32_t written = 0;
    for (uint32_t first = 0; first < n_all; first += kWarp) {
        // Whose line: the last lane that has no more before it, and so has some itself.
        const uint32_t line_number = first + lane_id();
        int owner = 0;
        for (int step = kWarp / 2; step > 0; step /= 2)
            if (__shfl_sync(kAllLanes, lines_before, owner + step) <= line_number)
                owner += step;
        const TileRange owned{__shfl_sync(kAllLanes, tile_rows.begin, owner),
                              __shfl_sync(kAllLanes, tile_rows.end, owner)};
        const int quad_row = owned.begin / 2 + int(line_number - __shfl_sync(kAllLanes, lines_before, owner));
        const uint32_t owned_row = __shfl_sync(kAllLanes, row, owner);
        const uint32_t quad = __shfl_sync(kAllLanes, first_quad, owner) + quad_row * quad_columns;
        const uint32_t begin = __shfl_sync(kAllLanes, at - entries_before, owner);
        const uint32_t end = __shfl_sync(kAllLanes, at + n_entries, owner);
        const bool exists = line_number < n_all;
        LargeQuadLine line{};
        if (exists)
            line = large_quad_line(read_falloff(rows.records + int64_t(kRowFloat4s) * owned_row), width, height, owned,
                                   quad_row);
        const uint32_t n_quads = line.n_quads(), up_to = warp_prefix(n_quads);
        uint32_t target = begin + written + up_to - n_quads;
        const TileRange quads = line.quads();
        for (int column = quads.begin; column < quads.end; ++column)
            if (const unsigned tiles = line.tiles(column); tiles != 0 && target < end)
                out.write(target++, quad + column, owned_row, tiles);
        written += __shfl_sync(kAllLanes, up_to, kWarp - 1);
    }
}

template <class Key>
__global__
__launch_bounds__(kThreads) void emit_kernel(const uint32_t* __restrict__ sorted_rows, uint32_t n_rows,
                                             const uint2* __restrict__ spans, const uint32_t* __restrict__ more_spans,
                                             const __grid_constant__ Rows rows, int n_gaussians, int width, int height,
                                             TileGrid grid, const __grid_constant__ BinScratch scratch,
                                             const __grid_constant__ QuadDigits digits, Key* keys, uint32_t* entries) {
    __shared__ uint32_t histograms[kMaxPasses][kRadixBins];
    __shared__ uint32_t warp_counts[kWarps];
    __shared__ uint32_t block_prefix;
    __shared__ Key staged_keys[kStaged];
    __shared__ uint32_t staged_entries[kStaged];
    const uint32_t block = take_ticket(scratch.ticket);
    const uint32_t first = block * kBlockRows + threadIdx.x * kRowsAThread;
    uint32_t row[kRowsAThread], counts[kRowsAThread], count = 0;
    TileSpan span[kRowsAThread];
#pragma unroll
    for (int k = 0; k < kRowsAThread; ++k)
        row[k] = first + k < n_rows ? sorted_rows[first + k] : 0u;
#pragma unroll
    for (int k = 0; k < kRowsAThread; ++k)
        span[k].bits = first + k < n_rows ? spans[row[k]] : uint2{0u, 0u};
#pragma unroll
    for (int k = 0; k < kRowsAThread; ++k)
        span[k].more = span[k].has_more() ? more_spans[row[k]] : 0u;
#pragma unroll
    for (int k = 0; k < kRowsAThread; ++k)
        count += counts[k] = span[k].n_entries();
    const uint32_t warp_total = warp_prefix(count);
    if (lane_id() == kWarp - 1)
        warp_counts[warp_id()] = warp_total;
    for (int pass = 0; pass < digits.n_passes; ++pass)
        histograms[pass][threadIdx.x] = 0;
    __syncthreads();
    uint32_t at = warp_total - count, own = 0;
    for (int w = 0; w < kWarps; ++w) {
        at += w < warp_id() ? warp_counts[w] : 0;
        own += warp_counts[w];
    }
    if (warp_id() == 0) {
        const uint32_t prefix = uint32_t(chained_prefix(scratch.status, block, own));
        if (lane_id() == 0)
            block_prefix = prefix;
    }
    const bool staged = own <= kStaged;
    if (!staged)
        __syncthreads();

    const EntryWriter<Key> out{staged ? staged_keys : keys + block_prefix,
                               staged ? staged_entries : entries + block_prefix, histograms, digits};
    const int quad_columns = grid.quad_columns(), n_quads = grid.n_quads();
#pragma unroll
    for (int k = 0; k < kRowsAThread; ++k) {
        // Several cameras: their grids follow each other.
        const uint32_t first_quad = grid.n_cameras > 1 ? row[k] / n_gaussians * n_quads : 0;
        const uint32_t begin = at;
        at += counts[k];
        if (!span[k].is_large())
            write_small(out, begin, span[k], row[k], first_quad, quad_columns);
        write_large(out, begin, span[k], rows, row[k], first_quad, quad_columns, width, height);
    }
    __syncthreads();
    if (staged)
        for (uint32_t k = threadIdx.x; k < own; k += kThreads) {
            keys[block_prefix + k] = staged_keys[k];
            entries[block_prefix + k] = staged_entries[k];
        }
    for (int pass = 0; pass < digits.n_passes; ++pass)
        if (const uint32_t n = histograms[pass][threadIdx.x])
            atomicAdd(scratch.sort.histograms + pass * kRadixBins + threadIdx.x, n);
}

// 16 bytes of keys a thread.
template <class Key>
__global__ __launch_bounds__(kThreads) void quad_ranges_kernel(const Key* __restrict__ keys, uint32_t n_entries,
                                                               uint2* __restrict__ ranges) {
    constexpr uint32_t kKeys = 16 / sizeof(Key);
    const uint32_t first = kKeys * (blockIdx.x * kThreads + threadIdx.x);
    if (first >= n_entries)
        return;
    union {
        uint4 bits;
        Key keys[kKeys];
    } mine;
    mine.bits = *reinterpret_cast<const uint4*>(keys + first); // the buffer is longer than its entries
    uint32_t before = first > 0 ? uint32_t(keys[first - 1]) : ~0u;
#pragma unroll
    for (uint32_t k = 0; k < kKeys; ++k) {
        if (first + k >= n_entries)
            break;
        const uint32_t quad = mine.keys[k];
        if (quad != before) {
            ranges[quad].x = first + k;
            if (before != ~0u)
                ranges[before].y = first + k;
        }
        if (first + k == n_entries - 1)
            ranges[quad].y = n_entries;
        before = quad;
    }
}

template <class Key>
void bin_with_keys(const Frame& frame, const FrameCounts& counts, const ProjectScratch& project, const Rows& rows,
                   const BinScratch& scratch, const TileLists& lists, cudaStream_t stream) {
    const QuadDigits digits = quad_digits(frame);
    // An even number of passes ends where it began.
    const bool even = digits.n_passes % 2 == 0;
    const SortBuffer<Key> buffers[2] = {
        {static_cast<Key*>(scratch.keys[0]), even ? lists.entries : scratch.other_entries},
        {static_cast<Key*>(scratch.keys[1]), even ? scratch.other_entries : lists.entries}};
    emit_kernel<Key><<<emit_blocks(counts.n_rows), kThreads, 0, stream>>>(
        project.sorted_rows, counts.n_rows, project.spans, project.more_spans, rows, frame.n_gaussians, frame.width,
        frame.height, tile_grid(frame), scratch, digits, buffers[0].keys, buffers[0].values);
    check_launch("emit");
    for (int pass = 0; pass < digits.n_passes; ++pass)
        radix_pass<Key>(buffers[pass % 2], buffers[1 - pass % 2], counts.n_entries, nullptr, digits.digits[pass],
                        scratch.sort, pass, stream);
    constexpr uint32_t kKeysABlock = kThreads * 16 / sizeof(Key);
    quad_ranges_kernel<Key><<<divide_up(counts.n_entries, kKeysABlock), kThreads, 0, stream>>>(
        buffers[digits.n_passes % 2].keys, counts.n_entries, lists.ranges);
    check_launch("quad ranges");
}

} // namespace

int emit_blocks(uint32_t n_rows) { return divide_up(n_rows, uint32_t(kBlockRows)); }

int quad_key_bytes(const Frame& frame) { return quad_bits(frame) <= 16 ? sizeof(uint16_t) : sizeof(uint32_t); }

int quad_passes(const Frame& frame) { return divide_up(quad_bits(frame), kMaxRadixBits); }

void bin(const Frame& frame, const FrameCounts& counts, const ProjectScratch& project, const Rows& rows,
         const BinScratch& scratch, const TileLists& lists, cudaStream_t stream) {
    check(cudaMemsetAsync(lists.ranges, 0, tile_grid(frame).n_all_quads() * sizeof(uint2), stream), "quad ranges");
    if (counts.n_entries == 0)
        return;
    check(cudaMemsetAsync(scratch.sort.histograms, 0, scratch.zeroed_bytes, stream), "bin");
    if (quad_key_bytes(frame) == sizeof(uint16_t))
        bin_with_keys<uint16_t>(frame, counts, project, rows, scratch, lists, stream);
    else
        bin_with_keys<uint32_t>(frame, counts, project, rows, scratch, lists, stream);
}

} // namespace kinosplat::gpu
