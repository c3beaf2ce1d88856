// What the passes of fields add to the Python module, beside the rasterizer's, and what other bindings take of them.
#pragma once

#include "arguments.h"
#include "math/march.h"

namespace kinosplat {

// HashGrid and Marching, which both backends' passes take.
void bind_field_types(nanobind::module_& module);

namespace cpu {
// The arguments `bits` and `blocks`.
Occupancy occupancy(Arguments& a, const Marching<double>& m);

void bind_field(nanobind::module_& module);
} // namespace cpu

} // namespace kinosplat
