// What drawing a field adds to the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat {

// FieldView, which both backends take.
void bind_fused_field_types(nanobind::module_& module);

namespace cpu {
void bind_fused_field(nanobind::module_& module);
} // namespace cpu

#if KINOSPLAT_HAS_CUDA
namespace gpu {
void bind_fused_field(nanobind::module_& module);
} // namespace gpu
#endif

} // namespace kinosplat
