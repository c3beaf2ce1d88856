// The multilayer perceptron's functions in kinosplat._native.cpu, with arrays by name (cuda/cpu/mlp.h), and in
// kinosplat._native.gpu, with addresses that render/field/native_mlp.py has checked (cuda/gpu/mlp.h).
#include "mlp_bindings.h"

#include <algorithm>
#include <nanobind/stl/vector.h>

#include "cpu/pass_binding.h"

#if KINOSPLAT_HAS_CUDA
#include "gpu/mlp.h"
#endif

namespace kinosplat::cpu {
namespace {

std::string layer_name(const std::string& prefix, int layer) { return prefix + std::to_string(layer); }

MlpShape network_shape(Arguments& a, const std::string& prefix, int64_t n_inputs) {
    const int64_t n_layers = a.integer((prefix + "n_layers").c_str());
    if (n_layers < 1 || n_layers > kMaxMlpLayers)
        throw nb::value_error(("weights must be 1 to " + std::to_string(kMaxMlpLayers) + " matrices, got " +
                               std::to_string(n_layers) + ".")
                                  .c_str());
    MlpShape shape{};
    shape.n_layers = int(n_layers);
    shape.widths[0] = int(n_inputs);
    for (int l = 0; l < shape.n_layers; ++l)
        shape.widths[l + 1] = int(a.size(layer_name(prefix + "weight_", l).c_str(), 0));
    return shape;
}

} // namespace

template <class T>
MlpArrays<T> network(Arguments& a, const std::string& prefix, int64_t n_inputs) {
    MlpArrays<T> m{};
    m.shape = network_shape(a, prefix, n_inputs);
    for (int l = 0; l < m.shape.n_layers; ++l)
        m.weights[l] =
            a.array<const T>(layer_name(prefix + "weight_", l).c_str(), {m.shape.widths[l + 1], m.shape.widths[l]});
    m.packed = a.array<T>((prefix + "packed").c_str(), {mlp_packed_size<T>(m.shape)});
    m.scratch = a.array<T>((prefix + "scratch").c_str(), {threads(a), mlp_block_size<T>(m.shape)});
    return m;
}

template MlpArrays<float> network<float>(Arguments&, const std::string&, int64_t);
template MlpArrays<double> network<double>(Arguments&, const std::string&, int64_t);

namespace {

template <class T>
MlpArrays<T> mlp_arrays(Arguments& a) {
    const int64_t n_samples = a.size("inputs", 0), n_inputs = a.size("inputs", 1);
    const T* inputs = a.array<const T>("inputs", {n_samples, n_inputs});
    MlpArrays<T> m = network<T>(a, "", n_inputs);
    m.n_samples = n_samples;
    m.inputs = inputs;
    return m;
}

template <class T>
void run_mlp_forward(Arguments& a) {
    const MlpArrays<T> arrays = mlp_arrays<T>(a);
    T* outputs = a.array<T>("outputs", {arrays.n_samples, arrays.shape.n_outputs()});
    const PassCall call(a);
    mlp_forward(arrays, outputs, call.n_threads);
}

template <class T>
void run_mlp_backward(Arguments& a) {
    const MlpArrays<T> arrays = mlp_arrays<T>(a);
    const MlpShape& shape = arrays.shape;
    MlpGradients<T> g{};
    g.dL_doutputs = a.array<const T>("dL_doutputs", {arrays.n_samples, shape.n_outputs()});
    g.dL_dinputs = a.optional_array<T>("dL_dinputs", {arrays.n_samples, shape.n_inputs()});
    for (int l = 0; l < shape.n_layers; ++l)
        g.dL_dweights[l] = a.array<T>(layer_name("dL_dweight_", l).c_str(), {shape.widths[l + 1], shape.widths[l]});
    g.partial = a.array<T>("partial", {mlp_chunks(arrays.n_samples), mlp_gradient_size<T>(shape)});
    const PassCall call(a);
    mlp_backward(arrays, g, call.n_threads);
}

// Sizes of all scratch memory, so that Python need not know how it is laid out.
template <class T>
nb::tuple run_mlp_sizes(Arguments& a) {
    const MlpShape shape = network_shape(a, "", a.size("inputs", 1));
    const int64_t n_samples = a.size("inputs", 0);
    a.finish();
    return nb::make_tuple(mlp_packed_size<T>(shape), mlp_block_size<T>(shape),
                          nb::make_tuple(mlp_chunks(n_samples), mlp_gradient_size<T>(shape)));
}

} // namespace

void bind_mlp(nb::module_& module) {
    KS_PASS(mlp_sizes, "inputs", "Numbers of scratch: packed weights, a thread's block, (chunks, gradients).");
    KS_PASS(mlp_forward, "inputs", "Outputs of all samples.");
    KS_PASS(mlp_backward, "inputs", "Gradients of the weights, and of the inputs where wanted.");
    module.attr("MAX_MLP_LAYERS") = kMaxMlpLayers;
}

} // namespace kinosplat::cpu

#if KINOSPLAT_HAS_CUDA
namespace kinosplat::gpu {

MlpShape network_shape(const std::vector<int>& widths) {
    MlpShape shape{int(widths.size()) - 1, {}};
    std::copy(widths.begin(), widths.end(), shape.widths);
    return shape;
}

void set_network(const std::vector<int>& widths, const std::vector<Address>& weights, MlpShape* shape,
                 const float** pointers) {
    *shape = network_shape(widths);
    std::transform(weights.begin(), weights.end(), pointers, at<const float>);
}

namespace {

MlpArrays mlp_arrays(const std::vector<int>& widths, int64_t n_samples, Address inputs, bool half_inputs,
                     const std::vector<Address>& weights, Address count) {
    MlpArrays arrays{};
    set_network(widths, weights, &arrays.shape, arrays.weights);
    arrays.n_samples = n_samples;
    arrays.count = at<const int32_t>(count);
    arrays.inputs = at<void>(inputs);
    arrays.half_inputs = half_inputs;
    return arrays;
}

} // namespace

void bind_mlp(nb::module_& module) {
    module.def(
        "mlp_forward",
        [](const Queue& queue, const std::vector<int>& widths, int64_t n_samples, Address inputs, bool half_inputs,
           const std::vector<Address>& weights, Address outputs, Address count) {
            const PassCall call(queue);
            mlp_forward(mlp_arrays(widths, n_samples, inputs, half_inputs, weights, count), at<float>(outputs),
                        queue.get());
        },
        nb::arg("queue"), nb::arg("widths"), nb::arg("n_samples"), nb::arg("inputs"), nb::arg("half_inputs"),
        nb::arg("weights"), nb::arg("outputs"), nb::arg("count") = 0, "Outputs of all samples.");

    module.def(
        "mlp_backward",
        [](const Queue& queue, const std::vector<int>& widths, int64_t n_samples, Address inputs, bool half_inputs,
           const std::vector<Address>& weights, Address dL_doutputs, Address dL_dinputs,
           const std::vector<Address>& dL_dweights, Address partial, int n_blocks, Address count) {
            const PassCall call(queue);
            MlpGradients gradients{};
            gradients.dL_doutputs = at<const float>(dL_doutputs);
            gradients.dL_dinputs = at<float>(dL_dinputs);
            std::transform(dL_dweights.begin(), dL_dweights.end(), gradients.dL_dweights, at<float>);
            gradients.partial = at<float>(partial);
            gradients.n_blocks = n_blocks;
            mlp_backward(mlp_arrays(widths, n_samples, inputs, half_inputs, weights, count), gradients, queue.get());
        },
        nb::arg("queue"), nb::arg("widths"), nb::arg("n_samples"), nb::arg("inputs"), nb::arg("half_inputs"),
        nb::arg("weights"), nb::arg("dL_doutputs"), nb::arg("dL_dinputs"), nb::arg("dL_dweights"), nb::arg("partial"),
        nb::arg("n_blocks"), nb::arg("count") = 0, "Gradients of the weights, and of the inputs where wanted.");

    module.def(
        "mlp_gradient_blocks",
        [](const Queue& queue, int64_t n_samples) {
            const CurrentDevice current(queue.device);
            return mlp_gradient_blocks(n_samples);
        },
        nb::arg("queue"), nb::arg("n_samples"), "Copies of the gradient of all weights that mlp_backward sums.");

    module.attr("MAX_MLP_LAYERS") = kMaxMlpLayers;
    module.attr("MAX_MLP_WIDTH") = kMaxMlpWidth;
}

} // namespace kinosplat::gpu
#endif
