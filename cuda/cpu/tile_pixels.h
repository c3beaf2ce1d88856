// The pixels of one tile as rows of vectors, and which of its rows a Gaussian reaches: shared by both directions of the
// blend pass.
#pragma once

#include <algorithm>

#include "cpu/lanes.h"
#include "cpu/passes.h"
#include "cpu/tiles.h"
#include "math/blending.h"

namespace kinosplat::cpu {

template <class T>
struct TilePixels {
    using L = Lanes<T>;
    static constexpr int kVectors = kTileSize / L::kCount; // of one row of pixels
    static_assert(kVectors * L::kCount == kTileSize);

    int left, top;          // of the tile, pixels
    int n_columns, n_lines; // pixels inside the image
    L x[kVectors];          // pixel centres
    typename L::Mask inside[kVectors];

    TilePixels(int tile, int width, int height) {
        const int n_tiles_across = tiles_across(width);
        left = tile % n_tiles_across * kTileSize;
        top = tile / n_tiles_across * kTileSize;
        n_columns = std::min(kTileSize, width - left);
        n_lines = std::min(kTileSize, height - top);
        for (int v = 0; v < kVectors; ++v) {
            const L column = L::ramp() + L(T(v * L::kCount));
            x[v] = column + L(T(left) + T(0.5));
            inside[v] = column < L(T(n_columns));
        }
    }

    // Lines [begin, end) of this tile that the row's ellipse reaches.
    KS_HOST_DEVICE TileRange lines(const T* record) const {
        const T centre = record[kMeanY] - T(top);
        return pixels_in(Interval<T>{-record[kReachY], record[kReachY]}, centre, n_lines);
    }

    T line_centre(int line) const { return T(top + line) + T(0.5); }
    int64_t pixel(int line, int column, int width) const { return int64_t(top + line) * width + left + column; }
};

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
