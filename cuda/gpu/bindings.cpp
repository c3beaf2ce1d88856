// The submodule kinosplat._native.gpu. A frame takes some forty arrays and a thousand frames a second have to pass
// here, so arrays come as plain addresses in named arguments; render/native_cuda.py checks device, dtype, shape and
// contiguity before.
#include "gpu/bindings.h"

#include <algorithm>
#include <atomic>
#include <nanobind/stl/vector.h>
#include <type_traits>
#include <vector>

#include "gpu/queue.h"
#include "gpu/scratch.h"

namespace kinosplat::gpu {
namespace {

namespace nb = nanobind;

// The sort has 30 bits to count entries with.
constexpr uint32_t kMaxEntries = (1u << 30) - 1;

// An entry of a list has 32 bits: the number of a row, and which of four tiles it hits.
constexpr uint32_t kMaxPairs = (1u << (32 - kQuadBits)) - 1;

template <class T>
struct TypeOf {
    using type = T;
};

// Where a frame's counts arrive; one a thread, for as long as the thread lives.
class Readback {
  public:
    ~Readback() { cudaFreeHost(memory_); }

    HostCounts* prepare() {
        if (!memory_)
            check(cudaHostAlloc(reinterpret_cast<void**>(&memory_), sizeof(HostCounts),
                                cudaHostAllocPortable | cudaHostAllocMapped),
                  "read-back");
        memory_->ready = 0;
        return memory_;
    }

    // What writes them has been launched on `stream`.
    void launched(cudaStream_t stream) {
        stream_ = stream;
        is_coming_ = true;
    }

    // The GPU writes the counts before its kernel ends; now and then the stream is asked whether it failed.
    FrameCounts wait() {
        if (!is_coming_)
            return {}; // there was nothing to project
        is_coming_ = false;
        const volatile uint32_t& ready = memory_->ready;
        while (!ready) {
            for (int k = 0; k < 4096 && !ready; ++k) {
            }
            const cudaError_t status = ready ? cudaErrorNotReady : cudaStreamQuery(stream_);
            if (status == cudaSuccess && !ready)
                throw std::runtime_error("project: the counts did not arrive");
            if (status == cudaErrorNotReady)
                cudaGetLastError(); // it is no error
            else
                check(status, "project");
        }
        std::atomic_thread_fence(std::memory_order_acquire);
        return memory_->counts;
    }

  private:
    HostCounts* memory_ = nullptr;
    cudaStream_t stream_ = nullptr;
    bool is_coming_ = false;
};

Readback& readback() {
    static thread_local Readback of_thread;
    return of_thread;
}

// `projected` is null or an event to be recorded before the rows are sorted.
void run_project(const Frame& frame, const Queue& queue, Address scratch, Address row_memory, Address projected) {
    const PassCall call(queue);
    const cudaStream_t stream = queue.get();
    const auto mark = [&] {
        if (projected)
            check(cudaEventRecord(at<CUevent_st>(projected), stream), "mark");
    };
    readback().wait(); // for a frame that was given up: it must not write later
    if (frame.n_pairs() == 0) {
        mark();
        return;
    }
    size_t n_bytes;
    ProjectScratch project = project_scratch(frame, at<void>(scratch), &n_bytes);
    project.host_counts = readback().prepare();
    project_forward(frame, project, rows(frame, at<void>(row_memory), &n_bytes), stream);
    compact(frame, project, stream);
    readback().launched(stream);
    mark();
    sort_by_depth(frame, project, stream);
}

// Of the frame that this thread projected last; they are there before its rows are sorted.
FrameCounts wait_for_counts(const Queue& queue) {
    const PassCall call(queue);
    return readback().wait();
}

void run_bin(const Frame& frame, const FrameCounts& counts, const Queue& queue, Address project_memory,
             Address row_memory, Address bin_memory, Address list_memory) {
    const PassCall call(queue);
    const cudaStream_t stream = queue.get();
    size_t n_bytes;
    const ProjectScratch project = project_scratch(frame, at<void>(project_memory), &n_bytes);
    const BinScratch scratch = bin_scratch(frame, counts, project, at<void>(bin_memory), &n_bytes);
    const Rows frame_rows = rows(frame, at<void>(row_memory), &n_bytes);
    bin(frame, counts, project, frame_rows, scratch, tile_lists(frame, counts, at<void>(list_memory), &n_bytes),
        stream);
    gather_channels(frame, frame_rows, project.sorted_rows, int(counts.n_rows), stream);
}

void run_blend(const Frame& frame, const FrameCounts& counts, const Queue& queue, Address row_memory,
               Address list_memory, const Pictures& pictures) {
    const PassCall call(queue);
    size_t n_bytes;
    blend_forward(frame, rows(frame, at<void>(row_memory), &n_bytes),
                  tile_lists(frame, counts, at<void>(list_memory), &n_bytes), pictures, queue.get());
}

// Gradients of the rows, in `scratch` and, with one camera, where those of means, quats and log_scales are to be.
void run_blend_backward(const Frame& frame, const FrameCounts& counts, const Queue& queue, Address row_memory,
                        Address list_memory, const Pictures& pictures, const PictureGradients& picture_gradients,
                        Address scratch, const GaussianArrays<float>& gradients) {
    const PassCall call(queue);
    const cudaStream_t stream = queue.get();
    size_t n_bytes;
    const RowGradients by_row = row_gradients(frame, gradients, at<void>(scratch), &n_bytes);
    if (n_bytes > 0)
        check(cudaMemsetAsync(at<void>(scratch), 0, n_bytes, stream), "blend backward");
    if (frame.n_cameras == 1)
        clear_row_gradients(frame, by_row, stream);
    if (counts.n_entries > 0)
        blend_backward(frame, rows(frame, at<void>(row_memory), &n_bytes),
                       tile_lists(frame, counts, at<void>(list_memory), &n_bytes), pictures, picture_gradients, by_row,
                       stream);
}

void run_project_backward(const Frame& frame, const Queue& queue, Address scratch,
                          const GaussianArrays<float>& gradients, Address dL_dworld_to_camera, Address dL_dK) {
    const PassCall call(queue);
    size_t n_bytes;
    project_backward(frame, row_gradients(frame, gradients, at<void>(scratch), &n_bytes), gradients,
                     {at<float>(dL_dworld_to_camera), at<float>(dL_dK)}, queue.get());
}

template <class Number>
GaussianArrays<Number> gaussian_arrays(Address means, Address quats, Address log_scales, Address opacity_logits,
                                       Address sh_dc, Address sh_rest, Address displacements, Address time_centres,
                                       Address log_durations, Address features) {
    return {at<Number>(means),         at<Number>(quats),   at<Number>(log_scales),    at<Number>(opacity_logits),
            at<Number>(sh_dc),         at<Number>(sh_rest), at<Number>(displacements), at<Number>(time_centres),
            at<Number>(log_durations), at<Number>(features)};
}

void bind_frame(nb::module_& module) {
    nb::class_<Queue>(module, "Queue", "A device and one of its streams.")
        .def(nb::init<int, Address>(), nb::arg("device"), nb::arg("stream"))
        .def_ro("device", &Queue::device);

    nb::class_<FrameCounts>(module, "FrameCounts", "What the project pass found.")
        .def_ro("n_rows", &FrameCounts::n_rows)
        .def_ro("n_hits", &FrameCounts::n_hits)
        .def_ro("n_entries", &FrameCounts::n_entries);

    const auto gaussians = [&](auto number, const char* name, const char* doc) {
        using Number = typename decltype(number)::type;
        nb::class_<GaussianArrays<Number>>(module, name, doc)
            .def(
                "__init__",
                [](GaussianArrays<Number>* self, Address means, Address quats, Address log_scales,
                   Address opacity_logits, Address sh_dc, Address sh_rest, Address displacements, Address time_centres,
                   Address log_durations, Address features) {
                    new (self) GaussianArrays<Number>(gaussian_arrays<Number>(means, quats, log_scales, opacity_logits,
                                                                              sh_dc, sh_rest, displacements,
                                                                              time_centres, log_durations, features));
                },
                nb::arg("means") = 0, nb::arg("quats") = 0, nb::arg("log_scales") = 0, nb::arg("opacity_logits") = 0,
                nb::arg("sh_dc") = 0, nb::arg("sh_rest") = 0, nb::arg("displacements") = 0, nb::arg("time_centres") = 0,
                nb::arg("log_durations") = 0, nb::arg("features") = 0);
    };
    gaussians(TypeOf<const float>{}, "GaussianArrays", "Addresses of the parameters; 0 where there is none.");
    gaussians(TypeOf<float>{}, "GaussianGradients", "Addresses of the gradients; 0 where none is wanted.");

    nb::class_<StatisticsArrays>(module, "StatisticsArrays", "Addresses of the accumulators.")
        .def(
            "__init__",
            [](StatisticsArrays* self, Address blend_weight, Address n_pixels, Address screen_gradient, Address n_seen,
               Address max_radius, Address visible) {
                new (self) StatisticsArrays{at<float>(blend_weight), at<int>(n_pixels),     at<float>(screen_gradient),
                                            at<int>(n_seen),         at<float>(max_radius), at<bool>(visible)};
            },
            nb::arg("blend_weight") = 0, nb::arg("n_pixels") = 0, nb::arg("screen_gradient") = 0, nb::arg("n_seen") = 0,
            nb::arg("max_radius") = 0, nb::arg("visible") = 0);

    nb::class_<Frame>(module, "Frame", "Inputs and settings of one frame.")
        .def(
            "__init__",
            [](Frame* self, const GaussianArrays<const float>& gaussians, Address half_sh_rest,
               const StatisticsArrays& statistics, Address world_to_camera, Address K, const std::vector<float>& times,
               Address background, int n_gaussians, int n_cameras, int width, int height, int n_sh_rest, int sh_degree,
               int n_features, float near, float far, bool antialiased, bool depth_channel, bool normal_channel,
               bool packed) {
                Frame* frame = new (self) Frame{};
                frame->gaussians = gaussians;
                frame->half_sh_rest = at<const __half>(half_sh_rest);
                frame->statistics = statistics;
                frame->world_to_camera = at<const float>(world_to_camera);
                frame->K = at<const float>(K);
                frame->background = at<const float>(background);
                std::copy_n(times.begin(), std::min(times.size(), size_t(kMaxCameras)), frame->times);
                frame->n_gaussians = n_gaussians;
                frame->n_cameras = n_cameras;
                frame->width = width;
                frame->height = height;
                frame->n_sh_rest = n_sh_rest;
                frame->sh_degree = sh_degree;
                frame->n_features = n_features;
                frame->near = near;
                frame->far = far;
                frame->antialiased = antialiased;
                frame->depth_channel = depth_channel;
                frame->normal_channel = normal_channel;
                frame->packed = packed;
            },
            nb::arg("gaussians"), nb::arg("half_sh_rest"), nb::arg("statistics"), nb::arg("world_to_camera"),
            nb::arg("K"), nb::arg("times"), nb::arg("background"), nb::arg("n_gaussians"), nb::arg("n_cameras"),
            nb::arg("width"), nb::arg("height"), nb::arg("n_sh_rest"), nb::arg("sh_degree"), nb::arg("n_features"),
            nb::arg("near"), nb::arg("far"), nb::arg("antialiased"), nb::arg("depth_channel"),
            nb::arg("normal_channel"), nb::arg("packed"))
        .def("project_bytes",
             [](const Frame& frame) {
                 size_t n_bytes;
                 project_scratch(frame, nullptr, &n_bytes);
                 return n_bytes;
             })
        .def("row_bytes",
             [](const Frame& frame) {
                 size_t n_bytes;
                 rows(frame, nullptr, &n_bytes);
                 return n_bytes;
             })
        .def("bin_bytes",
             [](const Frame& frame, const FrameCounts& counts) {
                 size_t n_bytes;
                 bin_scratch(frame, counts, project_scratch(frame, nullptr, &n_bytes), nullptr, &n_bytes);
                 return n_bytes;
             })
        .def("list_bytes",
             [](const Frame& frame, const FrameCounts& counts) {
                 size_t n_bytes;
                 tile_lists(frame, counts, nullptr, &n_bytes);
                 return n_bytes;
             })
        .def("row_gradient_bytes", [](const Frame& frame) {
            size_t n_bytes;
            row_gradients(frame, {}, nullptr, &n_bytes);
            return n_bytes;
        });

    nb::class_<Pictures>(module, "Pictures", "Addresses of what is rendered; 0 where it is not wanted.")
        .def(
            "__init__",
            [](Pictures* self, Address rgb, Address alpha, Address channels, Address median_depth) {
                new (self) Pictures{at<float>(rgb), at<float>(alpha), at<float>(channels), at<float>(median_depth)};
            },
            nb::arg("rgb"), nb::arg("alpha"), nb::arg("channels") = 0, nb::arg("median_depth") = 0);

    nb::class_<PictureGradients>(module, "PictureGradients",
                                 "Addresses of the gradients of pictures; 0 stands for zeros.")
        .def(
            "__init__",
            [](PictureGradients* self, Address rgb, Address alpha, Address channels) {
                new (self) PictureGradients{at<const float>(rgb), at<const float>(alpha), at<const float>(channels)};
            },
            nb::arg("rgb"), nb::arg("alpha") = 0, nb::arg("channels") = 0);
}

} // namespace

void bind(nb::module_& module) {
    module.doc() = "Passes of the CUDA backend; arrays are addresses in device memory, shapes are in cuda/gpu/frame.h.";
    // A program that ends while a picture still has its history leaves frames behind; that is no leak to warn of.
    nb::set_leak_warnings(false);
    bind_frame(module);

    module.def("project", &run_project, nb::arg("frame"), nb::arg("queue"), nb::arg("scratch"), nb::arg("rows"),
               nb::arg("projected"), "Visible rows, and their order of depth.");
    module.def("wait_for_counts", &wait_for_counts, nb::arg("queue"),
               "The numbers of rows of what this thread projected last.");
    module.def("bin", &run_bin, nb::arg("frame"), nb::arg("counts"), nb::arg("queue"), nb::arg("project_scratch"),
               nb::arg("rows"), nb::arg("scratch"), nb::arg("lists"), "Lists of what the tiles have to blend.");
    module.def("blend", &run_blend, nb::arg("frame"), nb::arg("counts"), nb::arg("queue"), nb::arg("rows"),
               nb::arg("lists"), nb::arg("pictures"), "Pictures of all cameras.");
    module.def(
        "blend_backward", &run_blend_backward, nb::arg("frame"), nb::arg("counts"), nb::arg("queue"), nb::arg("rows"),
        nb::arg("lists"), nb::arg("pictures"), nb::arg("picture_gradients"), nb::arg("scratch"), nb::arg("gradients"),
        "Gradients of the rows from those of the pictures; with one camera in those of means, quats, log_scales.");
    module.def("project_backward", &run_project_backward, nb::arg("frame"), nb::arg("queue"), nb::arg("scratch"),
               nb::arg("gradients"), nb::arg("dL_dworld_to_camera"), nb::arg("dL_dK"),
               "Gradients of everything that went in from those of the rows.");

    bind_training(module);
    bind_field(module);
    bind_field_step(module);

    module.attr("MAX_ENTRIES") = kMaxEntries;
    module.attr("MAX_PAIRS") = kMaxPairs;
    module.attr("MAX_CAMERAS") = kMaxCameras;
    module.attr("MAX_IMAGE_SIZE") = kMaxImageSize;
}

} // namespace kinosplat::gpu
