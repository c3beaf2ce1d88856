// Drawing a hash-grid field: the view both backends take, the CPU's function with arrays by name
// (cuda/cpu/fused_field.h), and the GPU's with addresses that render/field/native_fused.py has checked
// (cuda/gpu/fused_field.h).
#include "fused_field_bindings.h"

#include <algorithm>
#include <array>
#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>
#include <vector>

#include "cpu/fused_field.h"
#include "cpu/pass_binding.h"
#include "field_bindings.h"
#include "mlp_bindings.h"

#if KINOSPLAT_HAS_CUDA
#include "gpu/fused_field.h"
#include "gpu/launch.h"
#endif

namespace kinosplat {

void bind_fused_field_types(nb::module_& module) {
    nb::class_<FieldView<double>>(module, "FieldView", "A camera and what lies behind everything.")
        .def(
            "__init__",
            [](FieldView<double>* self, int width, int height, const std::array<double, 9>& inverse_K,
               const std::array<double, 9>& rotation, const std::array<double, 3>& position, double near, double stop,
               const std::array<double, 3>& background) {
                FieldView<double>* view = new (self) FieldView<double>{};
                view->width = width;
                view->height = height;
                std::copy(inverse_K.begin(), inverse_K.end(), view->inverse_K);
                std::copy(rotation.begin(), rotation.end(), view->rotation);
                view->position = {position[0], position[1], position[2]};
                view->near = near;
                view->stop = stop;
                std::copy(background.begin(), background.end(), view->background);
            },
            nb::arg("width"), nb::arg("height"), nb::arg("inverse_K"), nb::arg("rotation"), nb::arg("position"),
            nb::arg("near"), nb::arg("stop"), nb::arg("background"));
}

namespace cpu {
namespace {

template <class T>
void run_draw_field(Arguments& a) {
    FusedField<T> field{};
    field.grid = a.object<HashGrid>("grid");
    const bool has_headers = a.is_given("headers"), has_words = a.is_given("words"),
               is_sparse = has_headers && has_words;
    const int64_t n_rows = is_sparse ? a.size("table", 0) : grid_entries(field.grid);
    field.table = a.array<const T>("table", {n_rows, field.grid.n_features});
    if (is_sparse)
        field.sparse = sparse_index(a, field.grid, n_rows);
    field.saliency_grid = a.object<HashGrid>("saliency_grid");
    field.saliency = a.optional_array<const T>("saliency", {grid_entries(field.saliency_grid), 1});
    field.sharpness = T(a.number("sharpness"));
    field.n_degrees = int(a.integer("n_degrees"));
    field.density_scale = T(a.number("density_scale"));
    field.density = network<T>(a, "density_", field.grid.n_levels * field.grid.n_features);
    field.colour = network<T>(a, "colour_", field.density.shape.n_outputs() + field.n_degrees * field.n_degrees);
    const Marching<double>& marching = a.object<Marching<double>>("marching");
    const FieldView<double>& view = a.object<FieldView<double>>("view");
    const Occupancy grid = occupancy(a, marching);
    FieldPicture<T> picture{};
    picture.rgb = a.optional_array<T>("rgb", {view.height, view.width, 3});
    picture.alpha = a.optional_array<T>("alpha", {view.height, view.width});
    picture.depth = a.optional_array<T>("depth", {view.height, view.width});
    picture.bytes = a.optional_array<uint8_t>("bytes", {view.height, view.width, 3});
    picture.scratch =
        a.array<T>("scratch", {threads(a), field_tile_size(field.density.shape.n_inputs(),
                                                           field.density.shape.n_outputs(), field.n_degrees)});
    picture.counters = a.array<int64_t>("counters", {field_tiles(view.width, view.height), 2});
    const PassCall call(a);
    draw_field<T>(field, marching.as<T>(), grid, view.as<T>(), picture, call.n_threads);
}

} // namespace

void bind_fused_field(nb::module_& module) {
    KS_PASS(draw_field, "table", "A picture of the field.");
    module.def("field_tiles", &field_tiles, "Tiles of a picture of that width and height.");
    module.def("field_tile_size", &field_tile_size, "Numbers of scratch a thread.");
}

} // namespace cpu
} // namespace kinosplat

#if KINOSPLAT_HAS_CUDA
namespace kinosplat::gpu {

void bind_fused_field(nb::module_& module) {
    nb::class_<FusedField>(module, "FusedField", "A field's parameters as they are drawn.")
        .def(
            "__init__",
            [](FusedField* self, const HashGrid& grid, Address table, Address sparse_headers, Address sparse_words,
               const HashGrid& saliency_grid, Address saliency, float sharpness, const std::vector<int>& density_widths,
               const std::vector<Address>& density_weights, const std::vector<int>& colour_widths,
               const std::vector<Address>& colour_weights, int n_degrees, float density_scale) {
                FusedField* field = new (self) FusedField{};
                field->grid = grid;
                field->table = at<void>(table);
                field->sparse = {at<const SparseHeader>(sparse_headers), at<const uint32_t>(sparse_words)};
                field->saliency_grid = saliency_grid;
                field->saliency = at<float>(saliency);
                field->sharpness = sharpness;
                set_network(density_widths, density_weights, &field->density, field->density_weights);
                set_network(colour_widths, colour_weights, &field->colour, field->colour_weights);
                field->n_degrees = n_degrees;
                field->density_scale = density_scale;
            },
            nb::arg("grid"), nb::arg("table"), nb::arg("sparse_headers"), nb::arg("sparse_words"),
            nb::arg("saliency_grid"), nb::arg("saliency"), nb::arg("sharpness"), nb::arg("density_widths"),
            nb::arg("density_weights"), nb::arg("colour_widths"), nb::arg("colour_weights"), nb::arg("n_degrees"),
            nb::arg("density_scale"));

    nb::class_<FieldPicture>(module, "FieldPicture", "Addresses of what is drawn, and of scratch.")
        .def(
            "__init__",
            [](FieldPicture* self, Address rgb, Address alpha, Address depth, Address bytes, Address pixels,
               Address starts, Address counters, Address stage_cycles) {
                new (self) FieldPicture{at<float>(rgb),         at<float>(alpha),          at<float>(depth),
                                        at<uint8_t>(bytes),     at<uint32_t>(pixels),      at<float>(starts),
                                        at<uint64_t>(counters), at<uint64_t>(stage_cycles)};
            },
            nb::arg("rgb"), nb::arg("alpha"), nb::arg("depth"), nb::arg("bytes"), nb::arg("pixels"), nb::arg("starts"),
            nb::arg("counters"), nb::arg("stage_cycles"));

    module.def(
        "least_shared_bytes",
        [](const std::vector<int>& density_widths, const std::vector<int>& colour_widths) {
            return least_shared_bytes(network_shape(density_widths), network_shape(colour_widths));
        },
        nb::arg("density_widths"), nb::arg("colour_widths"),
        "Shared memory that a block of the fused kernels needs at least, bytes.");

    module.def(
        "most_shared_bytes",
        [](const Queue& queue) {
            const CurrentDevice current(queue.device);
            return most_shared_bytes();
        },
        nb::arg("queue"), "Shared memory that a block may have, bytes.");

    module.def(
        "evaluate_field",
        [](const Queue& queue, const FusedField& field, int64_t n_samples, Address positions, Address directions,
           Address density, Address rgb) {
            const PassCall call(queue);
            evaluate_field(field, n_samples, at<const float>(positions), at<const float>(directions),
                           at<float>(density), at<float>(rgb), queue.get());
        },
        nb::arg("queue"), nb::arg("field"), nb::arg("n_samples"), nb::arg("positions"), nb::arg("directions"),
        nb::arg("density"), nb::arg("rgb"), "Densities and colours of samples.");

    module.def(
        "draw_field",
        [](const Queue& queue, const FusedField& field, const Marching<double>& marching, Address bits, Address blocks,
           const FieldView<double>& view, const FieldPicture& picture) {
            const PassCall call(queue);
            draw_field(field, marching.as<float>(), {at<const uint8_t>(bits), at<const uint8_t>(blocks)},
                       view.as<float>(), picture, queue.get());
        },
        nb::arg("queue"), nb::arg("field"), nb::arg("marching"), nb::arg("bits"), nb::arg("blocks"), nb::arg("view"),
        nb::arg("picture"), "A picture of the field.");

    module.attr("FIELD_COUNTERS") = kFieldCounters;
    module.attr("FIELD_STAGES") = nb::make_tuple("march", "encode", "networks", "composite", "rays");
    module.attr("DENSITY_OUTPUTS") = kDensityOutputs;
}

} // namespace kinosplat::gpu
#endif
