// Density and colour of samples from what networks say, and the gradients back; one thread a sample.
#include "gpu/device.cuh"
#include "gpu/field_step.h"
#include "math/field_heads.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128;

__device__ inline int64_t own_sample() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

__device__ inline float gate_at(const HeadArrays& a, int64_t i) { return a.gate ? a.gate[i] : 1.0f; }

__global__ __launch_bounds__(kThreads) void activate_kernel(const __grid_constant__ HeadArrays a, float* density,
                                                            float* rgb) {
    const int64_t i = own_sample();
    if (i >= rows_in_use(a.n_samples, a.count))
        return;
    density[i] = density_of(a.outputs[i * a.width], a.density_scale) * gate_at(a, i);
    const Vec3<float> logits = load3(a.colour_logits, i);
    store3(rgb, i, Vec3<float>{sigmoid(logits.x), sigmoid(logits.y), sigmoid(logits.z)});
}

__global__ __launch_bounds__(kThreads) void colour_gradients_kernel(int64_t n, const int32_t* count, const float* rgb,
                                                                    const float* dL_drgb, float* dL_dlogits) {
    const int64_t i = own_sample();
    if (i >= rows_in_use(n, count))
        return;
    const Vec3<float> y = load3(rgb, i), g = load3(dL_drgb, i);
    store3(dL_dlogits, i, Vec3<float>{sigmoid_vjp(y.x, g.x), sigmoid_vjp(y.y, g.y), sigmoid_vjp(y.z, g.z)});
}

__global__ __launch_bounds__(kThreads) void output_gradients_kernel(const __grid_constant__ HeadArrays a,
                                                                    const __grid_constant__ OutputGradients g) {
    // A number each, so that rows are read and written in one piece.
    const int64_t k = own_sample(), i = k / g.n_outputs;
    if (i >= rows_in_use(a.n_samples, a.count))
        return;
    const int column = int(k - i * g.n_outputs);
    float gradient = g.dL_dcolour_inputs[i * g.n_colour_inputs + column];
    if (column == 0) {
        const float log_density = a.outputs[i * a.width], dL_ddensity = g.dL_ddensity[i];
        gradient += dL_ddensity * density_slope(log_density, a.density_scale) * gate_at(a, i);
        if (a.gate)
            g.dL_dgate[i] = dL_ddensity * density_of(log_density, a.density_scale);
    }
    g.dL_doutputs[k] = gradient;
}

__device__ inline float length_of(const GateArrays& a, int64_t i) {
    float square = 0.0f;
    for (int64_t f = i * a.n_features; f < (i + 1) * a.n_features; ++f)
        square += a.features[f] * a.features[f];
    return sqrtf(square);
}

__global__ __launch_bounds__(kThreads) void gate_kernel(const __grid_constant__ GateArrays a, float* gated,
                                                        float* gate) {
    const int64_t i = own_sample();
    if (i >= rows_in_use(a.n_samples, a.count))
        return;
    const float saliency = sigmoid(a.logits[i]);
    gate[i] = gate_of(a.sharpness, saliency, length_of(a, i));
    for (int64_t f = i * a.n_features; f < (i + 1) * a.n_features; ++f)
        gated[f] = saliency * a.features[f];
}

__global__ __launch_bounds__(kThreads) void gate_gradients_kernel(const __grid_constant__ GateArrays a,
                                                                  const float* dL_dgated, const float* dL_dgate,
                                                                  float* dL_dfeatures, float* dL_dlogits) {
    const int64_t i = own_sample();
    if (i >= rows_in_use(a.n_samples, a.count))
        return;
    const float saliency = sigmoid(a.logits[i]), length = length_of(a, i);
    float along = 0.0f;
    for (int64_t f = i * a.n_features; f < (i + 1) * a.n_features; ++f) {
        const float gradient = dL_dgated[f];
        along += gradient * a.features[f];
        dL_dfeatures[f] = saliency * gradient;
    }
    dL_dlogits[i] =
        saliency_vjp(a.sharpness, saliency, length, gate_of(a.sharpness, saliency, length), along, dL_dgate[i]);
}

unsigned blocks_of(int64_t n) { return unsigned(divide_up(n, int64_t(kThreads))); }

} // namespace

void activate(const HeadArrays& a, float* density, float* rgb, cudaStream_t stream) {
    if (a.n_samples == 0)
        return;
    activate_kernel<<<blocks_of(a.n_samples), kThreads, 0, stream>>>(a, density, rgb);
    check_launch("activate");
}

void colour_gradients(int64_t n_samples, const int32_t* count, const float* rgb, const float* dL_drgb,
                      float* dL_dlogits, cudaStream_t stream) {
    if (n_samples == 0)
        return;
    colour_gradients_kernel<<<blocks_of(n_samples), kThreads, 0, stream>>>(n_samples, count, rgb, dL_drgb, dL_dlogits);
    check_launch("colour gradients");
}

void output_gradients(const HeadArrays& a, const OutputGradients& g, cudaStream_t stream) {
    if (a.n_samples == 0)
        return;
    output_gradients_kernel<<<blocks_of(a.n_samples * g.n_outputs), kThreads, 0, stream>>>(a, g);
    check_launch("output gradients");
}

void gate_features(const GateArrays& a, float* gated, float* gate, cudaStream_t stream) {
    if (a.n_samples == 0)
        return;
    gate_kernel<<<blocks_of(a.n_samples), kThreads, 0, stream>>>(a, gated, gate);
    check_launch("gate");
}

void gate_gradients(const GateArrays& a, const float* dL_dgated, const float* dL_dgate, float* dL_dfeatures,
                    float* dL_dlogits, cudaStream_t stream) {
    if (a.n_samples == 0)
        return;
    gate_gradients_kernel<<<blocks_of(a.n_samples), kThreads, 0, stream>>>(a, dL_dgated, dL_dgate, dL_dfeatures,
                                                                           dL_dlogits);
    check_launch("gate gradients");
}

} // namespace kinosplat::gpu
