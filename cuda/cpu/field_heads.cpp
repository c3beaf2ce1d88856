// Density and colour of samples from what networks say, and the gradients back.
#include "math/field_heads.h"

#include <algorithm>

#include "cpu/field_step.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kTask = 2048; // samples

template <class Function>
void for_samples(int64_t n_samples, int n_threads, Function&& function) {
    parallel_for(chunks_of(n_samples, kTask), n_threads, [&](int64_t task, int) {
        for (int64_t i = task * kTask; i < std::min(n_samples, (task + 1) * kTask); ++i)
            function(i);
    });
}

template <class T>
T length_of(const GateArrays<T>& a, int64_t i) {
    const T* features = a.features + i * a.n_features;
    T square = T(0);
    for (int f = 0; f < a.n_features; ++f)
        square += features[f] * features[f];
    return sqrt(square);
}

} // namespace

template <class T>
void activate(const HeadArrays<T>& a, T* density, T* rgb, int n_threads) {
    for_samples(a.n_samples, n_threads, [&](int64_t i) {
        density[i] = density_of(a.outputs[i * a.width], a.density_scale) * (a.gate ? a.gate[i] : T(1));
        for (int c = 0; c < 3; ++c)
            rgb[3 * i + c] = sigmoid(a.colour_logits[3 * i + c]);
    });
}

template <class T>
void colour_gradients(int64_t n_samples, const T* rgb, const T* dL_drgb, T* dL_dlogits, int n_threads) {
    for_samples(n_samples, n_threads, [&](int64_t i) {
        for (int64_t c = 3 * i; c < 3 * i + 3; ++c)
            dL_dlogits[c] = sigmoid_vjp(rgb[c], dL_drgb[c]);
    });
}

template <class T>
void output_gradients(const HeadArrays<T>& a, const OutputGradients<T>& g, int n_threads) {
    for_samples(a.n_samples, n_threads, [&](int64_t i) {
        T* to = g.dL_doutputs + i * g.n_outputs;
        std::copy_n(g.dL_dcolour_inputs + i * g.n_colour_inputs, g.n_outputs, to);
        const T log_density = a.outputs[i * a.width];
        to[0] += g.dL_ddensity[i] * density_slope(log_density, a.density_scale) * (a.gate ? a.gate[i] : T(1));
        if (a.gate)
            g.dL_dgate[i] = g.dL_ddensity[i] * density_of(log_density, a.density_scale);
    });
}

template <class T>
void gate_features(const GateArrays<T>& a, T* gated, T* gate, int n_threads) {
    for_samples(a.n_samples, n_threads, [&](int64_t i) {
        const T saliency = sigmoid(a.logits[i]);
        gate[i] = gate_of(a.sharpness, saliency, length_of(a, i));
        for (int64_t f = i * a.n_features; f < (i + 1) * a.n_features; ++f)
            gated[f] = saliency * a.features[f];
    });
}

template <class T>
void gate_gradients(const GateArrays<T>& a, const T* dL_dgated, const T* dL_dgate, T* dL_dfeatures, T* dL_dlogits,
                    int n_threads) {
    for_samples(a.n_samples, n_threads, [&](int64_t i) {
        const T saliency = sigmoid(a.logits[i]), length = length_of(a, i);
        T along = T(0);
        for (int64_t f = i * a.n_features; f < (i + 1) * a.n_features; ++f) {
            along += dL_dgated[f] * a.features[f];
            dL_dfeatures[f] = saliency * dL_dgated[f];
        }
        dL_dlogits[i] =
            saliency_vjp(a.sharpness, saliency, length, gate_of(a.sharpness, saliency, length), along, dL_dgate[i]);
    });
}

#define KS_INSTANTIATE(T)                                                                                              \
    template void activate(const HeadArrays<T>&, T*, T*, int);                                                         \
    template void colour_gradients(int64_t, const T*, const T*, T*, int);                                              \
    template void output_gradients(const HeadArrays<T>&, const OutputGradients<T>&, int);                              \
    template void gate_features(const GateArrays<T>&, T*, T*, int);                                                    \
    template void gate_gradients(const GateArrays<T>&, const T*, const T*, T*, T*, int);
KS_INSTANTIATE(float)
KS_INSTANTIATE(double)
#undef KS_INSTANTIATE

} // namespace kinosplat::cpu
