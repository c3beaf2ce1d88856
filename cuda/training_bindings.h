// What a training step needs besides the passes of a frame: its part of the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat::cpu {

void bind_training(nanobind::module_& module);

} // namespace kinosplat::cpu
