// Rows to lists of hits per tile, front to back: rows are sorted by depth once, then a stable counting sort by tile
// keeps that order within each tile (ties in depth keep the order of the set).
#include <algorithm>
#include <cstring>

#include "cpu/threads.h"
#include "cpu/tiles.h"

namespace kinosplat::cpu {
namespace {

// Depths are positive, and the bit patterns of positive floats are ordered as they are.
uint32_t depth_key(float depth) {
    uint32_t key;
    std::memcpy(&key, &depth, sizeof(key));
    return key;
}

// Row numbers in the low halves of arrays.keys, sorted by depth (float): radix sort of (depth, row) packed into 64
// bits.
uint64_t* sort_by_depth(const BinArrays<float>& arrays) {
    constexpr int kBits = 11, kBuckets = 1 << kBits, kPasses = 3;
    static_assert(kBits * kPasses >= 32);
    uint64_t *from = arrays.keys, *to = arrays.keys_other;
    uint32_t counts[kPasses][kBuckets] = {};
    for (int64_t row = 0; row < arrays.n_rows; ++row) {
        const uint32_t key = depth_key(arrays.depths[row]);
        from[row] = uint64_t(key) << 32 | uint64_t(row);
        for (int pass = 0; pass < kPasses; ++pass)
            ++counts[pass][key >> (pass * kBits) & (kBuckets - 1)];
    }
    for (int pass = 0; pass < kPasses; ++pass) {
        uint32_t sum = 0;
        for (uint32_t& count : counts[pass]) {
            const uint32_t n = count;
            count = sum;
            sum += n;
        }
        const int shift = 32 + pass * kBits;
        for (int64_t i = 0; i < arrays.n_rows; ++i)
            to[counts[pass][from[i] >> shift & (kBuckets - 1)]++] = from[i];
        std::swap(from, to);
    }
    return from;
}

uint64_t* sort_by_depth(const BinArrays<double>& arrays) {
    for (int64_t row = 0; row < arrays.n_rows; ++row)
        arrays.keys[row] = uint64_t(row);
    std::stable_sort(arrays.keys, arrays.keys + arrays.n_rows,
                     [&](uint64_t a, uint64_t b) { return arrays.depths[a] < arrays.depths[b]; });
    return arrays.keys;
}

// Tiles of rows [first, first + n) to their slots.
template <class T>
void list_rows(const BinArrays<T>& arrays, int64_t first, int n) {
    const int stride = record_stride(arrays.n_channels);
    const auto gather = [&](const T* data, int row_size, int field) {
        return make_lanes<T>([&](int lane) { return data[(first + std::min(lane, n - 1)) * row_size + field]; });
    };
    const auto record = [&](int field) { return gather(arrays.records, stride, field); };
    const auto ellipse = [&](int field) { return gather(arrays.ellipses, kEllipseFields, field); };
    int32_t counts[Lanes<T>::kCount];
    list_tiles<T>({record(kMeanX), record(kMeanY), record(kConicXX), ellipse(kCovXX), ellipse(kCovXY), ellipse(kCovYY),
                   ellipse(kCutoff)},
                  n, arrays.width, arrays.height, counts, arrays.tile_of_slot, arrays.hit_offsets + first);
}

} // namespace

template <class T>
void bin(const BinArrays<T>& arrays, int n_threads) {
    const int64_t n_tiles = int64_t(tiles_across(arrays.width)) * tiles_across(arrays.height);
    const int64_t n_rows = arrays.n_rows;

    // Sorting is one task, and goes on beside the listing of tiles.
    constexpr int64_t kListChunk = 1024; // rows a task
    const uint64_t* sorted = nullptr;
    parallel_for(1 + chunks_of(n_rows, kListChunk), n_threads, [&](int64_t task, int) {
        if (task == 0) {
            sorted = sort_by_depth(arrays);
            return;
        }
        const int64_t end = std::min(n_rows, task * kListChunk);
        for (int64_t row = (task - 1) * kListChunk; row < end; row += Lanes<T>::kCount)
            list_rows(arrays, row, int(std::min<int64_t>(Lanes<T>::kCount, end - row)));
    });

    // Counting sort: one contiguous part of the sorted rows a thread, each with its own histogram.
    const int64_t part = chunks_of(n_rows, n_threads);
    const auto row_at = [&](int64_t i) { return int32_t(sorted[i] & 0xffffffffu); };
    const auto for_each_hit = [&](int64_t thread, auto&& function) {
        const int64_t end = std::min(n_rows, (thread + 1) * part);
        for (int64_t i = thread * part; i < end; ++i) {
            // In the order of depth, offsets and lists lie scattered.
            __builtin_prefetch(arrays.hit_offsets + row_at(std::min(i + 16, end - 1)));
            __builtin_prefetch(arrays.tile_of_slot + arrays.hit_offsets[row_at(std::min(i + 8, end - 1))]);
            const int32_t row = row_at(i);
            for (int32_t slot = arrays.hit_offsets[row]; slot < arrays.hit_offsets[row + 1]; ++slot)
                function(arrays.tile_of_slot[slot], row, slot);
        }
    };
    parallel_for(n_threads, n_threads, [&](int64_t thread, int) {
        int32_t* histogram = arrays.histograms + thread * n_tiles;
        std::fill(histogram, histogram + n_tiles, 0);
        for_each_hit(thread, [&](int32_t tile, int32_t, int32_t) { ++histogram[tile]; });
    });
    int32_t position = 0;
    for (int64_t tile = 0; tile < n_tiles; ++tile) {
        arrays.tile_offsets[tile] = position;
        for (int64_t thread = 0; thread < n_threads; ++thread) {
            int32_t& count = arrays.histograms[thread * n_tiles + tile];
            const int32_t n = count;
            count = position;
            position += n;
        }
    }
    arrays.tile_offsets[n_tiles] = position;
    parallel_for(n_threads, n_threads, [&](int64_t thread, int) {
        int32_t* next = arrays.histograms + thread * n_tiles;
        for_each_hit(thread, [&](int32_t tile, int32_t row, int32_t slot) {
            const int32_t at = next[tile]++;
            arrays.hit_rows[at] = row;
            arrays.hit_slots[at] = slot;
        });
    });
}

template void bin<float>(const BinArrays<float>&, int);
template void bin<double>(const BinArrays<double>&, int);

} // namespace kinosplat::cpu
