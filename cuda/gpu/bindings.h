// The submodule kinosplat._native.gpu.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat::gpu {

void bind(nanobind::module_& module);

// What a training step needs besides the passes of a frame.
void bind_training(nanobind::module_& module);

// Passes of hash-grid fields, and those of a training step of theirs.
void bind_field(nanobind::module_& module);
void bind_field_step(nanobind::module_& module);

} // namespace kinosplat::gpu
