// Passes of a field's training step in kinosplat._native.gpu; arrays come as addresses, which Python has checked
// (render/field/native_cuda_step.py).
#include "gpu/bindings.h"

#include <algorithm>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <stdexcept>

#include "gpu/field_step.h"
#include "gpu/queue.h"

namespace kinosplat::gpu {
namespace {

namespace nb = nanobind;

PlaceChain place_chain(Address status, Address ticket, Address counts) {
    return {at<uint64_t>(status), at<uint32_t>(ticket), at<BufferCounts>(counts)};
}

void bind_rays(nb::module_& module) {
    module.attr("POOL_BYTES") = kPoolBytes;
    nb::class_<PixelPool>(module, "PixelPool", "Addresses of many pictures and their cameras.")
        .def(
            "__init__",
            [](PixelPool* self, int64_t n_slots, int64_t slot_pixels, Address data, Address view_of_slot, Address sizes,
               Address inverse_K, Address world_to_camera, Address background) {
                new (self) PixelPool{n_slots,
                                     slot_pixels,
                                     at<const uint8_t>(data),
                                     at<const int64_t>(view_of_slot),
                                     at<const int64_t>(sizes),
                                     at<const float>(inverse_K),
                                     at<const float>(world_to_camera),
                                     at<const float>(background)};
            },
            nb::arg("n_slots"), nb::arg("slot_pixels"), nb::arg("data"), nb::arg("view_of_slot"), nb::arg("sizes"),
            nb::arg("inverse_K"), nb::arg("world_to_camera"), nb::arg("background"));

    module.def(
        "draw_rays",
        [](const Queue& queue, const PixelPool& pool, uint64_t key, int64_t n_rays, Address origins, Address directions,
           Address target, Address background, Address views, Address places, Address jitter, Address weight) {
            const PassCall call(queue);
            draw_rays(pool,
                      {n_rays, at<float>(origins), at<float>(directions), at<float>(target), at<float>(background),
                       at<int64_t>(views), at<float>(places), at<float>(jitter), at<float>(weight)},
                      key, queue.get());
        },
        nb::arg("queue"), nb::arg("pool"), nb::arg("key"), nb::arg("n_rays"), nb::arg("origins"), nb::arg("directions"),
        nb::arg("target"), nb::arg("background"), nb::arg("views"), nb::arg("places"), nb::arg("jitter"),
        nb::arg("weight"), "Rays through pixels drawn at random, and what should be seen along them.");

    module.def(
        "ray_difference",
        [](const Queue& queue, int64_t n_rays, Address counts, Address rgb, Address alpha, Address background,
           Address target, Address distortion, Address weight, Address total, float huber, float distortion_weight,
           Address dL_drgb, Address dL_dalpha, Address dL_ddistortion, Address sums) {
            const PassCall call(queue);
            ray_difference({n_rays, at<const BufferCounts>(counts), at<const float>(rgb), at<const float>(alpha),
                            at<const float>(background), at<const float>(target), at<const float>(distortion),
                            at<const float>(weight), at<const float>(total), huber, distortion_weight,
                            at<float>(dL_drgb), at<float>(dL_dalpha), at<float>(dL_ddistortion), at<float>(sums)},
                           queue.get());
        },
        nb::arg("queue"), nb::arg("n_rays"), nb::arg("counts"), nb::arg("rgb"), nb::arg("alpha"), nb::arg("background"),
        nb::arg("target"), nb::arg("distortion"), nb::arg("weight"), nb::arg("total"), nb::arg("huber"),
        nb::arg("distortion_weight"), nb::arg("dL_drgb"), nb::arg("dL_dalpha"), nb::arg("dL_ddistortion"),
        nb::arg("sums"), "Adds the losses of colour and distortion, and the squared error; writes gradients.");
}

void bind_buffers(nb::module_& module) {
    module.def("buffer_blocks", &buffer_blocks, nb::arg("n_rays"), "Words of status that a chain of rays needs.");

    module.def(
        "march_into",
        [](const Queue& queue, const Marching<double>& marching, Address bits, Address blocks, int64_t n_rays,
           int64_t capacity, Address origins, Address directions, Address jitter, float near, Address status,
           Address ticket, Address counts, Address offsets, Address t, Address dt, Address positions) {
            const PassCall call(queue);
            march_into(marching.as<float>(), {at<const uint8_t>(bits), at<const uint8_t>(blocks)},
                       {n_rays, capacity, at<const float>(origins), at<const float>(directions),
                        at<const float>(jitter), near, place_chain(status, ticket, counts), at<int64_t>(offsets),
                        at<float>(t), at<float>(dt), at<float>(positions)},
                       queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("bits"), nb::arg("blocks"), nb::arg("n_rays"),
        nb::arg("capacity"), nb::arg("origins"), nb::arg("directions"), nb::arg("jitter"), nb::arg("near"),
        nb::arg("status"), nb::arg("ticket"), nb::arg("counts"), nb::arg("offsets"), nb::arg("t"), nb::arg("dt"),
        nb::arg("positions"), "The samples of all rays into a buffer of fixed capacity.");

    module.attr("MAX_ROW_COPIES") = kMaxRowCopies;
    module.def(
        "keep_visible",
        [](const Queue& queue, int64_t n_rays, int64_t capacity, Address offsets, Address t, Address dt,
           Address outputs, int n_outputs, Address gate, float density_scale, float stop, Address met,
           Address directions, int n_degrees, Address status, Address ticket, Address counts, Address out_offsets,
           Address out_t, Address out_dt, Address colour_inputs,
           const std::vector<std::tuple<Address, Address, int>>& copies) {
            if (copies.size() > size_t(kMaxRowCopies))
                throw std::length_error("too many arrays go along with a sample");
            const PassCall call(queue);
            VisibleArrays a{n_rays,
                            capacity,
                            at<const int64_t>(offsets),
                            at<const float>(t),
                            at<const float>(dt),
                            at<const float>(outputs),
                            n_outputs,
                            at<const float>(gate),
                            density_scale,
                            stop,
                            at<const BufferCounts>(met),
                            at<const float>(directions),
                            n_degrees,
                            place_chain(status, ticket, counts),
                            at<int64_t>(out_offsets),
                            at<float>(out_t),
                            at<float>(out_dt),
                            at<float>(colour_inputs),
                            {}};
            std::transform(copies.begin(), copies.end(), a.copies, [](const auto& copy) {
                return RowCopy{at<const float>(std::get<0>(copy)), at<float>(std::get<1>(copy)), std::get<2>(copy)};
            });
            keep_visible(a, queue.get());
        },
        nb::arg("queue"), nb::arg("n_rays"), nb::arg("capacity"), nb::arg("offsets"), nb::arg("t"), nb::arg("dt"),
        nb::arg("outputs"), nb::arg("n_outputs"), nb::arg("gate"), nb::arg("density_scale"), nb::arg("stop"),
        nb::arg("met"), nb::arg("directions"), nb::arg("n_degrees"), nb::arg("status"), nb::arg("ticket"),
        nb::arg("counts"), nb::arg("out_offsets"), nb::arg("out_t"), nb::arg("out_dt"), nb::arg("colour_inputs"),
        nb::arg("copies"), "The samples up to the one that ends each ray, with what is known of them.");
}

void bind_heads(nb::module_& module) {
    nb::class_<HeadArrays>(module, "HeadArrays", "Addresses of what networks say of samples.")
        .def(
            "__init__",
            [](HeadArrays* self, int64_t n_samples, Address count, int width, Address outputs, Address gate,
               Address colour_logits, float density_scale) {
                new (self) HeadArrays{n_samples,
                                      at<const int32_t>(count),
                                      width,
                                      at<const float>(outputs),
                                      at<const float>(gate),
                                      at<const float>(colour_logits),
                                      density_scale};
            },
            nb::arg("n_samples"), nb::arg("count"), nb::arg("width"), nb::arg("outputs"), nb::arg("gate"),
            nb::arg("colour_logits"), nb::arg("density_scale"));

    module.def(
        "activate",
        [](const Queue& queue, const HeadArrays& arrays, Address density, Address rgb) {
            const PassCall call(queue);
            activate(arrays, at<float>(density), at<float>(rgb), queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), nb::arg("density"), nb::arg("rgb"),
        "Density and colour from what the networks say.");

    module.def(
        "colour_gradients",
        [](const Queue& queue, int64_t n_samples, Address count, Address rgb, Address dL_drgb, Address dL_dlogits) {
            const PassCall call(queue);
            colour_gradients(n_samples, at<const int32_t>(count), at<const float>(rgb), at<const float>(dL_drgb),
                             at<float>(dL_dlogits), queue.get());
        },
        nb::arg("queue"), nb::arg("n_samples"), nb::arg("count"), nb::arg("rgb"), nb::arg("dL_drgb"),
        nb::arg("dL_dlogits"), "Gradients of colours' logits.");

    module.def(
        "output_gradients",
        [](const Queue& queue, const HeadArrays& arrays, int n_outputs, int n_colour_inputs, Address dL_dcolour_inputs,
           Address dL_ddensity, Address dL_doutputs, Address dL_dgate) {
            const PassCall call(queue);
            output_gradients(arrays,
                             {n_outputs, n_colour_inputs, at<const float>(dL_dcolour_inputs),
                              at<const float>(dL_ddensity), at<float>(dL_doutputs), at<float>(dL_dgate)},
                             queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), nb::arg("n_outputs"), nb::arg("n_colour_inputs"),
        nb::arg("dL_dcolour_inputs"), nb::arg("dL_ddensity"), nb::arg("dL_doutputs"), nb::arg("dL_dgate"),
        "Gradients of the density network's outputs.");

    nb::class_<GateArrays>(module, "GateArrays", "Addresses of features and of the saliency's logits.")
        .def(
            "__init__",
            [](GateArrays* self, int64_t n_samples, Address count, int n_features, Address features, Address logits,
               float sharpness) {
                new (self) GateArrays{
                    n_samples, at<const int32_t>(count), n_features, at<const float>(features), at<const float>(logits),
                    sharpness};
            },
            nb::arg("n_samples"), nb::arg("count"), nb::arg("n_features"), nb::arg("features"), nb::arg("logits"),
            nb::arg("sharpness"));

    module.def(
        "gate_features",
        [](const Queue& queue, const GateArrays& arrays, Address gated, Address gate) {
            const PassCall call(queue);
            gate_features(arrays, at<float>(gated), at<float>(gate), queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), nb::arg("gated"), nb::arg("gate"),
        "Features times saliency, and the gate of the density.");

    module.def(
        "gate_gradients",
        [](const Queue& queue, const GateArrays& arrays, Address dL_dgated, Address dL_dgate, Address dL_dfeatures,
           Address dL_dlogits) {
            const PassCall call(queue);
            gate_gradients(arrays, at<const float>(dL_dgated), at<const float>(dL_dgate), at<float>(dL_dfeatures),
                           at<float>(dL_dlogits), queue.get());
        },
        nb::arg("queue"), nb::arg("arrays"), nb::arg("dL_dgated"), nb::arg("dL_dgate"), nb::arg("dL_dfeatures"),
        nb::arg("dL_dlogits"), "Gradients of features and of the saliency's logits.");
}

void bind_visits(nb::module_& module) {
    module.def("list_blocks", &list_blocks, nb::arg("n_cells"), "Words of status that a list of cells needs.");

    module.def(
        "list_occupied",
        [](const Queue& queue, int64_t n_cells, Address bits, Address status, Address ticket, Address cells,
           Address count) {
            const PassCall call(queue);
            list_occupied(n_cells, at<const uint8_t>(bits), at<uint64_t>(status), at<uint32_t>(ticket),
                          at<int32_t>(cells), at<int32_t>(count), queue.get());
        },
        nb::arg("queue"), nb::arg("n_cells"), nb::arg("bits"), nb::arg("status"), nb::arg("ticket"), nb::arg("cells"),
        nb::arg("count"), "Numbers of the occupied cells, and how many there are.");

    module.def(
        "visit_cells",
        [](const Queue& queue, const Marching<double>& marching, int64_t n_cells, int64_t n_visits, Address learnable,
           Address occupied, Address n_occupied, uint64_t key, int64_t first, int64_t n, Address cells,
           Address positions) {
            const PassCall call(queue);
            visit_cells(marching.as<float>(),
                        {n_cells, n_visits, at<const bool>(learnable), at<const int32_t>(occupied), key},
                        at<const int32_t>(n_occupied), first, n, at<int64_t>(cells), at<float>(positions), queue.get());
        },
        nb::arg("queue"), nb::arg("marching"), nb::arg("n_cells"), nb::arg("n_visits"), nb::arg("learnable"),
        nb::arg("occupied"), nb::arg("n_occupied"), nb::arg("key"), nb::arg("first"), nb::arg("n"), nb::arg("cells"),
        nb::arg("positions"), "Cells of the occupancy grid to look into, and where.");
}

} // namespace

void bind_field_step(nb::module_& module) {
    bind_rays(module);
    bind_buffers(module);
    bind_heads(module);
    bind_visits(module);
}

} // namespace kinosplat::gpu
