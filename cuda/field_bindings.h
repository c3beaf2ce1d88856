// What the passes of fields add to the Python module, beside the rasterizer's, and what other bindings take of them.
#pragma once

#include "arguments.h"
#include "math/hash_grid.h"
#include "math/march.h"
#include "math/sparse_table.h"

namespace kinosplat {

// HashGrid and Marching, which both backends' passes take.
void bind_field_types(nanobind::module_& module);

namespace cpu {
// The arguments `bits` and `blocks`.
Occupancy occupancy(Arguments& a, const Marching<double>& m);
// The arguments `headers` and `words`, checked to lead nowhere but to the `n_kept` rows of the grid's table and to
// words.
SparseIndex sparse_index(Arguments& a, const HashGrid& grid, int64_t n_kept);

void bind_field(nanobind::module_& module);
} // namespace cpu

} // namespace kinosplat
