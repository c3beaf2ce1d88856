// Encoding on the GPU. A thread takes one sample and as many levels as fill 32 bytes of features, the sector in which
// memory is written; blocks that work on the same levels run at the same time, so that the second-level cache holds a
// few levels' tables at a time.
//
// The gradient of the table goes out in atomics of a whole row where the hardware has them (compute capability 9.0).
// Neighbouring lanes are neighbouring samples of a ray, and at coarse levels many of them lie in one cell: where a warp
// has few different cells in a row, each run's gradients are summed first.
#include "gpu/device.cuh"
#include "gpu/field.h"
#include "gpu/table.cuh"
#include "math/grid_dispatch.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kSectorBytes = 32;

// Levels a thread takes.
template <int kFeatures, class Number>
constexpr int kLevelsAThread =
    kSectorBytes / int(kFeatures * sizeof(Number)) > 1 ? kSectorBytes / int(kFeatures * sizeof(Number)) : 1;

// Runs in a warp up to which summing them first costs less than the atomics it saves.
constexpr int kMaxRuns = 12;

template <int kFeatures, class Number, class Reader>
__global__ __launch_bounds__(kThreads) void encode_kernel(const __grid_constant__ EncodeArrays a, const Reader read,
                                                          Number* features) {
    constexpr int kLevels = kLevelsAThread<kFeatures, Number>;
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= rows_in_use(a.n_samples, a.count))
        return;
    const int first = blockIdx.y * kLevels;
    const Vec3<float> position = load3(a.positions, i);
    alignas(16) Number out[kLevels * kFeatures];
#pragma unroll
    for (int k = 0; k < kLevels; ++k) {
        float values[kFeatures] = {};
        if (first + k < a.grid.n_levels)
            grid_interpolate(a.grid.levels[first + k], position, read, values);
#pragma unroll
        for (int f = 0; f < kFeatures; ++f)
            out[k * kFeatures + f] = from_float<Number>(values[f]);
    }
    const int row = a.grid.n_levels * kFeatures, n = min(kLevels, a.grid.n_levels - first) * kFeatures;
    Number* to = features + i * row + first * kFeatures;
    if (n == kLevels * kFeatures && row * sizeof(Number) % 16 == 0) {
#pragma unroll
        for (int k = 0; k < int(sizeof(out) / 16); ++k)
            reinterpret_cast<uint4*>(to)[k] = reinterpret_cast<const uint4*>(out)[k];
    } else {
#pragma unroll
        for (int k = 0; k < kLevels * kFeatures; ++k)
            if (k < n)
                to[k] = out[k];
    }
}

// One atomic of 8 or 16 bytes where there are such.
template <int kFeatures>
__device__ inline void add_row(float* row, const float (&values)[kFeatures]) {
#if __CUDA_ARCH__ >= 900
    constexpr int kTogether = kFeatures < 4 ? kFeatures : 4;
#else
    constexpr int kTogether = 1;
#endif
#pragma unroll
    for (int f = 0; f < kFeatures; f += kTogether) {
        if constexpr (kTogether == 4)
            atomicAdd(reinterpret_cast<float4*>(row + f),
                      make_float4(values[f], values[f + 1], values[f + 2], values[f + 3]));
        else if constexpr (kTogether == 2)
            atomicAdd(reinterpret_cast<float2*>(row + f), make_float2(values[f], values[f + 1]));
        else
            atomicAdd(row + f, values[f]);
    }
}

// Runs of neighbouring lanes whose samples lie in the same cell.
struct Runs {
    bool first; // of its run
    int end;    // lane behind the run
    int n, longest;

    __device__ explicit Runs(const GridCell<float>& cell) {
        const uint32_t x = __shfl_up_sync(kAllLanes, cell.x, 1), y = __shfl_up_sync(kAllLanes, cell.y, 1),
                       z = __shfl_up_sync(kAllLanes, cell.z, 1);
        first = lane_id() == 0 || x != cell.x || y != cell.y || z != cell.z;
        const unsigned firsts = __ballot_sync(kAllLanes, first);
        n = __popc(firsts);
        const unsigned behind = lane_id() == kWarp - 1 ? 0u : firsts >> (lane_id() + 1);
        end = behind ? lane_id() + __ffs(behind) : kWarp;
        longest = int(warp_max(uint32_t(first ? end - lane_id() : 0)));
    }
};

template <int kFeatures>
__global__ __launch_bounds__(kThreads) void table_gradient_kernel(const __grid_constant__ EncodeArrays a,
                                                                  const float* dL_dfeatures, float* dL_dtable) {
    constexpr int kLevels = kLevelsAThread<kFeatures, float>;
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t n_samples = rows_in_use(a.n_samples, a.count);
    if (i - lane_id() >= n_samples)
        return;
    const bool inside = i < n_samples;
    const int first = blockIdx.y * kLevels;
    const int row = a.grid.n_levels * kFeatures;
    // Lanes behind the last sample go along with it, with zeros: the warp has to stay together.
    const Vec3<float> position = load3(a.positions, inside ? i : n_samples - 1);
    for (int l = first; l < min(first + kLevels, a.grid.n_levels); ++l) {
        float g[kFeatures];
#pragma unroll
        for (int f = 0; f < kFeatures; ++f)
            g[f] = inside ? dL_dfeatures[i * row + l * kFeatures + f] : 0.0f;
        const GridCell<float> cell = grid_cell(a.grid.levels[l], position);
        const GridCorners corners = grid_corners(a.grid.levels[l], cell);
        float weights[8];
        grid_weights(cell.fraction, weights);
        const Runs runs(cell);
        if (runs.n > kMaxRuns) {
            if (inside)
#pragma unroll
                for (int corner = 0; corner < 8; ++corner) {
                    float values[kFeatures];
#pragma unroll
                    for (int f = 0; f < kFeatures; ++f)
                        values[f] = weights[corner] * g[f];
                    add_row<kFeatures>(dL_dtable + size_t(corners.entry[corner]) * kFeatures, values);
                }
            continue;
        }
#pragma unroll
        for (int corner = 0; corner < 8; ++corner) {
            float values[kFeatures];
#pragma unroll
            for (int f = 0; f < kFeatures; ++f)
                values[f] = weights[corner] * g[f];
            for (int offset = 1; offset < runs.longest; offset *= 2)
#pragma unroll
                for (int f = 0; f < kFeatures; ++f) {
                    const float other = __shfl_down_sync(kAllLanes, values[f], offset);
                    if (lane_id() + offset < runs.end)
                        values[f] += other;
                }
            if (runs.first)
                add_row<kFeatures>(dL_dtable + size_t(corners.entry[corner]) * kFeatures, values);
        }
    }
}

template <int kFeatures, class Reader>
__global__ __launch_bounds__(kThreads) void position_gradient_kernel(const __grid_constant__ EncodeArrays a,
                                                                     const Reader read, const float* dL_dfeatures,
                                                                     float* dL_dpositions) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= rows_in_use(a.n_samples, a.count))
        return;
    const Vec3<float> position = load3(a.positions, i);
    const float* g = dL_dfeatures + i * a.grid.n_levels * kFeatures;
    Vec3<float> sum{0.0f, 0.0f, 0.0f};
    for (int l = 0; l < a.grid.n_levels; ++l) {
        float dL_dlevel[kFeatures];
#pragma unroll
        for (int f = 0; f < kFeatures; ++f)
            dL_dlevel[f] = g[l * kFeatures + f];
        sum = sum + grid_position_vjp<kFeatures>(a.grid.levels[l], position, read, dL_dlevel);
    }
    dL_dpositions[3 * i] = sum.x;
    dL_dpositions[3 * i + 1] = sum.y;
    dL_dpositions[3 * i + 2] = sum.z;
}

template <int kFeatures, class Function>
void with_reader(const EncodeArrays& a, Function&& function) {
    if (a.half_table)
        function(TableReader<kFeatures, __half>{static_cast<const __half*>(a.table)});
    else
        function(TableReader<kFeatures, float>{static_cast<const float*>(a.table)});
}

dim3 blocks_of(const EncodeArrays& a, int n_levels_a_thread) {
    return dim3(unsigned(divide_up(a.n_samples, int64_t(kThreads))),
                unsigned(divide_up(a.grid.n_levels, n_levels_a_thread)));
}

} // namespace

void encode_forward(const EncodeArrays& a, void* features, bool half_features, cudaStream_t stream) {
    if (a.n_samples == 0)
        return;
    with_grid_features(a.grid.n_features, [&](auto n_features) {
        constexpr int kFeatures = n_features();
        with_reader<kFeatures>(a, [&](auto table) {
            const auto encode = [&](auto* to, auto reader) {
                using Number = std::remove_pointer_t<decltype(to)>;
                encode_kernel<kFeatures>
                    <<<blocks_of(a, kLevelsAThread<kFeatures, Number>), kThreads, 0, stream>>>(a, reader, to);
            };
            const auto launch = [&](auto* to) {
                if (a.sparse.headers)
                    encode(to, SparseReader<kFeatures, typename decltype(table)::Number>{table, a.sparse});
                else
                    encode(to, table);
            };
            half_features ? launch(static_cast<__half*>(features)) : launch(static_cast<float*>(features));
        });
    });
    check_launch("encode forward");
}

void encode_backward(const EncodeArrays& a, const EncodeGradients& g, cudaStream_t stream) {
    if (a.n_samples == 0)
        return;
    with_grid_features(a.grid.n_features, [&](auto n_features) {
        constexpr int kFeatures = n_features();
        if (g.table) {
            table_gradient_kernel<kFeatures>
                <<<blocks_of(a, kLevelsAThread<kFeatures, float>), kThreads, 0, stream>>>(a, g.features, g.table);
            check_launch("encode backward");
        }
        if (g.positions)
            with_reader<kFeatures>(a, [&](auto reader) {
                position_gradient_kernel<kFeatures>
                    <<<unsigned(divide_up(a.n_samples, int64_t(kThreads))), kThreads, 0, stream>>>(
                        a, reader, g.features, g.positions);
            });
    });
    check_launch("encode backward");
}

} // namespace kinosplat::gpu
