// What the passes of a field's training step add to the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat::cpu {

void bind_field_step(nanobind::module_& module);

} // namespace kinosplat::cpu
