// The Python module kinosplat._native: one submodule a backend, one function a pass, all arguments by name. No torch
// here: arrays come in over DLPack, and their memory belongs to the caller.
#include "cpu/pass_binding.h"
#include "cpu/passes.h"
#include "cpu/threads.h"
#include "cpu/tiles.h"
#include "field_bindings.h"
#include "field_step_bindings.h"
#include "fused_field_bindings.h"
#include "math/blending.h"
#include "mlp_bindings.h"
#include "training_bindings.h"

#if KINOSPLAT_HAS_CUDA
#include "gpu/bindings.h"
#endif

namespace kinosplat::cpu {
namespace {

template <class T>
GaussianArrays<T> gaussian_arrays(Arguments& a) {
    const int64_t n = a.size("means", 0), n_sh = a.size("sh_rest", 1);
    const int64_t n_features = a.is_given("features") ? a.size("features", 1) : 0;
    GaussianArrays<T> g{};
    g.n = n;
    g.means = a.array<const T>("means", {n, 3});
    g.quats = a.array<const T>("quats", {n, 4});
    g.log_scales = a.array<const T>("log_scales", {n, 3});
    g.opacity_logits = a.array<const T>("opacity_logits", {n});
    g.sh_dc = a.array<const T>("sh_dc", {n, 3});
    g.sh_rest = a.array<const T>("sh_rest", {n, n_sh, 3});
    g.displacements = a.optional_array<const T>("displacements", {n, 3});
    g.time_centres = a.optional_array<const T>("time_centres", {n});
    g.log_durations = a.optional_array<const T>("log_durations", {n});
    g.features = a.optional_array<const T>("features", {n, n_features});
    g.n_sh_rest = int(n_sh);
    g.n_features = int(n_features);
    return g;
}

template <class T>
View<T> view(Arguments& a) {
    const T* m = a.array<const T>("world_to_camera", {4, 4});
    const T* K = a.array<const T>("K", {3, 3});
    View<T> view{};
    PinholeCamera<T>& camera = view.camera;
    camera.rotation = {{m[0], m[1], m[2]}, {m[4], m[5], m[6]}, {m[8], m[9], m[10]}};
    camera.translation = {m[3], m[7], m[11]};
    camera.position = camera_position(camera.rotation, camera.translation);
    camera.fx = K[0];
    camera.fy = K[4];
    camera.cx = K[2];
    camera.cy = K[5];
    camera.width = T(a.integer("width"));
    camera.height = T(a.integer("height"));
    camera.near = T(a.number("near"));
    camera.far = T(a.number("far"));
    view.moving = a.is_given("time");
    view.time = view.moving ? T(a.number("time")) : T(0);
    view.antialiased = a.flag("antialiased");
    return view;
}

ChannelSettings channel_settings(Arguments& a, int n_features) {
    return {int(a.integer("sh_degree")), a.flag("depth"), a.flag("normal"), n_features};
}

template <class T>
nb::tuple run_project_forward(Arguments& a) {
    const GaussianArrays<T> gaussians = gaussian_arrays<T>(a);
    const View<T> camera = view<T>(a);
    const ChannelSettings channels = channel_settings(a, gaussians.n_features);
    const int64_t n = gaussians.n;
    const ProjectOutputs<T> out{a.array<int32_t>("indices", {n}),
                                a.array<T>("records", {n, record_stride(channels.count())}),
                                a.array<T>("depths", {n}),
                                a.array<T>("ellipses", {n, kEllipseFields}),
                                a.array<int32_t>("hit_offsets", {n + 1}),
                                a.array<int32_t>("chunk_rows", {chunks_of(n, kProjectChunk)})};
    ProjectCounts counts;
    {
        const PassCall call(a);
        counts = project_forward(gaussians, camera, channels, out, call.n_threads);
    }
    return nb::make_tuple(counts.n_rows, counts.n_hits);
}

template <class T>
void run_bin(Arguments& a) {
    BinArrays<T> b{};
    b.n_rows = a.integer("n_rows");
    b.n_hits = a.integer("n_hits");
    b.width = int(a.integer("width"));
    b.height = int(a.integer("height"));
    b.n_channels = int(a.integer("n_channels"));
    const int64_t n_tiles = int64_t(tiles_across(b.width)) * tiles_across(b.height);
    b.records = a.array<const T>("records", {-1, record_stride(b.n_channels)});
    b.depths = a.array<const T>("depths", {-1});
    b.ellipses = a.array<const T>("ellipses", {-1, kEllipseFields});
    b.hit_offsets = a.array<const int32_t>("hit_offsets", {-1});
    uint64_t* keys = reinterpret_cast<uint64_t*>(a.array<int64_t>("keys", {2, b.n_rows}));
    b.keys = keys;
    b.keys_other = keys + b.n_rows;
    b.tile_of_slot = a.array<int32_t>("tile_of_slot", {b.n_hits});
    b.histograms = a.array<int32_t>("histograms", {threads(a), n_tiles});
    b.tile_offsets = a.array<int32_t>("tile_offsets", {n_tiles + 1});
    b.hit_rows = a.array<int32_t>("hit_rows", {b.n_hits});
    b.hit_slots = a.array<int32_t>("hit_slots", {b.n_hits});
    const PassCall call(a);
    bin(b, call.n_threads);
}

template <class T>
BlendArrays<T> blend_arrays(Arguments& a, int n_channels) {
    BlendArrays<T> b{};
    b.width = int(a.integer("width"));
    b.height = int(a.integer("height"));
    b.n_channels = n_channels;
    b.records = a.array<const T>("records", {-1, record_stride(n_channels)});
    b.depths = a.array<const T>("depths", {-1});
    b.tile_offsets =
        a.array<const int32_t>("tile_offsets", {int64_t(tiles_across(b.width)) * tiles_across(b.height) + 1});
    b.hit_rows = a.array<const int32_t>("hit_rows", {-1});
    b.hit_slots = a.array<const int32_t>("hit_slots", {-1});
    return b;
}

// Channels in the order of the records: rgb, depth, normal, features. Which of the optional ones there are is said
// apart from their arrays, because the gradient of a picture nobody used is None.
template <class T>
std::vector<Channel<T>> channel_list(Arguments& a, const ChannelSettings& channels, const char* prefix) {
    const int64_t height = a.integer("height"), width = a.integer("width");
    const T* background = a.array<const T>("background", {3});
    std::vector<Channel<T>> list;
    const auto append = [&](const char* name, std::initializer_list<int64_t> shape, int n, const T* behind) {
        const std::string full = std::string(prefix) + name;
        T* data = a.optional_array<T>(full.c_str(), shape);
        for (int c = 0; c < n; ++c)
            list.push_back({data ? data + c : nullptr, n, behind ? behind[c] : T(0)});
    };
    append("rgb", {height, width, 3}, 3, background);
    if (channels.depth)
        append("depth", {height, width}, 1, nullptr);
    if (channels.normal)
        append("normal", {height, width, 3}, 3, nullptr);
    if (channels.n_features)
        append("features", {height, width, channels.n_features}, channels.n_features, nullptr);
    return list;
}

ChannelSettings blend_channel_settings(Arguments& a) {
    return {0, a.flag("depth"), a.flag("normal"), int(a.integer("n_features"))};
}

template <class T>
void run_blend_forward(Arguments& a) {
    const ChannelSettings channels = blend_channel_settings(a);
    const BlendArrays<T> arrays = blend_arrays<T>(a, channels.count());
    const std::vector<Channel<T>> list = channel_list<T>(a, channels, "out_");
    BlendOutputs<T> out{};
    out.channels = list.data();
    out.transmittance = a.array<T>("transmittance", {arrays.height, arrays.width});
    out.alpha = a.array<T>("out_alpha", {arrays.height, arrays.width});
    out.last_hit = a.array<int32_t>("last_hit", {arrays.height, arrays.width});
    out.median_depth = a.optional_array<T>("median_depth", {arrays.height, arrays.width});
    const int64_t n_hits = a.size("hit_rows", 0);
    out.hit_weights = a.optional_array<T>("hit_weights", {n_hits});
    out.hit_pixels = a.optional_array<T>("hit_pixels", {n_hits});
    const PassCall call(a);
    blend_forward(arrays, out, call.n_threads);
}

template <class T>
void run_blend_backward(Arguments& a) {
    const ChannelSettings channels = blend_channel_settings(a);
    const int n_channels = channels.count();
    const BlendArrays<T> arrays = blend_arrays<T>(a, n_channels);
    const std::vector<Channel<T>> list = channel_list<T>(a, channels, "dL_d");
    BlendGradients<T> g{};
    g.channels = list.data();
    g.alpha = a.optional_array<const T>("dL_dalpha", {arrays.height, arrays.width});
    g.transmittance = a.array<const T>("transmittance", {arrays.height, arrays.width});
    g.last_hit = a.array<const int32_t>("last_hit", {arrays.height, arrays.width});
    g.hits = a.array<T>("hit_gradients", {a.size("hit_rows", 0), kNumMoments + n_channels});
    g.tile_backgrounds = a.array<T>("tile_backgrounds", {a.size("tile_offsets", 0) - 1, n_channels});
    const PassCall call(a);
    blend_backward(arrays, g, call.n_threads);
}

template <class T>
void run_project_backward(Arguments& a) {
    const GaussianArrays<T> gaussians = gaussian_arrays<T>(a);
    const View<T> camera = view<T>(a);
    const ChannelSettings channels = channel_settings(a, gaussians.n_features);
    const int64_t n = gaussians.n, n_sh = gaussians.n_sh_rest;
    ProjectGradients<T> g{};
    g.n_rows = a.integer("n_rows");
    g.indices = a.array<const int32_t>("indices", {-1});
    g.hit_offsets = a.array<const int32_t>("hit_offsets", {-1});
    g.records = a.array<const T>("records", {-1, record_stride(channels.count())});
    g.hits = a.array<const T>("hit_gradients", {-1, kNumMoments + channels.count()});
    g.clear = a.flag("clear");
    g.means = a.array<T>("dL_dmeans", {n, 3});
    g.quats = a.array<T>("dL_dquats", {n, 4});
    g.log_scales = a.array<T>("dL_dlog_scales", {n, 3});
    g.opacity_logits = a.array<T>("dL_dopacity_logits", {n});
    g.sh_dc = a.array<T>("dL_dsh_dc", {n, 3});
    g.sh_rest = a.array<T>("dL_dsh_rest", {n, n_sh, 3});
    if (camera.moving) {
        g.displacements = a.array<T>("dL_ddisplacements", {n, 3});
        g.time_centres = a.array<T>("dL_dtime_centres", {n});
        g.log_durations = a.array<T>("dL_dlog_durations", {n});
    }
    if (gaussians.n_features) // not the pointer, which is null for an empty set
        g.features = a.array<T>("dL_dfeatures", {n, gaussians.n_features});
    g.world_to_camera = a.array<T>("dL_dworld_to_camera", {4, 4});
    g.K = a.array<T>("dL_dK", {3, 3});
    g.screen_gradient = a.optional_array<float>("screen_gradient", {n});
    std::vector<CameraGradient<T>> partial(std::max<int64_t>(1, chunks_of(g.n_rows, kProjectChunk)));
    g.partial = partial.data();
    const PassCall call(a);
    project_backward(gaussians, camera, channels, g, call.n_threads);
}

template <class T>
void run_add_statistics(Arguments& a) {
    StatisticsArrays<T> s{};
    s.n_rows = a.integer("n_rows");
    s.indices = a.array<const int32_t>("indices", {-1});
    s.hit_offsets = a.array<const int32_t>("hit_offsets", {-1});
    s.ellipses = a.array<const T>("ellipses", {-1, kEllipseFields});
    s.hit_weights = a.array<const T>("hit_weights", {-1});
    s.hit_pixels = a.array<const T>("hit_pixels", {-1});
    s.blend_weight = a.array<float>("blend_weight", {-1});
    const int64_t n = a.size("blend_weight", 0);
    s.n_pixels = a.array<int32_t>("n_pixels", {n});
    s.n_seen = a.array<int32_t>("n_seen", {n});
    s.max_radius = a.array<float>("max_radius", {n});
    const PassCall call(a);
    add_statistics(s, call.n_threads);
}

void run_mark_visible(Arguments& a) {
    const int64_t n = a.size("visible", 0), n_rows = a.integer("n_rows");
    const int32_t* indices = a.array<const int32_t>("indices", {n});
    bool* visible = a.array<bool>("visible", {n});
    const bool clear = a.flag("clear");
    const PassCall call(a);
    mark_visible(n, n_rows, indices, clear, visible, call.n_threads);
}

void bind(nb::module_& module) {
    module.doc() = "Passes of the CPU backend; shapes are in cuda/cpu/passes.h.";
    KS_PASS(project_forward, "means", "Visible rows of one camera; returns (n_rows, n_hits).");
    KS_PASS(bin, "records", "Hits sorted by tile and depth.");
    KS_PASS(blend_forward, "records", "Pictures from sorted hits.");
    KS_PASS(blend_backward, "records", "Gradients of hits from those of pictures.");
    KS_PASS(project_backward, "means", "Adds the gradients of parameters and camera from those of hits.");
    KS_PASS(add_statistics, "ellipses", "Adds one camera's statistics.");
    KS_SINGLE_PASS(mark_visible, "Which Gaussians one camera sees.");

    module.def("record_stride", &record_stride, "Numbers in a record with that many channels.");
    module.def("n_tiles", [](int width, int height) { return tiles_across(width) * tiles_across(height); });
    module.def("n_project_chunks", [](int64_t n) { return chunks_of(n, kProjectChunk); });
    module.attr("N_ELLIPSE_FIELDS") = int(kEllipseFields);
    module.attr("N_MOMENTS") = kNumMoments;
}

} // namespace
} // namespace kinosplat::cpu

// A build tuned for one machine may be carried to an older one; better a sentence than an illegal instruction.
static void check_processor() {
#if defined(__x86_64__) && defined(__GNUC__)
    bool fits = true;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    fits = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
#elif defined(__AVX2__)
    fits = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    if (!fits)
        throw nanobind::import_error(
            "This build of kinosplat is for a newer processor than this machine's; reinstall it "
            "here with 'pip install --force-reinstall --no-cache-dir .' in the checkout.");
#endif
}

NB_MODULE(_native, module) {
    check_processor();
    module.doc() = "Native passes of kinosplat, a submodule a backend.";
    nanobind::module_ cpu = module.def_submodule("cpu");
    kinosplat::bind_field_types(module);
    kinosplat::bind_fused_field_types(module);
    kinosplat::cpu::bind(cpu);
    kinosplat::cpu::bind_field(cpu);
    kinosplat::cpu::bind_field_step(cpu);
    kinosplat::cpu::bind_training(cpu);
    kinosplat::cpu::bind_mlp(cpu);
    kinosplat::cpu::bind_fused_field(cpu);
#if KINOSPLAT_HAS_CUDA
    module.attr("has_cuda") = true;
    nanobind::module_ gpu = module.def_submodule("gpu");
    kinosplat::gpu::bind(gpu);
    kinosplat::gpu::bind_mlp(gpu);
    kinosplat::gpu::bind_fused_field(gpu);
#else
    module.attr("has_cuda") = false;
#endif
}
