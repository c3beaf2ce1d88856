// The multilayer perceptron's part of the Python module, and what others take of it.
#pragma once

#include <string>

#include "arguments.h"
#include "math/mlp.h"

namespace kinosplat::cpu {

// Widths of a network whose weights are the arguments prefix + "0", prefix + "1", ...
MlpShape network_shape(Arguments& a, const std::string& prefix, int64_t n_layers, int64_t n_inputs);

void bind_mlp(nanobind::module_& module);

} // namespace kinosplat::cpu

#if KINOSPLAT_HAS_CUDA
namespace kinosplat::gpu {

void bind_mlp(nanobind::module_& module);

} // namespace kinosplat::gpu
#endif
