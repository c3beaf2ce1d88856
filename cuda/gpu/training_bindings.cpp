// What a training step needs besides the passes of a frame. Each is one call and a few launches, because at the size of
// a video's pictures the host's time is what a step takes; arrays come as addresses, which Python has checked.
#include "gpu/bindings.h"

#include <algorithm>
#include <cmath>
#include <nanobind/stl/vector.h>
#include <stdexcept>
#include <vector>

#include "gpu/adam.h"
#include "gpu/alpha_difference.h"
#include "gpu/exposure.h"
#include "gpu/mcmc.h"
#include "gpu/photometric.h"
#include "gpu/queue.h"
#include "gpu/target.h"

namespace kinosplat::gpu {
namespace {

namespace nb = nanobind;

// The tensors of one row set, checked once and stepped many times.
class AdamTable {
  public:
    AdamTable(int64_t n_rows, bool sparse) {
        rows_.n_rows = n_rows;
        rows_.sparse = sparse;
    }

    void add(int64_t row_size, Address parameter, Address exp_avg, Address exp_avg_sq, double beta1, double beta2,
             double epsilon) {
        if (entries_.size() == size_t(kMaxAdamTensors))
            throw std::length_error("a row set has too many tensors");
        entries_.push_back({at<float>(parameter), at<float>(exp_avg), at<float>(exp_avg_sq), uint32_t(row_size), beta1,
                            beta2, epsilon});
    }

    // A tensor without a gradient (address 0) stays as it is.
    void step(const Queue& queue, const std::vector<Address>& gradients, const std::vector<double>& rates, int64_t step,
              Address visible, Address dropped) {
        if (gradients.size() != entries_.size() || rates.size() != entries_.size())
            throw std::invalid_argument("a row set needs one gradient and one rate a tensor");
        const PassCall call(queue);
        rows_.visible = at<const bool>(visible);
        rows_.dropped = at<DroppedCounts>(dropped);
        rows_.step = uint64_t(step);
        rows_.n_tensors = 0;
        for (size_t i = 0; i < entries_.size(); ++i) {
            const Entry& e = entries_[i];
            if (!gradients[i] || e.row_size == 0)
                continue;
            const double correction1 = 1 - std::pow(e.beta1, double(step));
            const double correction2 = 1 - std::pow(e.beta2, double(step));
            rows_.tensors[rows_.n_tensors++] = {e.parameter,
                                                at<const float>(gradients[i]),
                                                e.first,
                                                e.second,
                                                e.row_size,
                                                {float(e.beta1), float(e.beta2), float(1 - e.beta1), float(1 - e.beta2),
                                                 float(e.epsilon), float(rates[i] / correction1),
                                                 float(1 / std::sqrt(correction2))}};
        }
        adam_step(rows_, queue.get());
    }

  private:
    struct Entry {
        float *parameter, *first, *second;
        uint32_t row_size;
        double beta1, beta2, epsilon;
    };
    std::vector<Entry> entries_;
    AdamRows rows_{};
};

PenaltyArrays penalty_arrays(int n, Address opacity_logits, Address log_scales, Address visible, Address time_centres,
                             Address log_durations, const std::vector<float>& times, float opacity_weight,
                             float scale_weight) {
    PenaltyArrays a{n,
                    at<const float>(opacity_logits),
                    at<const float>(log_scales),
                    at<const bool>(visible),
                    at<const float>(time_centres),
                    at<const float>(log_durations),
                    int(std::min(times.size(), size_t(kMaxCameras))),
                    {},
                    opacity_weight,
                    scale_weight};
    std::copy_n(times.begin(), a.n_times, a.times);
    return a;
}

} // namespace

void bind_training(nb::module_& module) {
    module.attr("MAX_ADAM_TENSORS") = kMaxAdamTensors;
    nb::class_<AdamTable>(module, "AdamTable", "Addresses and settings of the tensors of one row set.")
        .def(nb::init<int64_t, bool>(), nb::arg("n_rows"), nb::arg("sparse"))
        .def("add", &AdamTable::add, nb::arg("row_size"), nb::arg("parameter"), nb::arg("exp_avg"),
             nb::arg("exp_avg_sq"), nb::arg("beta1"), nb::arg("beta2"), nb::arg("eps"))
        .def("step", &AdamTable::step, nb::arg("queue"), nb::arg("gradients"), nb::arg("rates"), nb::arg("step"),
             nb::arg("visible"), nb::arg("dropped"), "One Adam update of all tensors in place.");

    module.def(
        "photometric",
        [](const Queue& queue, int n_images, int height, int width, Address rendered, Address target, Address mask,
           float ssim_weight, Address sums, Address loss, Address squared_error, Address terms, Address dL_drendered) {
            const PassCall call(queue);
            photometric({n_images, height, width, at<const float>(rendered), at<const float>(target),
                         at<const float>(mask), ssim_weight, at<PhotometricSums>(sums), at<float>(loss),
                         at<float>(squared_error), at<float>(terms), at<float>(dL_drendered)},
                        queue.get());
        },
        nb::arg("queue"), nb::arg("n_images"), nb::arg("height"), nb::arg("width"), nb::arg("rendered"),
        nb::arg("target"), nb::arg("mask"), nb::arg("ssim_weight"), nb::arg("sums"), nb::arg("loss"),
        nb::arg("squared_error"), nb::arg("terms"), nb::arg("dL_drendered"),
        "The photometric loss, the squared error, and the gradient.");

    module.def(
        "expose",
        [](const Queue& queue, int n_images, int n_pixels, Address rgb, Address exposures, Address target,
           float saturated, Address shown) {
            const PassCall call(queue);
            expose({n_images, n_pixels, at<const float>(rgb), at<const float>(exposures), at<const float>(target),
                    saturated},
                   at<float>(shown), queue.get());
        },
        nb::arg("queue"), nb::arg("n_images"), nb::arg("n_pixels"), nb::arg("rgb"), nb::arg("exposures"),
        nb::arg("target"), nb::arg("saturated"), nb::arg("shown"), "Colours as the cameras show them.");

    module.def(
        "expose_backward",
        [](const Queue& queue, int n_images, int n_pixels, Address rgb, Address exposures, Address target,
           float saturated, Address dL_dshown, Address dL_drgb, Address dL_dexposures) {
            const PassCall call(queue);
            expose_backward({n_images, n_pixels, at<const float>(rgb), at<const float>(exposures),
                             at<const float>(target), saturated},
                            at<const float>(dL_dshown), at<float>(dL_drgb), at<float>(dL_dexposures), queue.get());
        },
        nb::arg("queue"), nb::arg("n_images"), nb::arg("n_pixels"), nb::arg("rgb"), nb::arg("exposures"),
        nb::arg("target"), nb::arg("saturated"), nb::arg("dL_dshown"), nb::arg("dL_drgb"), nb::arg("dL_dexposures"),
        "Gradients of the colours and of the exposures.");

    module.def(
        "compose_target",
        [](const Queue& queue, int n_pixels, int n_channels, Address pixels, Address mask, bool mask_cuts_out,
           Address background, Address rgb, Address alpha, Address weight) {
            const PassCall call(queue);
            compose_target({n_pixels, n_channels, at<const uint8_t>(pixels), at<const uint8_t>(mask), mask_cuts_out,
                            at<const float>(background), at<float>(rgb), at<float>(alpha), at<float>(weight)},
                           queue.get());
        },
        nb::arg("queue"), nb::arg("n_pixels"), nb::arg("n_channels"), nb::arg("pixels"), nb::arg("mask"),
        nb::arg("mask_cuts_out"), nb::arg("background"), nb::arg("rgb"), nb::arg("alpha"), nb::arg("weight"),
        "What a rendering should look like, from a picture's bytes.");

    module.def(
        "alpha_difference",
        [](const Queue& queue, int64_t n_pixels, Address rendered, Address target, Address mask, float scale,
           Address loss, Address dL_drendered) {
            const PassCall call(queue);
            alpha_difference({n_pixels, at<const float>(rendered), at<const float>(target), at<const float>(mask),
                              scale, at<float>(loss), at<float>(dL_drendered)},
                             queue.get());
        },
        nb::arg("queue"), nb::arg("n_pixels"), nb::arg("rendered"), nb::arg("target"), nb::arg("mask"),
        nb::arg("scale"), nb::arg("loss"), nb::arg("dL_drendered"),
        "Weighted mean difference of alphas, and its gradient.");

    module.def(
        "shake",
        [](const Queue& queue, int n, Address means, Address quats, Address log_scales, Address opacity_logits,
           float strength, uint64_t key) {
            const PassCall call(queue);
            shake({n, at<float>(means), at<const float>(quats), at<const float>(log_scales),
                   at<const float>(opacity_logits), strength, key},
                  queue.get());
        },
        nb::arg("queue"), nb::arg("n"), nb::arg("means"), nb::arg("quats"), nb::arg("log_scales"),
        nb::arg("opacity_logits"), nb::arg("strength"), nb::arg("key"), "Adds noise to positions in place.");

    nb::class_<PenaltyArrays>(module, "PenaltyArrays", "What the penalties depend on.")
        .def(
            "__init__",
            [](PenaltyArrays* self, int n, Address opacity_logits, Address log_scales, Address visible,
               Address time_centres, Address log_durations, const std::vector<float>& times, float opacity_weight,
               float scale_weight) {
                new (self) PenaltyArrays(penalty_arrays(n, opacity_logits, log_scales, visible, time_centres,
                                                        log_durations, times, opacity_weight, scale_weight));
            },
            nb::arg("n"), nb::arg("opacity_logits"), nb::arg("log_scales"), nb::arg("visible"), nb::arg("time_centres"),
            nb::arg("log_durations"), nb::arg("times"), nb::arg("opacity_weight"), nb::arg("scale_weight"));

    module.def(
        "penalties",
        [](const Queue& queue, const PenaltyArrays& arrays, Address sums, Address add_to_opacity_logits,
           Address add_to_log_scales) {
            const PassCall call(queue);
            penalties(arrays, at<float>(sums), at<float>(add_to_opacity_logits), at<float>(add_to_log_scales),
                      queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), nb::arg("sums"), nb::arg("add_to_opacity_logits"),
        nb::arg("add_to_log_scales"),
        "The weighted sums of opacities and of scales in view; adds their gradients to two others, where given.");

    module.def(
        "penalties_backward",
        [](const Queue& queue, const PenaltyArrays& arrays, Address dL_dopacity, Address dL_dscale,
           Address dL_dopacity_logits, Address dL_dlog_scales) {
            const PassCall call(queue);
            penalties_backward(arrays, at<const float>(dL_dopacity), at<const float>(dL_dscale),
                               at<float>(dL_dopacity_logits), at<float>(dL_dlog_scales), queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), nb::arg("dL_dopacity"), nb::arg("dL_dscale"),
        nb::arg("dL_dopacity_logits"), nb::arg("dL_dlog_scales"), "Gradients from those of the two sums.");
}

} // namespace kinosplat::gpu
