// Passes of hash-grid fields in kinosplat._native.gpu; arrays come as addresses, which Python has checked
// (render/field/native_cuda.py), layouts as the objects that cuda/field_bindings.cpp binds.
#include "gpu/bindings.h"

#include "gpu/field.h"
#include "gpu/queue.h"

namespace kinosplat::gpu {
namespace {

namespace nb = nanobind;

void bind_encoding(nb::module_& module) {
    module.def(
        "encode_forward",
        [](const Queue& queue, const HashGrid& grid, int64_t n_samples, Address positions, Address table,
           bool half_table, Address features, bool half_features, Address sparse_headers, Address sparse_words,
           Address count) {
            const PassCall call(queue);
            encode_forward({grid,
                            n_samples,
                            at<const int32_t>(count),
                            at<const float>(positions),
                            at<const void>(table),
                            half_table,
                            {at<const SparseHeader>(sparse_headers), at<const uint32_t>(sparse_words)}},
                           at<void>(features), half_features, queue.get());
        },
        nb::arg("queue"), nb::arg("grid"), nb::arg("n_samples"), nb::arg("positions"), nb::arg("table"),
        nb::arg("half_table"), nb::arg("features"), nb::arg("half_features"), nb::arg("sparse_headers") = 0,
        nb::arg("sparse_words") = 0, nb::arg("count") = 0, "Features of positions.");

    module.def(
        "encode_backward",
        [](const Queue& queue, const HashGrid& grid, int64_t n_samples, Address positions, Address table,
           bool half_table, Address dL_dfeatures, Address dL_dtable, Address dL_dpositions, Address count) {
            const PassCall call(queue);
            encode_backward({grid,
                             n_samples,
                             at<const int32_t>(count),
                             at<const float>(positions),
                             at<const void>(table),
                             half_table,
                             {}},
                            {at<const float>(dL_dfeatures), at<float>(dL_dtable), at<float>(dL_dpositions)},
                            queue.get());
        },
        nb::arg("queue"), nb::arg("grid"), nb::arg("n_samples"), nb::arg("positions"), nb::arg("table"),
        nb::arg("half_table"), nb::arg("dL_dfeatures"), nb::arg("dL_dtable"), nb::arg("dL_dpositions"),
        nb::arg("count") = 0, "Adds the gradient of the table, writes that of the positions.");

    module.def(
        "sh_forward",
        [](const Queue& queue, int64_t n_samples, int n_degrees, Address directions, Address values) {
            const PassCall call(queue);
            sh_forward(n_samples, n_degrees, at<const float>(directions), at<float>(values), queue.get());
        },
        nb::arg("queue"), nb::arg("n_samples"), nb::arg("n_degrees"), nb::arg("directions"), nb::arg("values"),
        "Spherical harmonics of directions.");

    module.def(
        "sh_backward",
        [](const Queue& queue, int64_t n_samples, int n_degrees, Address directions, Address dL_dvalues,
           Address dL_ddirections) {
            const PassCall call(queue);
            sh_backward(n_samples, n_degrees, at<const float>(directions), at<const float>(dL_dvalues),
                        at<float>(dL_ddirections), queue.get());
        },
        nb::arg("queue"), nb::arg("n_samples"), nb::arg("n_degrees"), nb::arg("directions"), nb::arg("dL_dvalues"),
        nb::arg("dL_ddirections"), "Gradients of the directions.");
}

void bind_marching(nb::module_& module) {
    nb::class_<RayArrays>(module, "RayArrays", "Addresses of rays; 0 for what only marching reads.")
        .def(
            "__init__",
            [](RayArrays* self, int64_t n_rays, Address origins, Address directions, Address near, Address far,
               Address jitter) {
                new (self) RayArrays{n_rays,
                                     at<const float>(origins),
                                     at<const float>(directions),
                                     at<const float>(near),
                                     at<const float>(far),
                                     at<const float>(jitter)};
            },
            nb::arg("n_rays"), nb::arg("origins"), nb::arg("directions"), nb::arg("near") = 0, nb::arg("far") = 0,
            nb::arg("jitter") = 0);

    module.def(
        "occupied_blocks",
        [](const Queue& queue, const Marching<double>& marching, Address bits, Address blocks) {
            const PassCall call(queue);
            occupied_blocks(marching.resolution, marching.space.n_cascades, at<const uint8_t>(bits),
                            at<uint8_t>(blocks), queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("bits"), nb::arg("blocks"),
        "Which blocks of cells have an occupied one.");

    module.def(
        "march_count",
        [](const Queue& queue, const Marching<double>& marching, Address bits, Address blocks, const RayArrays& rays,
           Address counts, Address n_visited) {
            const PassCall call(queue);
            march_count(marching.as<float>(), {at<const uint8_t>(bits), at<const uint8_t>(blocks)}, rays,
                        at<int32_t>(counts), at<int32_t>(n_visited), queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("bits"), nb::arg("blocks"), nb::arg("rays"), nb::arg("counts"),
        nb::arg("n_visited"), "Number of samples on each ray.");

    module.def(
        "march_write",
        [](const Queue& queue, const Marching<double>& marching, Address bits, Address blocks, const RayArrays& rays,
           Address offsets, Address t, Address dt) {
            const PassCall call(queue);
            march_write(marching.as<float>(), {at<const uint8_t>(bits), at<const uint8_t>(blocks)}, rays,
                        at<const int64_t>(offsets), at<float>(t), at<float>(dt), queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("bits"), nb::arg("blocks"), nb::arg("rays"), nb::arg("offsets"),
        nb::arg("t"), nb::arg("dt"), "The samples of all rays.");

    nb::class_<BlockList>(module, "BlockList", "Addresses of the occupied blocks of a picture, front to back.")
        .def(
            "__init__",
            [](BlockList* self, int n, int width, int height, Address blocks, Address rectangles) {
                new (self) BlockList{n, width, height, at<const int32_t>(blocks), at<const int4>(rectangles)};
            },
            nb::arg("n"), nb::arg("width"), nb::arg("height"), nb::arg("blocks"), nb::arg("rectangles"));

    module.def(
        "march_blocks_count",
        [](const Queue& queue, const Marching<double>& marching, Address bits, Address blocks, const RayArrays& rays,
           const BlockList& list, Address counts, Address n_visited) {
            const PassCall call(queue);
            march_blocks_count(marching.as<float>(), {at<const uint8_t>(bits), at<const uint8_t>(blocks)}, rays, list,
                               at<int32_t>(counts), at<int32_t>(n_visited), queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("bits"), nb::arg("blocks"), nb::arg("rays"), nb::arg("list"),
        nb::arg("counts"), nb::arg("n_visited"), "Number of samples on each ray of a picture.");

    module.def(
        "march_blocks_write",
        [](const Queue& queue, const Marching<double>& marching, Address bits, Address blocks, const RayArrays& rays,
           const BlockList& list, Address offsets, Address t, Address dt) {
            const PassCall call(queue);
            march_blocks_write(marching.as<float>(), {at<const uint8_t>(bits), at<const uint8_t>(blocks)}, rays, list,
                               at<const int64_t>(offsets), at<float>(t), at<float>(dt), queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("bits"), nb::arg("blocks"), nb::arg("rays"), nb::arg("list"),
        nb::arg("offsets"), nb::arg("t"), nb::arg("dt"), "The samples of all rays of a picture.");

    module.def(
        "sample_points",
        [](const Queue& queue, const Marching<double>& marching, const RayArrays& rays, Address offsets, Address t,
           Address dt, Address positions, Address directions) {
            const PassCall call(queue);
            sample_points(marching.as<float>().space, rays, at<const int64_t>(offsets), at<const float>(t),
                          at<const float>(dt), at<float>(positions), at<float>(directions), queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("rays"), nb::arg("offsets"), nb::arg("t"), nb::arg("dt"),
        nb::arg("positions"), nb::arg("directions"), "Grid positions and directions of samples.");
}

void bind_compositing(nb::module_& module) {
    nb::class_<CompositeArrays>(module, "CompositeArrays", "Addresses of samples and of what rays see of them.")
        .def(
            "__init__",
            [](CompositeArrays* self, int64_t n_rays, Address offsets, Address density, Address t, Address dt,
               Address rgb, float stop, Address out_rgb, Address alpha, Address depth, Address distortion,
               Address n_used) {
                new (self) CompositeArrays{n_rays,
                                           at<const int64_t>(offsets),
                                           at<const float>(density),
                                           at<const float>(t),
                                           at<const float>(dt),
                                           at<const float>(rgb),
                                           stop,
                                           at<float>(out_rgb),
                                           at<float>(alpha),
                                           at<float>(depth),
                                           at<float>(distortion),
                                           at<int32_t>(n_used)};
            },
            nb::arg("n_rays"), nb::arg("offsets"), nb::arg("density"), nb::arg("t"), nb::arg("dt"), nb::arg("rgb"),
            nb::arg("stop"), nb::arg("out_rgb"), nb::arg("alpha"), nb::arg("depth"), nb::arg("distortion"),
            nb::arg("n_used"));

    module.def(
        "composite_forward",
        [](const Queue& queue, const CompositeArrays& arrays) {
            const PassCall call(queue);
            composite_forward(arrays, queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), "Colour, alpha, depth and distortion of rays.");

    module.def(
        "composite_backward",
        [](const Queue& queue, const CompositeArrays& arrays, Address dL_drgb, Address dL_dalpha, Address dL_ddepth,
           Address dL_ddistortion, Address dL_ddensity, Address dL_dsample_rgb) {
            const PassCall call(queue);
            composite_backward(arrays,
                               {at<const float>(dL_drgb), at<const float>(dL_dalpha), at<const float>(dL_ddepth),
                                at<const float>(dL_ddistortion), at<float>(dL_ddensity), at<float>(dL_dsample_rgb)},
                               queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), nb::arg("dL_drgb"), nb::arg("dL_dalpha"), nb::arg("dL_ddepth"),
        nb::arg("dL_ddistortion"), nb::arg("dL_ddensity"), nb::arg("dL_dsample_rgb"), "Gradients of the samples.");
}

void bind_occupancy(nb::module_& module) {
    module.def(
        "occupancy_update",
        [](const Queue& queue, int64_t n_cells, float decay, int64_t n_values, Address cells, Address values,
           Address density) {
            const PassCall call(queue);
            occupancy_update(n_cells, decay, n_values, at<const int64_t>(cells), at<const float>(values),
                             at<float>(density), queue.get());
        },
        nb::arg("queue"), nb::arg("n_cells"), nb::arg("decay"), nb::arg("n_values"), nb::arg("cells"),
        nb::arg("values"), nb::arg("density"), "Lets the density of cells decay and raises that of some.");

    module.def(
        "occupancy_pack",
        [](const Queue& queue, int64_t n_cells, Address density, Address threshold, Address bits) {
            const PassCall call(queue);
            occupancy_pack(n_cells, at<const float>(density), at<const float>(threshold), at<uint8_t>(bits),
                           queue.get());
        },
        nb::arg("queue"), nb::arg("n_cells"), nb::arg("density"), nb::arg("threshold"), nb::arg("bits"),
        "One bit a cell.");
}

} // namespace

void bind_field(nb::module_& module) {
    bind_encoding(module);
    bind_marching(module);
    bind_compositing(module);
    bind_occupancy(module);
}

} // namespace kinosplat::gpu
