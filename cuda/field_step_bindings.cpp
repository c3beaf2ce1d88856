#include "field_step_bindings.h"

#include "cpu/field_step.h"
#include "cpu/pass_binding.h"
#include "field_bindings.h"

namespace kinosplat::cpu {
namespace {

void run_draw_rays(Arguments& a) {
    PixelPool pool{};
    pool.n_slots = a.size("data", 0);
    pool.slot_pixels = a.size("data", 1);
    pool.data = a.array<const uint8_t>("data", {pool.n_slots, pool.slot_pixels, kPoolBytes});
    const int64_t n_views = a.size("sizes", 0);
    pool.view_of_slot = a.array<const int64_t>("view_of_slot", {pool.n_slots});
    pool.sizes = a.array<const int64_t>("sizes", {n_views, 2});
    for (int64_t i = 0; i < pool.n_slots; ++i) {
        const int64_t view = pool.view_of_slot[i];
        if (view < 0 || view >= n_views || pool.sizes[2 * view] * pool.sizes[2 * view + 1] > pool.slot_pixels)
            throw nb::value_error("view_of_slot must name views whose pictures fit into data.");
    }
    pool.inverse_K = a.array<const float>("inverse_K", {n_views, 3, 3});
    pool.world_to_camera = a.array<const float>("world_to_camera", {n_views, 4, 4});
    pool.background = a.optional_array<const float>("fixed_background", {3});
    DrawnRays rays{};
    const int64_t n = rays.n_rays = a.size("origins", 0);
    rays.origins = a.array<float>("origins", {n, 3});
    rays.directions = a.array<float>("directions", {n, 3});
    rays.target = a.array<float>("target", {n, 3});
    rays.background = a.array<float>("background", {n, 3});
    rays.views = a.array<int64_t>("views", {n});
    rays.places = a.array<float>("places", {n, 2});
    rays.jitter = a.array<float>("jitter", {n});
    rays.weight = a.optional_array<float>("weight", {n});
    const uint64_t key = uint64_t(a.integer("key"));
    const PassCall call(a);
    draw_rays(pool, rays, key, call.n_threads);
}

void run_visit_cells(Arguments& a) {
    const Marching<double>& m = a.object<Marching<double>>("marching");
    CellVisits visits{};
    visits.n_cells = a.size("learnable", 0);
    if (visits.n_cells != int64_t(m.space.n_cascades) * m.resolution * m.resolution * m.resolution)
        throw nb::value_error("learnable must have an entry for each cell.");
    visits.n_visits = a.integer("n_visits");
    visits.learnable = a.array<const bool>("learnable", {visits.n_cells});
    const int64_t n_occupied = a.size("occupied", 0);
    visits.occupied = a.array<const int32_t>("occupied", {n_occupied});
    for (int64_t i = 0; i < n_occupied; ++i)
        if (visits.occupied[i] < 0 || visits.occupied[i] >= visits.n_cells)
            throw nb::value_error("occupied must hold numbers of cells.");
    visits.key = uint64_t(a.integer("key"));
    const int64_t first = a.integer("first"), n = a.size("cells", 0);
    if (first < 0 || first + n > visits.n_visits)
        throw nb::value_error("first must be that of visits there are.");
    int64_t* cells = a.array<int64_t>("cells", {n});
    float* positions = a.array<float>("positions", {n, 3});
    const PassCall call(a);
    visit_cells(m.as<float>(), visits, n_occupied, first, n, cells, positions, call.n_threads);
}

template <class T>
HeadArrays<T> head_arrays(Arguments& a) {
    HeadArrays<T> h{};
    h.n_samples = a.size("outputs", 0);
    h.width = int(a.size("outputs", 1));
    h.outputs = a.array<const T>("outputs", {h.n_samples, h.width});
    h.gate = a.optional_array<const T>("gate", {h.n_samples});
    h.density_scale = T(a.number("density_scale"));
    return h;
}

template <class T>
void run_activate(Arguments& a) {
    HeadArrays<T> arrays = head_arrays<T>(a);
    arrays.colour_logits = a.array<const T>("colour_logits", {arrays.n_samples, 3});
    T *density = a.array<T>("density", {arrays.n_samples}), *rgb = a.array<T>("rgb", {arrays.n_samples, 3});
    const PassCall call(a);
    activate(arrays, density, rgb, call.n_threads);
}

template <class T>
void run_colour_gradients(Arguments& a) {
    const int64_t n = a.size("rgb", 0);
    const T *rgb = a.array<const T>("rgb", {n, 3}), *dL_drgb = a.array<const T>("dL_drgb", {n, 3});
    T* dL_dlogits = a.array<T>("dL_dlogits", {n, 3});
    const PassCall call(a);
    colour_gradients(n, rgb, dL_drgb, dL_dlogits, call.n_threads);
}

template <class T>
void run_output_gradients(Arguments& a) {
    const HeadArrays<T> arrays = head_arrays<T>(a);
    const int64_t n = arrays.n_samples;
    OutputGradients<T> g{};
    g.n_outputs = int(a.size("dL_doutputs", 1));
    g.n_colour_inputs = int(a.size("dL_dcolour_inputs", 1));
    if (g.n_colour_inputs < g.n_outputs || arrays.width < 1)
        throw nb::value_error("dL_dcolour_inputs must have a column for each output.");
    g.dL_dcolour_inputs = a.array<const T>("dL_dcolour_inputs", {n, g.n_colour_inputs});
    g.dL_ddensity = a.array<const T>("dL_ddensity", {n});
    g.dL_doutputs = a.array<T>("dL_doutputs", {n, g.n_outputs});
    g.dL_dgate = a.optional_array<T>("dL_dgate", {n});
    if (!g.dL_dgate != !arrays.gate)
        throw nb::value_error("gate and dL_dgate must be given together.");
    const PassCall call(a);
    output_gradients(arrays, g, call.n_threads);
}

template <class T>
GateArrays<T> gate_arrays(Arguments& a) {
    GateArrays<T> g{};
    g.n_samples = a.size("features", 0);
    g.n_features = int(a.size("features", 1));
    g.features = a.array<const T>("features", {g.n_samples, g.n_features});
    g.logits = a.array<const T>("logits", {g.n_samples});
    g.sharpness = T(a.number("sharpness"));
    return g;
}

template <class T>
void run_gate_features(Arguments& a) {
    const GateArrays<T> arrays = gate_arrays<T>(a);
    T* gated = a.array<T>("gated", {arrays.n_samples, arrays.n_features});
    T* gate = a.array<T>("gate", {arrays.n_samples});
    const PassCall call(a);
    gate_features(arrays, gated, gate, call.n_threads);
}

template <class T>
void run_gate_gradients(Arguments& a) {
    const GateArrays<T> arrays = gate_arrays<T>(a);
    const int64_t n = arrays.n_samples;
    const T* dL_dgated = a.array<const T>("dL_dgated", {n, arrays.n_features});
    const T* dL_dgate = a.array<const T>("dL_dgate", {n});
    T* dL_dfeatures = a.array<T>("dL_dfeatures", {n, arrays.n_features});
    T* dL_dlogits = a.array<T>("dL_dlogits", {n});
    const PassCall call(a);
    gate_gradients(arrays, dL_dgated, dL_dgate, dL_dfeatures, dL_dlogits, call.n_threads);
}

template <class T>
nb::tuple run_ray_difference(Arguments& a) {
    RayDifferenceArrays<T> r{};
    const int64_t n = r.n_rays = a.size("alpha", 0);
    r.rgb = a.array<const T>("rgb", {n, 3});
    r.alpha = a.array<const T>("alpha", {n});
    r.background = a.array<const T>("background", {n, 3});
    r.target = a.array<const T>("target", {n, 3});
    r.distortion = a.optional_array<const T>("distortion", {n});
    r.weight = a.optional_array<const T>("weight", {n});
    r.total = T(a.number("total"));
    r.huber = T(a.number("huber"));
    r.distortion_weight = T(a.number("distortion_weight"));
    r.dL_drgb = a.array<T>("dL_drgb", {n, 3});
    r.dL_dalpha = a.array<T>("dL_dalpha", {n});
    r.dL_ddistortion = a.optional_array<T>("dL_ddistortion", {n});
    if (!r.distortion != !r.dL_ddistortion)
        throw nb::value_error("distortion and dL_ddistortion must be given together.");
    double sums[3];
    {
        const PassCall call(a);
        ray_difference(r, sums, call.n_threads);
    }
    return nb::make_tuple(sums[0], sums[1], sums[2]);
}

} // namespace

void bind_field_step(nb::module_& module) {
    KS_SINGLE_PASS(draw_rays, "Rays through pixels drawn at random, and what should be seen along them.");
    KS_SINGLE_PASS(visit_cells, "Cells of the occupancy grid to look into, and where.");
    KS_PASS(activate, "outputs", "Density and colour from what the networks say.");
    KS_PASS(colour_gradients, "rgb", "Gradients of colours' logits.");
    KS_PASS(output_gradients, "outputs", "Gradients of the density network's outputs.");
    KS_PASS(gate_features, "features", "Features times saliency, and the gate of the density.");
    KS_PASS(gate_gradients, "features", "Gradients of features and of the saliency's logits.");
    KS_PASS(ray_difference, "alpha",
            "Gradients of what rays saw; returns the losses of colour and distortion, and the squared error.");
}

} // namespace kinosplat::cpu
