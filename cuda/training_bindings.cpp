#include "training_bindings.h"

#include "cpu/pass_binding.h"
#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

template <class T>
void run_photometric(Arguments& a) {
    const int64_t n = a.size("rendered", 0), height = a.size("rendered", 1), width = a.size("rendered", 2);
    PhotometricArrays<T> p{};
    p.n_images = n;
    p.width = int(width);
    p.height = int(height);
    p.rendered = a.array<const T>("rendered", {n, height, width, 3});
    p.target = a.array<const T>("target", {n, height, width, 3});
    p.mask = a.optional_array<const T>("mask", {n, height, width});
    p.ssim_weight = T(a.number("ssim_weight"));
    p.inverse_count = T(a.number("inverse_count"));
    p.scratch = a.array<T>("scratch", {threads(a), photometric_scratch(width)});
    p.band_sums = a.array<double>("band_sums", {n, photometric_bands(height), kPhotometricSums});
    p.dL_drendered = a.optional_array<T>("dL_drendered", {n, height, width, 3});
    const PassCall call(a);
    photometric(p, call.n_threads);
}

template <class T>
ExposureArrays<T> exposure_arrays(Arguments& a) {
    ExposureArrays<T> e{};
    const int64_t n = e.n_images = a.size("rgb", 0), height = a.size("rgb", 1), width = a.size("rgb", 2);
    e.n_pixels = height * width;
    e.rgb = a.array<const T>("rgb", {n, height, width, 3});
    e.exposures = a.optional_array<const T>("exposures", {n, 3, 4});
    e.target = a.optional_array<const T>("target", {n, height, width, 3});
    e.saturated = T(a.number("saturated"));
    return e;
}

template <class T>
void run_expose(Arguments& a) {
    const ExposureArrays<T> arrays = exposure_arrays<T>(a);
    T* shown = a.array<T>("shown", {arrays.n_images, a.size("rgb", 1), a.size("rgb", 2), 3});
    const PassCall call(a);
    expose(arrays, shown, call.n_threads);
}

template <class T>
void run_expose_backward(Arguments& a) {
    const ExposureArrays<T> arrays = exposure_arrays<T>(a);
    const int64_t n = arrays.n_images, height = a.size("rgb", 1), width = a.size("rgb", 2);
    const T* dL_dshown = a.array<const T>("dL_dshown", {n, height, width, 3});
    T* dL_drgb = a.array<T>("dL_drgb", {n, height, width, 3});
    T* dL_dexposures = a.optional_array<T>("dL_dexposures", {n, 3, 4});
    const PassCall call(a);
    expose_backward(arrays, dL_dshown, dL_drgb, dL_dexposures, call.n_threads);
}

void run_compose_target(Arguments& a) {
    const int64_t height = a.size("pixels", 0), width = a.size("pixels", 1), n_channels = a.size("pixels", 2);
    if (n_channels != 3 && n_channels != 4)
        throw nb::value_error("pixels must have 3 or 4 channels.");
    TargetArrays t{};
    t.n_pixels = height * width;
    t.n_channels = int(n_channels);
    t.pixels = a.array<const uint8_t>("pixels", {height, width, n_channels});
    t.mask = a.optional_array<const uint8_t>("mask", {height, width});
    t.mask_cuts_out = a.flag("mask_cuts_out");
    t.background = a.array<const float>("background", {3});
    t.rgb = a.array<float>("rgb", {height, width, 3});
    t.alpha = a.optional_array<float>("alpha", {height, width});
    t.weight = a.optional_array<float>("weight", {height, width});
    const PassCall call(a);
    compose_target(t, call.n_threads);
}

template <class T>
double run_alpha_difference(Arguments& a) {
    const int64_t n = a.size("rendered", 0), height = a.size("rendered", 1), width = a.size("rendered", 2);
    AlphaDifferenceArrays<T> d{};
    d.n_pixels = n * height * width;
    d.rendered = a.array<const T>("rendered", {n, height, width});
    d.target = a.array<const T>("target", {n, height, width});
    d.mask = a.optional_array<const T>("mask", {n, height, width});
    d.scale = T(a.number("scale"));
    d.dL_drendered = a.array<T>("dL_drendered", {n, height, width});
    const PassCall call(a);
    return alpha_difference(d, call.n_threads);
}

template <class T>
int64_t run_keep_finite_rows(Arguments& a) {
    const int64_t n = a.size("numbers", 0), size = a.size("numbers", 1);
    const T* numbers = a.array<const T>("numbers", {n, size});
    const bool* asked = a.optional_array<const bool>("asked", {n});
    const bool sparse = a.flag("sparse");
    bool* rows = a.array<bool>("rows", {n});
    const PassCall call(a);
    return keep_finite_rows(n, size, numbers, asked, sparse, rows, call.n_threads);
}

template <class T>
void run_adam_step(Arguments& a) {
    AdamArrays<T> arrays{};
    const int64_t n = arrays.n_rows = a.size("parameter", 0);
    const int64_t size = arrays.row_size = a.size("parameter", 1);
    arrays.parameter = a.array<T>("parameter", {n, size});
    arrays.gradient = a.array<const T>("gradient", {n, size});
    arrays.first = a.array<T>("exp_avg", {n, size});
    arrays.second = a.array<T>("exp_avg_sq", {n, size});
    arrays.visible = a.optional_array<const bool>("visible", {n});
    const double beta1 = a.number("beta1"), beta2 = a.number("beta2");
    AdamSettings<T> settings{};
    settings.beta1 = T(beta1);
    settings.beta2 = T(beta2);
    settings.one_minus_beta1 = T(1 - beta1);
    settings.one_minus_beta2 = T(1 - beta2);
    settings.epsilon = T(a.number("eps"));
    settings.step_size = T(a.number("step_size"));
    settings.inverse_sqrt_second_correction = T(a.number("inverse_sqrt_second_correction"));
    const PassCall call(a);
    adam_step(arrays, settings, call.n_threads);
}

template <class T>
void run_shake(Arguments& a) {
    ShakeArrays<T> s{};
    const int64_t n = s.n = a.size("means", 0);
    s.means = a.array<T>("means", {n, 3});
    s.quats = a.array<const T>("quats", {n, 4});
    s.log_scales = a.array<const T>("log_scales", {n, 3});
    s.opacity_logits = a.array<const T>("opacity_logits", {n});
    s.strength = T(a.number("strength"));
    s.key = uint64_t(a.integer("key"));
    const PassCall call(a);
    shake(s, call.n_threads);
}

template <class T>
PenaltyArrays<T> penalty_arrays(Arguments& a) {
    PenaltyArrays<T> p{};
    const int64_t n = p.n = a.size("log_scales", 0);
    p.opacity_logits = a.array<const T>("opacity_logits", {n});
    p.log_scales = a.array<const T>("log_scales", {n, 3});
    p.visible = a.array<const bool>("visible", {n});
    p.time_centres = a.optional_array<const T>("time_centres", {n});
    p.log_durations = a.optional_array<const T>("log_durations", {n});
    p.times = a.array<const T>("times", {-1});
    p.n_times = int(a.size("times", 0));
    return p;
}

template <class T>
void run_penalties(Arguments& a) {
    const PenaltyArrays<T> arrays = penalty_arrays<T>(a);
    T* sums = a.array<T>("sums", {2});
    const PenaltyTotals<T> add_to{{T(a.number("dL_dopacity")), T(a.number("dL_dscale"))},
                                  a.optional_array<T>("add_to_opacity_logits", {arrays.n}),
                                  a.optional_array<T>("add_to_log_scales", {arrays.n, 3})};
    if (!add_to.opacity_logits != !add_to.log_scales)
        throw nb::value_error("add_to_opacity_logits and add_to_log_scales must be given together.");
    const PassCall call(a);
    penalties(arrays, sums, add_to, call.n_threads);
}

template <class T>
void run_penalties_backward(Arguments& a) {
    const PenaltyArrays<T> arrays = penalty_arrays<T>(a);
    const PenaltyPoint<T> dL_dsums{T(a.number("dL_dopacity")), T(a.number("dL_dscale"))};
    T* dL_dopacity_logits = a.array<T>("dL_dopacity_logits", {arrays.n});
    T* dL_dlog_scales = a.array<T>("dL_dlog_scales", {arrays.n, 3});
    const PassCall call(a);
    penalties_backward(arrays, dL_dsums, dL_dopacity_logits, dL_dlog_scales, call.n_threads);
}

} // namespace

void bind_training(nb::module_& module) {
    KS_PASS(photometric, "rendered", "L1 and SSIM sums, and the gradient of the loss.");
    KS_PASS(expose, "rgb", "Colours as the cameras show them.");
    KS_PASS(expose_backward, "rgb", "Gradients of the colours and of the exposures.");
    KS_SINGLE_PASS(compose_target, "What a rendering should look like, from a picture's bytes.");
    KS_PASS(alpha_difference, "rendered", "Weighted mean difference of alphas, and its gradient.");
    KS_PASS(keep_finite_rows, "numbers",
            "Rows of those asked for to be moved; returns how many have numbers that are not finite.");
    KS_PASS(adam_step, "parameter", "One Adam update in place.");
    KS_PASS(shake, "means", "Adds noise to positions in place.");
    KS_PASS(penalties, "log_scales", "Sums of opacities and of scales in view; adds their gradients to others.");
    KS_PASS(penalties_backward, "log_scales", "Gradients from those of the two sums.");

    module.def("photometric_scratch", &photometric_scratch, "Numbers of scratch a thread needs for that width.");
    module.def("photometric_bands", &photometric_bands, "Bands in a picture of that height.");
}

} // namespace kinosplat::cpu
