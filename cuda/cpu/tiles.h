// The tiles a row touches. One compiled copy, so that counting and listing agree to the last bit.
#pragma once

#include <cstdint>

#include "cpu/passes.h"

namespace kinosplat::cpu {

constexpr int tiles_across(int n_pixels) { return (n_pixels + kTileSize - 1) / kTileSize; }

// Number of tiles; their indices (row-major) go to `tiles` where that is not null.
template <class T>
int list_tiles(const T* record, const T* ellipse, int width, int height, int32_t* tiles);

} // namespace kinosplat::cpu
