// The submodule kinosplat._native.gpu.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat::gpu {

void bind(nanobind::module_& module);

} // namespace kinosplat::gpu
