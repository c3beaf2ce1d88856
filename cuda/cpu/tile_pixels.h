// The pixels of one tile as 4 x 4 blocks, a vector or a few each, and which of them a Gaussian can reach: shared by
// both directions of the blend pass. Square blocks, because a small Gaussian touches fewer of them than of rows of 16
// pixels.
#pragma once

#include <algorithm>
#include <iterator>

#include "cpu/lanes.h"
#include "cpu/passes.h"
#include "cpu/tiles.h"
#include "math/blending.h"

namespace kinosplat::cpu {

constexpr int kBlocksAcross = kTileSize / kBlockSize;
constexpr int kBlocks = kBlocksAcross * kBlocksAcross;
constexpr int kBlockPixels = kBlockSize * kBlockSize;

// One number a pixel, in the order of blocks.
template <class T>
struct TileNumbers {
    alignas(kVectorBytes) T values[kBlocks * kBlockPixels];

    void fill(T value) { std::fill(std::begin(values), std::end(values), value); }
    KS_HOST_DEVICE Lanes<T> load(int at) const { return Lanes<T>::load(values + at); }
    KS_HOST_DEVICE void store(int at, Lanes<T> lanes) { lanes.store(values + at); }
};

template <class T>
struct TilePixels {
    using L = Lanes<T>;
    static constexpr int kVectors = kBlockPixels / L::kCount; // of one block
    static_assert(kVectors * L::kCount == kBlockPixels);

    int left, top;                                              // of the tile, pixels
    int n_columns, n_lines;                                     // pixels inside the image
    TileNumbers<T> x, y;                                        // pixel centres
    alignas(kVectorBytes) T block_x[kBlocks], block_y[kBlocks]; // centres of blocks

    TilePixels(int tile, int width, int height) {
        const int n_tiles_across = tiles_across(width);
        left = tile % n_tiles_across * kTileSize;
        top = tile / n_tiles_across * kTileSize;
        n_columns = std::min(kTileSize, width - left);
        n_lines = std::min(kTileSize, height - top);
        for (int line = 0; line < kTileSize; ++line)
            for (int column = 0; column < kTileSize; ++column) {
                x.values[at(line, column)] = T(left + column) + T(0.5);
                y.values[at(line, column)] = T(top + line) + T(0.5);
            }
        for (int block = 0; block < kBlocks; ++block) {
            block_x[block] = T(left + block % kBlocksAcross * kBlockSize) + T(kBlockSize) / T(2);
            block_y[block] = T(top + block / kBlocksAcross * kBlockSize) + T(kBlockSize) / T(2);
        }
    }

    // Where a pixel of the tile stands in the order of blocks.
    static constexpr int at(int line, int column) {
        const int block = line / kBlockSize * kBlocksAcross + column / kBlockSize;
        return block * kBlockPixels + line % kBlockSize * kBlockSize + column % kBlockSize;
    }

    // Bit b is set where the Gaussian may reach a pixel of block b.
    KS_HOST_DEVICE uint32_t reached_blocks(const T* record, const Sym2<L>& conic) const {
        uint32_t reached = 0;
        for (int b = 0; b < kBlocks; b += L::kCount) {
            const L exponent = falloff_exponent(conic, L::load(block_x + b) - L(record[kMeanX]),
                                                L::load(block_y + b) - L(record[kMeanY]));
            reached |= bits(exponent >= L(record[kMinBlockExponent])) << b;
        }
        return reached;
    }

    // Calls function(block, first pixel) for every vector of the blocks whose bits are set.
    template <class Function>
    static KS_HOST_DEVICE void for_each_vector(uint32_t blocks, Function&& function) {
        for (; blocks; blocks &= blocks - 1) {
            const int block = __builtin_ctz(blocks);
            for (int v = 0; v < kVectors; ++v)
                function(block, block * kBlockPixels + v * L::kCount);
        }
    }

    int64_t pixel(int line, int column, int width) const { return int64_t(top + line) * width + left + column; }
};

// Asks for the record of a hit that will be blended soon; records lie scattered over more memory than the second cache
// holds.
template <class T>
KS_HOST_DEVICE void prefetch_record(const BlendArrays<T>& arrays, int64_t at, int stride) {
    const T* record = arrays.records + int64_t(arrays.hit_rows[at]) * stride;
    __builtin_prefetch(record);
    __builtin_prefetch(record + stride - 1);
}

constexpr int kPrefetchAhead = 8; // hits

// Calls function(std::integral_constant<int, size>, first, n) for every group of channels, n <= size of them in use.
template <class Function>
void for_channel_groups(int n_channels, Function&& function) {
    for (int first = 0; first < n_channels; first += kMaxChannelGroup) {
        const int n = std::min(kMaxChannelGroup, n_channels - first);
        switch (channel_group_size(n)) {
        case 3:
            function(std::integral_constant<int, 3>{}, first, n);
            break;
        case 4:
            function(std::integral_constant<int, 4>{}, first, n);
            break;
        default:
            function(std::integral_constant<int, kMaxChannelGroup>{}, first, n);
        }
    }
}

} // namespace kinosplat::cpu
