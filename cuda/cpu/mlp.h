// The multilayer perceptron of the CPU backend (math/mlp.h). T is float or double; pointers named optional may be null.
//
// Both passes walk through blocks of kMlpBlock samples whose numbers stay in the cache from the inputs to the outputs.
// Nothing is kept between them: the backward pass computes a block's hidden layers again, which takes less time than
// writing and reading them. Sums over samples are taken in the order of blocks, so results do not depend on the number
// of threads.
#pragma once

#include <cstdint>

#include "math/mlp.h"

namespace kinosplat::cpu {

constexpr int64_t kMlpBlock = 96; // samples: a multiple of the tiles' rows, and 96 x 64 numbers fit the first cache

template <class T>
struct MlpArrays {
    MlpShape shape;
    int64_t n_samples;
    const T* inputs;                 // (n_samples, n_inputs)
    const T* weights[kMaxMlpLayers]; // (widths[l + 1], widths[l])
    T* packed;                       // (mlp_packed_size) scratch: weights in rows of whole vectors
    T* scratch;                      // (n_threads, mlp_block_size) scratch
};

// Sizes of scratch memory, in numbers.
template <class T>
int64_t mlp_packed_size(const MlpShape& shape);
template <class T>
int64_t mlp_block_size(const MlpShape& shape);
template <class T>
int64_t mlp_gradient_size(const MlpShape& shape); // of one chunk's gradients of the weights
int64_t mlp_chunks(int64_t n_samples);            // runs of blocks whose gradients are summed apart

template <class T>
void mlp_forward(const MlpArrays<T>& arrays, T* outputs, int n_threads);

// The same in two steps, for callers that bring a few samples at a time: weights into `packed`, and then any number of
// times `n_samples` through the network on the calling thread, with `scratch` of one block.
template <class T>
void mlp_pack(const MlpArrays<T>& arrays);
template <class T>
void mlp_forward_packed(const MlpArrays<T>& arrays, T* outputs);

template <class T>
struct MlpGradients {
    const T* dL_doutputs;          // (n_samples, n_outputs)
    T* dL_dinputs;                 // optional (n_samples, n_inputs)
    T* dL_dweights[kMaxMlpLayers]; // like the weights
    T* partial;                    // (mlp_chunks, mlp_gradient_size) scratch
};

template <class T>
void mlp_backward(const MlpArrays<T>& arrays, const MlpGradients<T>& gradients, int n_threads);

} // namespace kinosplat::cpu
