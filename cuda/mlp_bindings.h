// The multilayer perceptron's part of the Python module, and what others take of it.
#pragma once

#include <string>
#include <vector>

#include "arguments.h"
#include "cpu/mlp.h"

#if KINOSPLAT_HAS_CUDA
#include "gpu/queue.h"
#endif

namespace kinosplat::cpu {

// The arguments of a network by their prefix: weights "weight_0", "weight_1", ... of "n_layers" layers, and the scratch
// memory "packed" and "scratch". Samples are left to the caller.
template <class T>
MlpArrays<T> network(Arguments& a, const std::string& prefix, int64_t n_inputs);

void bind_mlp(nanobind::module_& module);

} // namespace kinosplat::cpu

#if KINOSPLAT_HAS_CUDA
namespace kinosplat::gpu {

// Widths of a network; Python has checked that the layers are neither too many nor too wide.
MlpShape network_shape(const std::vector<int>& widths);

// The same, and addresses of its weights.
void set_network(const std::vector<int>& widths, const std::vector<Address>& weights, MlpShape* shape,
                 const float** pointers);

void bind_mlp(nanobind::module_& module);

} // namespace kinosplat::gpu
#endif
