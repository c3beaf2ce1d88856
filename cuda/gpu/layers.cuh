// Layers of a small multilayer perceptron in a warp's registers, with the weights in shared memory. A warp holds 16
// rows (samples) a Fragment of 16 columns; widths are padded with zeros to multiples of 16.
#pragma once

#include <algorithm>

#include "gpu/device.cuh"
#include "gpu/mma.cuh"
#include "math/mlp.h"

namespace kinosplat::gpu {

constexpr int kMmaSize = 16;

__host__ __device__ constexpr int mma_tiles(int width) { return (width + kMmaSize - 1) / kMmaSize; }

// Numbers from one row of a matrix in shared memory to the next: an odd number of 16 bytes, so that eight rows lie in
// different banks.
__host__ __device__ constexpr int shared_stride(int n_tiles) { return n_tiles * kMmaSize + 8; }

// A matrix in shared memory.
struct SharedMatrix {
    Half* data;
    int stride;

    // Address that the calling lane gives to load 16 x 16 numbers from (row, column) on. Matrices in the order of a
    // left factor: first the other rows, then the other columns.
    __device__ Half* rows_first(int row, int column) const {
        const int lane = lane_id();
        return data + (row + (lane & 15)) * stride + column + (lane >> 4) * 8;
    }
    // First the other columns, then the other rows.
    __device__ Half* columns_first(int row, int column) const {
        const int lane = lane_id();
        return data + (row + (lane & 7) + (lane >> 4) * 8) * stride + column + ((lane >> 3) & 1) * 8;
    }
    __device__ Pair& pair(int row, int column) const { return *reinterpret_cast<Pair*>(data + row * stride + column); }
};

// Numbers of the widest layer.
inline int widest(const MlpShape& shape) { return *std::max_element(shape.widths, shape.widths + shape.n_layers + 1); }

// Bytes of all weights in shared memory.
inline int shared_weight_bytes(const MlpShape& shape) {
    int n = 0;
    for (int l = 0; l < shape.n_layers; ++l)
        n += mma_tiles(shape.widths[l + 1]) * kMmaSize * shared_stride(mma_tiles(shape.widths[l]));
    return n * int(sizeof(Half));
}

// Where layer l's weights lie from `weights` on.
__device__ inline SharedMatrix layer_weights(const MlpShape& shape, Half* weights, int layer) {
    for (int l = 0; l < layer; ++l)
        weights += mma_tiles(shape.widths[l + 1]) * kMmaSize * shared_stride(mma_tiles(shape.widths[l]));
    return {weights, shared_stride(mma_tiles(shape.widths[layer]))};
}

// Which column of a row in memory stands in a column of a fragment, where a lane's four numbers of a row are to be
// neighbours in memory: 4t to 4t + 3 stand at 2t, 2t + 1, 2t + 8, 2t + 9. The order of the terms of a product does not
// matter, as long as the weights follow.
__host__ __device__ constexpr int memory_column(int column) {
    return column / kMmaSize * kMmaSize + column % 8 / 2 * 4 + column % kMmaSize / 8 * 2 + column % 2;
}

// The whole block rounds the weights into shared memory; a barrier has to follow. kInMemoryOrder: the first layer's
// inputs and the last layer's outputs stand as memory_column says.
template <bool kInMemoryOrder>
__device__ inline void load_weights(const MlpShape& shape, const float* const* from, Half* weights) {
    for (int l = 0; l < shape.n_layers; ++l) {
        const SharedMatrix to = layer_weights(shape, weights, l);
        const int n_in = shape.widths[l], n_out = shape.widths[l + 1];
        const int n_columns = mma_tiles(n_in) * kMmaSize, n = mma_tiles(n_out) * kMmaSize * n_columns;
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            const int row = i / n_columns, column = i % n_columns;
            const int out = kInMemoryOrder && l + 1 == shape.n_layers ? memory_column(row) : row;
            const int in = kInMemoryOrder && l == 0 ? memory_column(column) : column;
            const float weight = out < n_out && in < n_in ? from[l][out * n_in + in] : 0.0f;
            to.data[row * to.stride + column] = __float2half_rn(weight);
        }
    }
}

// sums = inputs W^T for n_in and n_out tiles, both at most kTiles; weights are read once for kGroups groups of 16 rows.
template <int kTiles, int kGroups>
__device__ __forceinline__ void multiply_layer(const SharedMatrix& weights, int n_in, int n_out,
                                               const Fragment (&inputs)[kGroups][kTiles],
                                               Sum (&sums)[kGroups][2 * kTiles]) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
        if (n >= n_out)
            break;
#pragma unroll
        for (int m = 0; m < kGroups; ++m)
            sums[m][2 * n] = sums[m][2 * n + 1] = {};
#pragma unroll
        for (int k = 0; k < kTiles; ++k) {
            if (k >= n_in)
                break;
            const Fragment w = load_matrices(weights.columns_first(n * kMmaSize, k * kMmaSize));
#pragma unroll
            for (int m = 0; m < kGroups; ++m) {
                multiply_add(sums[m][2 * n], inputs[m][k], w.pairs[0], w.pairs[1]);
                multiply_add(sums[m][2 * n + 1], inputs[m][k], w.pairs[2], w.pairs[3]);
            }
        }
    }
}

// sums = gradients W: what comes back from n_out tiles of outputs to n_in tiles of inputs.
template <int kTiles>
__device__ __forceinline__ void multiply_back(const SharedMatrix& weights, int n_in, int n_out,
                                              const Fragment (&gradients)[kTiles], Sum (&sums)[2 * kTiles]) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
        if (n >= n_in)
            break;
        sums[2 * n] = sums[2 * n + 1] = {};
#pragma unroll
        for (int k = 0; k < kTiles; ++k) {
            if (k >= n_out)
                break;
            const Fragment w = load_matrices_transposed(weights.rows_first(k * kMmaSize, n * kMmaSize));
            multiply_add(sums[2 * n], gradients[k], w.pairs[0], w.pairs[1]);
            multiply_add(sums[2 * n + 1], gradients[k], w.pairs[2], w.pairs[3]);
        }
    }
}

// What lies between two layers: ReLU, rounded.
template <int kTiles>
__device__ __forceinline__ void activate(const Sum (&sums)[2 * kTiles], int n_tiles, Fragment (&outputs)[kTiles]) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
        if (n < n_tiles)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float* c = sums[2 * n + half].values;
                outputs[n].pairs[2 * half] = relu_pair(c[0], c[1]);
                outputs[n].pairs[2 * half + 1] = relu_pair(c[2], c[3]);
            }
}

// All layers of a network, from `numbers` to `sums`; `numbers` are overwritten.
template <int kTiles, int kGroups>
__device__ __forceinline__ void multiply_network(const MlpShape& shape, Half* weights,
                                                 Fragment (&numbers)[kGroups][kTiles],
                                                 Sum (&sums)[kGroups][2 * kTiles]) {
    for (int l = 0; l < shape.n_layers; ++l) {
        if (l > 0)
#pragma unroll
            for (int m = 0; m < kGroups; ++m)
                activate(sums[m], mma_tiles(shape.widths[l]), numbers[m]);
        multiply_layer(layer_weights(shape, weights, l), mma_tiles(shape.widths[l]), mma_tiles(shape.widths[l + 1]),
                       numbers, sums);
    }
}

// Where the calling lane's pair `k` of a fragment stands in its 16 x 16 numbers.
__device__ inline int fragment_row(int k) { return lane_id() / 4 + (k & 1) * 8; }
__device__ inline int fragment_column(int k) { return lane_id() % 4 * 2 + (k >> 1) * 8; }

} // namespace kinosplat::gpu
