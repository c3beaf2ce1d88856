// Spherical harmonics of directions, one thread a sample.
#include "gpu/device.cuh"
#include "gpu/field.h"
#include "math/spherical_harmonics.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128;

template <int kDegree>
__global__ __launch_bounds__(kThreads) void sh_forward_kernel(int64_t n, const float* directions, float* values) {
    constexpr int kSize = (kDegree + 1) * (kDegree + 1);
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n)
        return;
    alignas(16) float basis[kSize];
    sh_basis<kDegree>(Vec3<float>{directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]}, basis);
    if constexpr (kSize % 4 == 0) {
#pragma unroll
        for (int k = 0; k < kSize / 4; ++k)
            reinterpret_cast<float4*>(values + i * kSize)[k] = reinterpret_cast<const float4*>(basis)[k];
    } else {
#pragma unroll
        for (int k = 0; k < kSize; ++k)
            values[i * kSize + k] = basis[k];
    }
}

template <int kDegree>
__global__ __launch_bounds__(kThreads) void sh_backward_kernel(int64_t n, const float* directions,
                                                               const float* dL_dvalues, float* dL_ddirections) {
    constexpr int kSize = (kDegree + 1) * (kDegree + 1);
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n)
        return;
    float g[kSize];
#pragma unroll
    for (int k = 0; k < kSize; ++k)
        g[k] = dL_dvalues[i * kSize + k];
    const Vec3<float> out =
        sh_basis_vjp<kDegree>(Vec3<float>{directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]}, g);
    dL_ddirections[3 * i] = out.x;
    dL_ddirections[3 * i + 1] = out.y;
    dL_ddirections[3 * i + 2] = out.z;
}

unsigned blocks_of(int64_t n) { return unsigned(divide_up(n, int64_t(kThreads))); }

} // namespace

void sh_forward(int64_t n, int n_degrees, const float* directions, float* values, cudaStream_t stream) {
    if (n == 0)
        return;
    constexpr decltype(&sh_forward_kernel<0>) kernels[] = {sh_forward_kernel<0>, sh_forward_kernel<1>,
                                                           sh_forward_kernel<2>, sh_forward_kernel<3>};
    kernels[n_degrees - 1]<<<blocks_of(n), kThreads, 0, stream>>>(n, directions, values);
    check_launch("directions forward");
}

void sh_backward(int64_t n, int n_degrees, const float* directions, const float* dL_dvalues, float* dL_ddirections,
                 cudaStream_t stream) {
    if (n == 0)
        return;
    constexpr decltype(&sh_backward_kernel<0>) kernels[] = {sh_backward_kernel<0>, sh_backward_kernel<1>,
                                                            sh_backward_kernel<2>, sh_backward_kernel<3>};
    kernels[n_degrees - 1]<<<blocks_of(n), kThreads, 0, stream>>>(n, directions, dL_dvalues, dL_ddirections);
    check_launch("directions backward");
}

} // namespace kinosplat::gpu
