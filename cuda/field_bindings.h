// What the passes of fields add to the Python module, beside the rasterizer's.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat {

// HashGrid and Marching, which both backends' passes take.
void bind_field_types(nanobind::module_& module);

namespace cpu {
void bind_field(nanobind::module_& module);
} // namespace cpu

} // namespace kinosplat
