// The multilayer perceptron's part of the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat::cpu {

void bind_mlp(nanobind::module_& module);

} // namespace kinosplat::cpu

#if KINOSPLAT_HAS_CUDA
namespace kinosplat::gpu {

void bind_mlp(nanobind::module_& module);

} // namespace kinosplat::gpu
#endif
