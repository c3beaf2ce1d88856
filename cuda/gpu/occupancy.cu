// The occupancy grid's upkeep on the GPU.
#include "gpu/device.cuh"
#include "gpu/field.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void decay_kernel(int64_t n, float decay, float* density) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i < n)
        density[i] *= decay;
}

__global__ __launch_bounds__(kThreads) void raise_kernel(int64_t n_cells, int64_t n, const int64_t* cells,
                                                         const float* values, float* density) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n || cells[i] < 0 || cells[i] >= n_cells)
        return;
    const float value = values[i];
    // The bits of floats sort like integers, those of negative ones the other way round.
    if (value >= 0.0f)
        atomicMax(reinterpret_cast<int*>(density + cells[i]), __float_as_int(value + 0.0f));
    else if (value < 0.0f)
        atomicMin(reinterpret_cast<unsigned*>(density + cells[i]), __float_as_uint(value));
}

// One thread a byte.
__global__ __launch_bounds__(kThreads) void pack_kernel(int64_t n_bytes, const float* density, float threshold,
                                                        uint8_t* bits) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n_bytes)
        return;
    unsigned byte = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k)
        byte |= unsigned(density[8 * i + k] > threshold) << k;
    bits[i] = uint8_t(byte);
}

unsigned blocks_of(int64_t n) { return unsigned(divide_up(n, int64_t(kThreads))); }

} // namespace

void occupancy_update(int64_t n_cells, float decay, int64_t n_values, const int64_t* cells, const float* values,
                      float* density, cudaStream_t stream) {
    if (n_cells > 0)
        decay_kernel<<<blocks_of(n_cells), kThreads, 0, stream>>>(n_cells, decay, density);
    if (n_values > 0)
        raise_kernel<<<blocks_of(n_values), kThreads, 0, stream>>>(n_cells, n_values, cells, values, density);
    check_launch("occupancy update");
}

void occupancy_pack(int64_t n_cells, const float* density, float threshold, uint8_t* bits, cudaStream_t stream) {
    if (n_cells > 0)
        pack_kernel<<<blocks_of(n_cells / 8), kThreads, 0, stream>>>(n_cells / 8, density, threshold, bits);
    check_launch("occupancy pack");
}

} // namespace kinosplat::gpu
