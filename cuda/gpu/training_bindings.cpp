// What a training step needs besides the passes of a frame. Each is one call and a few launches, because at the size of
// a video's pictures the host's time is what a step takes; arrays come as addresses, which Python has checked.
#include "gpu/bindings.h"

#include <cmath>
#include <nanobind/stl/vector.h>
#include <stdexcept>
#include <vector>

#include "gpu/adam.h"
#include "gpu/photometric.h"
#include "gpu/queue.h"

namespace kinosplat::gpu {
namespace {

namespace nb = nanobind;

// The tensors of one row set, checked once and stepped many times.
class AdamTable {
  public:
    explicit AdamTable(int64_t n_rows) { rows_.n_rows = n_rows; }

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
        nb::gil_scoped_release release;
        const CurrentDevice current(queue.device);
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

} // namespace

void bind_training(nb::module_& module) {
    module.attr("MAX_ADAM_TENSORS") = kMaxAdamTensors;
    nb::class_<AdamTable>(module, "AdamTable", "Addresses and settings of the tensors of one row set.")
        .def(nb::init<int64_t>(), nb::arg("n_rows"))
        .def("add", &AdamTable::add, nb::arg("row_size"), nb::arg("parameter"), nb::arg("exp_avg"),
             nb::arg("exp_avg_sq"), nb::arg("beta1"), nb::arg("beta2"), nb::arg("eps"))
        .def("step", &AdamTable::step, nb::arg("queue"), nb::arg("gradients"), nb::arg("rates"), nb::arg("step"),
             nb::arg("visible"), nb::arg("dropped"), "One Adam update of all tensors in place.");

    module.def(
        "photometric",
        [](const Queue& queue, int n_images, int height, int width, Address rendered, Address target, Address mask,
           float ssim_weight, Address sums, Address loss, Address squared_error, Address terms, Address dL_drendered) {
            nb::gil_scoped_release release;
            const CurrentDevice current(queue.device);
            photometric({n_images, height, width, at<const float>(rendered), at<const float>(target),
                         at<const float>(mask), ssim_weight, at<PhotometricSums>(sums), at<float>(loss),
                         at<float>(squared_error), at<float>(terms), at<float>(dL_drendered)},
                        queue.get());
        },
        nb::arg("queue"), nb::arg("n_images"), nb::arg("height"), nb::arg("width"), nb::arg("rendered"),
        nb::arg("target"), nb::arg("mask"), nb::arg("ssim_weight"), nb::arg("sums"), nb::arg("loss"),
        nb::arg("squared_error"), nb::arg("terms"), nb::arg("dL_drendered"),
        "The photometric loss, the squared error, and the gradient.");
}

} // namespace kinosplat::gpu
