// The multilayer perceptron's part of the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace kinosplat::cpu {

void bind_mlp(nanobind::module_& module);

} // namespace kinosplat::cpu
