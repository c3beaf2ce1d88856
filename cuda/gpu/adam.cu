// Adam over the rows that were visible. Bound by memory: four numbers a thread, and nothing is read of rows left alone.
#include <type_traits>

#include "gpu/adam.h"
#include "gpu/device.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;

// kRowSize = 0 stands for any size; the usual ones turn the division into a multiplication.
template <int kRowSize>
__global__ __launch_bounds__(kThreads) void adam_kernel(const __grid_constant__ AdamArrays arrays,
                                                        const AdamSettings<float> settings) {
    const uint32_t row_size = kRowSize > 0 ? kRowSize : arrays.row_size;
    const int64_t n = arrays.n_rows * row_size;
    const int64_t first = 4 * (int64_t(blockIdx.x) * kThreads + threadIdx.x);
    if (first >= n)
        return;
    bool update[4];
    bool any = false;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        update[k] = first + k < n && (!arrays.visible || arrays.visible[(first + k) / row_size]);
        any |= update[k];
    }
    if (!any)
        return;
    if (first + 4 <= n) {
        const auto load = [&](const float* from) { return *reinterpret_cast<const float4*>(from + first); };
        float4 gradient = load(arrays.gradient), parameter = load(arrays.parameter);
        float4 moment = load(arrays.first), square = load(arrays.second);
        if (update[0])
            adam_update(settings, gradient.x, parameter.x, moment.x, square.x);
        if (update[1])
            adam_update(settings, gradient.y, parameter.y, moment.y, square.y);
        if (update[2])
            adam_update(settings, gradient.z, parameter.z, moment.z, square.z);
        if (update[3])
            adam_update(settings, gradient.w, parameter.w, moment.w, square.w);
        const auto store = [&](float* to, float4 values) { *reinterpret_cast<float4*>(to + first) = values; };
        store(arrays.parameter, parameter);
        store(arrays.first, moment);
        store(arrays.second, square);
    } else {
        for (int k = 0; k < 4; ++k)
            if (update[k])
                adam_update(settings, arrays.gradient[first + k], arrays.parameter[first + k], arrays.first[first + k],
                            arrays.second[first + k]);
    }
}

} // namespace

void adam_step(const AdamArrays& arrays, const AdamSettings<float>& settings, cudaStream_t stream) {
    const int64_t n = arrays.n_rows * arrays.row_size;
    if (n == 0)
        return;
    const auto kernel = arrays.row_size == 1    ? adam_kernel<1>
                        : arrays.row_size == 3  ? adam_kernel<3>
                        : arrays.row_size == 4  ? adam_kernel<4>
                        : arrays.row_size == 45 ? adam_kernel<45>
                                                : adam_kernel<0>;
    kernel<<<unsigned(divide_up(n, int64_t(4 * kThreads))), kThreads, 0, stream>>>(arrays, settings);
    check_launch("adam");
}

} // namespace kinosplat::gpu
