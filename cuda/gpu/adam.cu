// Adam over the rows that were visible. Bound by memory: a warp takes up to 32 consecutive rows of every tensor, four
// numbers a lane, and reads nothing of rows left alone. It goes over the gradients twice, first to find the rows that
// cannot take part; the second time they come from the cache.
#include "gpu/adam.h"
#include "gpu/device.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// Rows a warp takes at most, and at least: any four rows start at a multiple of four numbers.
constexpr int kMostRows = kWarp, kLeastRows = 4;

// Fewer rows a warp where there would not be so many warps: matrices of networks have few rows, and long ones.
constexpr int kEnoughWarps = 2048;

int rows_a_warp(int64_t n_rows) {
    int rows = kMostRows;
    while (rows > kLeastRows && n_rows < int64_t(rows) * kEnoughWarps)
        rows /= 2;
    return rows;
}

__device__ inline unsigned warp_or(unsigned x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_or_sync(kAllLanes, x);
#else
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        x |= __shfl_xor_sync(kAllLanes, x, offset);
    return x;
#endif
}

// A warp's share of one tensor: `n_numbers` consecutive ones. Calls function(offset, row, take) for this lane's
// fours that have a number of the rows in `rows`: `take` has a bit for each such number, row[k] is its row.
template <class Function>
__device__ inline void for_each_four(uint32_t n_numbers, uint32_t row_size, unsigned rows, Function&& function) {
    for (uint32_t offset = 4 * lane_id(); offset < n_numbers; offset += 4 * kWarp) {
        uint32_t row[4];
        row[0] = offset / row_size;
        uint32_t column = offset - row[0] * row_size;
        unsigned take = rows >> row[0] & 1;
#pragma unroll
        for (int k = 1; k < 4; ++k) {
            const bool next = ++column == row_size;
            row[k] = row[k - 1] + next;
            column = next ? 0 : column;
            if (offset + k < n_numbers)
                take |= (rows >> row[k] & 1) << k;
        }
        if (take)
            function(offset, row, take);
    }
}

// Four numbers from `from`, of which only `count` are there.
__device__ inline float4 load_four(const float* from, uint32_t count) {
    if (count >= 4)
        return *reinterpret_cast<const float4*>(from);
    return {from[0], count > 1 ? from[1] : 0.0f, count > 2 ? from[2] : 0.0f, 0.0f};
}

__device__ inline void store_four(float* to, uint32_t count, float4 values) {
    if (count >= 4) {
        *reinterpret_cast<float4*>(to) = values;
        return;
    }
    to[0] = values.x;
    if (count > 1)
        to[1] = values.y;
    if (count > 2)
        to[2] = values.z;
}

__global__ __launch_bounds__(kThreads) void adam_kernel(const __grid_constant__ AdamRows a, int n_rows_a_warp) {
    const int64_t first = (int64_t(blockIdx.x) * kWarps + warp_id()) * n_rows_a_warp;
    if (first >= a.n_rows)
        return;
    const int64_t own = first + lane_id();
    const bool has_row = lane_id() < n_rows_a_warp && own < a.n_rows;
    unsigned rows = __ballot_sync(kAllLanes, has_row && (!a.visible || a.visible[own]));
    if (!rows)
        return;
    const uint32_t n_rows = uint32_t(min(a.n_rows - first, int64_t(n_rows_a_warp)));

    unsigned broken = 0, reached = 0;
    for (int t = 0; t < a.n_tensors; ++t) {
        const uint32_t row_size = a.tensors[t].row_size, n_numbers = n_rows * row_size;
        const float* gradients = a.tensors[t].gradient + first * row_size;
        for_each_four(n_numbers, row_size, rows, [&](uint32_t offset, const uint32_t (&row)[4], unsigned take) {
            const float4 g = load_four(gradients + offset, n_numbers - offset);
            if (!is_finite(g.x))
                broken |= (take & 1) << row[0];
            reached |= unsigned(g.x != 0.0f) << row[0];
            if (!is_finite(g.y))
                broken |= (take >> 1 & 1) << row[1];
            reached |= unsigned(g.y != 0.0f) << row[1];
            if (!is_finite(g.z))
                broken |= (take >> 2 & 1) << row[2];
            reached |= unsigned(g.z != 0.0f) << row[2];
            if (!is_finite(g.w))
                broken |= (take >> 3 & 1) << row[3];
            reached |= unsigned(g.w != 0.0f) << row[3];
        });
    }
    broken = warp_or(broken);
    if (a.sparse)
        rows &= warp_or(reached);
    if (broken) {
        rows &= ~broken;
        if (lane_id() == 0 && a.dropped) {
            auto* counts = reinterpret_cast<unsigned long long*>(a.dropped);
            atomicAdd(counts, (unsigned long long)(__popc(broken)));
            if (atomicExch(counts + 2, (unsigned long long)(a.step)) != a.step)
                atomicAdd(counts + 1, 1ull);
        }
    }

    for (int t = 0; t < a.n_tensors; ++t) {
        const AdamTensor& tensor = a.tensors[t];
        const uint32_t row_size = tensor.row_size, n_numbers = n_rows * row_size;
        const int64_t start = first * row_size;
        for_each_four(n_numbers, row_size, rows, [&](uint32_t offset, const uint32_t (&)[4], unsigned take) {
            const uint32_t count = n_numbers - offset;
            const int64_t at = start + offset;
            const float4 gradient = load_four(tensor.gradient + at, count);
            float4 parameter = load_four(tensor.parameter + at, count);
            float4 moment = load_four(tensor.first + at, count), square = load_four(tensor.second + at, count);
            if (take & 1)
                adam_update(tensor.settings, gradient.x, parameter.x, moment.x, square.x);
            if (take & 2)
                adam_update(tensor.settings, gradient.y, parameter.y, moment.y, square.y);
            if (take & 4)
                adam_update(tensor.settings, gradient.z, parameter.z, moment.z, square.z);
            if (take & 8)
                adam_update(tensor.settings, gradient.w, parameter.w, moment.w, square.w);
            store_four(tensor.parameter + at, count, parameter);
            store_four(tensor.first + at, count, moment);
            store_four(tensor.second + at, count, square);
        });
    }
}

} // namespace

void adam_step(const AdamRows& rows, cudaStream_t stream) {
    if (rows.n_rows == 0 || rows.n_tensors == 0)
        return;
    const int n_rows_a_warp = rows_a_warp(rows.n_rows);
    const int64_t n_blocks = divide_up(rows.n_rows, int64_t(kWarps) * n_rows_a_warp);
    adam_kernel<<<unsigned(n_blocks), kThreads, 0, stream>>>(rows, n_rows_a_warp);
    check_launch("adam");
}

} // namespace kinosplat::gpu
