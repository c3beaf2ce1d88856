// The tiles that rows touch, for as many rows at once as a vector has lanes. One compiled copy, so that counting and
// listing agree to the last bit.
#pragma once

#include <cstdint>

#include "cpu/lanes.h"
#include "cpu/passes.h"

namespace kinosplat::cpu {

constexpr int tiles_across(int n_pixels) { return (n_pixels + kTileSize - 1) / kTileSize; }

template <class T>
struct RowEllipses {
    Lanes<T> mean_x, mean_y, conic_xx, cov_xx, cov_xy, cov_yy, cutoff;
};

// Numbers of tiles of the first `n` lanes to `counts`; where `lists` is not null, also their indices (row-major), to
// lists + offsets[lane] on.
template <class T>
void list_tiles(const RowEllipses<T>& rows, int n, int width, int height, int32_t* counts, int32_t* lists,
                const int32_t* offsets);

} // namespace kinosplat::cpu
