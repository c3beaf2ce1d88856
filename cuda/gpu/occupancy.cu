// The occupancy grid's upkeep on the GPU.
#include "gpu/device.cuh"
#include "gpu/field.h"
#include "gpu/field_step.h"

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
__global__ __launch_bounds__(kThreads) void pack_kernel(int64_t n_bytes, const float* density, const float* threshold,
                                                        uint8_t* bits) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n_bytes)
        return;
    unsigned byte = 0;
    const float least = *threshold;
#pragma unroll
    for (int k = 0; k < 8; ++k)
        byte |= unsigned(density[8 * i + k] > least) << k;
    bits[i] = uint8_t(byte);
}

constexpr int kWordCells = 32;
constexpr int kWarps = kThreads / kWarp;

// A thread takes a word of bits; a block learns from those before it how many cells they have.
__global__ __launch_bounds__(kThreads) void list_kernel(int64_t n_words, const uint32_t* bits, uint64_t* status,
                                                        uint32_t* ticket, int32_t* cells, int32_t* count) {
    __shared__ uint32_t before_warp[kWarps];
    __shared__ uint64_t before_block;
    const uint32_t block = take_ticket(ticket);
    const int64_t i = int64_t(block) * kThreads + threadIdx.x;
    uint32_t word = i < n_words ? bits[i] : 0u;
    const uint32_t own = __popc(word), up_to = warp_prefix(own);
    if (lane_id() == kWarp - 1)
        before_warp[warp_id()] = up_to;
    __syncthreads();
    if (warp_id() == 0) {
        const uint32_t of_warp = lane_id() < kWarps ? before_warp[lane_id()] : 0u, warps = warp_prefix(of_warp);
        const uint32_t n = __shfl_sync(kAllLanes, warps, kWarp - 1);
        const uint64_t before = chained_prefix(status, block, n);
        if (lane_id() < kWarps)
            before_warp[lane_id()] = warps - of_warp;
        if (lane_id() == 0) {
            before_block = before;
            if (block == gridDim.x - 1)
                *count = int32_t(before + n);
        }
    }
    __syncthreads();
    int64_t at = int64_t(before_block) + before_warp[warp_id()] + up_to - own;
    for (; word; word &= word - 1)
        cells[at++] = int32_t(i * kWordCells + __ffs(int(word)) - 1);
}

__global__ __launch_bounds__(kThreads) void visit_kernel(const __grid_constant__ Marching<float> m,
                                                         const __grid_constant__ CellVisits visits,
                                                         const int32_t* n_occupied, int64_t first, int64_t n,
                                                         int64_t* cells, float* positions) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n)
        return;
    const CellVisit visit = visit_cell(m, visits, *n_occupied, first + i);
    cells[i] = visit.cell;
    store3(positions, i, visit.position);
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

void occupancy_pack(int64_t n_cells, const float* density, const float* threshold, uint8_t* bits, cudaStream_t stream) {
    if (n_cells > 0)
        pack_kernel<<<blocks_of(n_cells / 8), kThreads, 0, stream>>>(n_cells / 8, density, threshold, bits);
    check_launch("occupancy pack");
}

int64_t list_blocks(int64_t n_cells) { return divide_up(n_cells, int64_t(kThreads) * kWordCells); }

void list_occupied(int64_t n_cells, const uint8_t* bits, uint64_t* status, uint32_t* ticket, int32_t* cells,
                   int32_t* count, cudaStream_t stream) {
    if (n_cells > 0)
        list_kernel<<<unsigned(list_blocks(n_cells)), kThreads, 0, stream>>>(
            n_cells / kWordCells, reinterpret_cast<const uint32_t*>(bits), status, ticket, cells, count);
    check_launch("list of occupied cells");
}

void visit_cells(const Marching<float>& m, const CellVisits& visits, const int32_t* n_occupied, int64_t first,
                 int64_t n, int64_t* cells, float* positions, cudaStream_t stream) {
    if (n > 0)
        visit_kernel<<<blocks_of(n), kThreads, 0, stream>>>(m, visits, n_occupied, first, n, cells, positions);
    check_launch("visits of cells");
}

} // namespace kinosplat::gpu
