// Passes of hash-grid fields: the layouts both backends take, and the CPU's functions in kinosplat._native.cpu.
#include "field_bindings.h"

#include <array>
#include <nanobind/stl/array.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "cpu/field.h"
#include "cpu/pass_binding.h"
#include "cpu/threads.h"

namespace kinosplat {

void bind_field_types(nb::module_& module) {
    nb::class_<HashGrid>(module, "HashGrid", "Levels of a hash grid, coarse to fine.")
        .def(
            "__init__",
            [](HashGrid* self, int n_features, const std::vector<std::array<int64_t, 3>>& levels) {
                if (n_features < 1 || n_features > kMaxGridFeatures || (n_features & (n_features - 1)))
                    throw nb::value_error("n_features must be 1, 2, 4 or 8.");
                if (levels.empty() || levels.size() > size_t(kMaxGridLevels))
                    throw nb::value_error("levels must be 1 to 32.");
                HashGrid* grid = new (self) HashGrid{};
                grid->n_features = n_features;
                grid->n_levels = int(levels.size());
                for (size_t l = 0; l < levels.size(); ++l) {
                    const auto [resolution, size, offset] = levels[l];
                    const int64_t line = resolution + 1;
                    // Beyond 2^20 the product below could overflow.
                    if (resolution < 1 || resolution > (1 << 20) || size < 1 || offset < 0 ||
                        offset + size > int64_t(UINT32_MAX))
                        throw nb::value_error("a level must have 1 to 2^20 cells a side and its entries below 2^32.");
                    const bool hashed = line * line * line > size;
                    if (hashed && (size & (size - 1)))
                        throw nb::value_error("the size of a hashed level must be a power of two.");
                    grid->levels[l] = {uint32_t(resolution), uint32_t(size), uint32_t(offset), hashed};
                }
            },
            nb::arg("n_features"), nb::arg("levels"))
        .def_ro("n_levels", &HashGrid::n_levels)
        .def_ro("n_features", &HashGrid::n_features);

    nb::class_<Marching<double>>(module, "Marching", "A space, its occupancy grid and the lengths of steps.")
        .def(
            "__init__",
            [](Marching<double>* self, std::array<double, 3> center, double half_extent, int n_cascades, bool contract,
               double cone_angle, double dt_min, double dt_max, int resolution) {
                if (!(half_extent > 0) || !(dt_min > 0) || !(dt_max >= dt_min) || !(cone_angle >= 0))
                    throw nb::value_error("half_extent and dt_min must be positive, dt_max no less than dt_min.");
                if (n_cascades < 1 || n_cascades > 16)
                    throw nb::value_error("n_cascades must be 1 to 16.");
                if (resolution < kBlockCells || resolution > 1024 || resolution % kBlockCells)
                    throw nb::value_error("the occupancy resolution must be a multiple of 8, at most 1024.");
                new (self) Marching<double>{
                    {{center[0], center[1], center[2]}, half_extent, 1 / half_extent, n_cascades, contract},
                    cone_angle,
                    dt_min,
                    dt_max,
                    resolution};
            },
            nb::arg("center"), nb::arg("half_extent"), nb::arg("n_cascades"), nb::arg("contract"),
            nb::arg("cone_angle"), nb::arg("dt_min"), nb::arg("dt_max"), nb::arg("resolution"));
}

namespace cpu {

Occupancy occupancy(Arguments& a, const Marching<double>& m) {
    const int64_t n_blocks = m.resolution / kBlockCells, n_bytes = int64_t(m.resolution) * m.resolution * n_blocks;
    return {a.array<const uint8_t>("bits", {m.space.n_cascades * n_bytes}),
            a.array<const uint8_t>("blocks", {m.space.n_cascades * n_blocks * n_blocks * n_blocks})};
}

SparseIndex sparse_index(Arguments& a, const HashGrid& grid, int64_t n_kept) {
    const int64_t n_words = a.size("words", 0), n_blocks = chunks_of(grid_entries(grid), kSparseBlock);
    const int32_t* headers = a.array<const int32_t>("headers", {n_blocks + 1, 2});
    const int32_t* words = a.array<const int32_t>("words", {n_words});
    // Headers may come out of a file, and say where is read.
    for (int64_t i = 0; i < n_blocks; ++i) {
        const int64_t n = int64_t(headers[2 * i + 2]) - headers[2 * i];
        const int64_t length = n == 0 || n == kSparseBlock ? 0 : std::min<int64_t>(chunks_of(n, 4), kBitmapWords);
        if (headers[2 * i] < 0 || n < 0 || n > int64_t(kSparseBlock) || headers[2 * i + 2] > n_kept ||
            headers[2 * i + 1] < 0 || headers[2 * i + 1] + length > n_words)
            throw nb::value_error("headers must lead to rows and words that are there.");
    }
    return {reinterpret_cast<const SparseHeader*>(headers), reinterpret_cast<const uint32_t*>(words)};
}

namespace {

template <class T>
EncodeArrays<T> encode_arrays(Arguments& a) {
    EncodeArrays<T> e{};
    e.grid = a.object<HashGrid>("grid");
    e.n_samples = a.size("positions", 0);
    e.positions = a.array<const T>("positions", {e.n_samples, 3});
    e.table = a.array<const T>("table", {grid_entries(e.grid), e.grid.n_features});
    return e;
}

template <class T>
void run_encode_forward(Arguments& a) {
    const EncodeArrays<T> arrays = encode_arrays<T>(a);
    T* features = a.array<T>("features", {arrays.n_samples, arrays.grid.n_levels * arrays.grid.n_features});
    const PassCall call(a);
    encode_forward(arrays, features, call.n_threads);
}

template <class T>
void run_encode_sparse(Arguments& a) {
    EncodeArrays<T> e{};
    e.grid = a.object<HashGrid>("grid");
    e.n_samples = a.size("positions", 0);
    e.positions = a.array<const T>("positions", {e.n_samples, 3});
    const int64_t n_kept = a.size("values", 0);
    e.table = a.array<const T>("values", {n_kept, e.grid.n_features});
    e.sparse = sparse_index(a, e.grid, n_kept);
    T* features = a.array<T>("features", {e.n_samples, e.grid.n_levels * e.grid.n_features});
    const PassCall call(a);
    encode_forward(e, features, call.n_threads);
}

template <class T>
void run_encode_backward(Arguments& a) {
    const EncodeArrays<T> arrays = encode_arrays<T>(a);
    const HashGrid& grid = arrays.grid;
    EncodeGradients<T> g{};
    g.features = a.array<const T>("dL_dfeatures", {arrays.n_samples, grid.n_levels * grid.n_features});
    g.table = a.optional_array<T>("dL_dtable", {grid_entries(grid), grid.n_features});
    g.positions = a.optional_array<T>("dL_dpositions", {arrays.n_samples, 3});
    const PassCall call(a);
    encode_backward(arrays, g, call.n_threads);
}

int degrees(Arguments& a) {
    const int64_t n = a.integer("n_degrees");
    if (n < 1 || n > 4)
        throw nb::value_error("n_degrees must be 1 to 4.");
    return int(n);
}

template <class T>
void run_sh_forward(Arguments& a) {
    const int n_degrees = degrees(a);
    const int64_t n = a.size("directions", 0);
    const T* directions = a.array<const T>("directions", {n, 3});
    T* values = a.array<T>("values", {n, n_degrees * n_degrees});
    const PassCall call(a);
    sh_forward(n, n_degrees, directions, values, call.n_threads);
}

template <class T>
void run_sh_backward(Arguments& a) {
    const int n_degrees = degrees(a);
    const int64_t n = a.size("directions", 0);
    const T* directions = a.array<const T>("directions", {n, 3});
    const T* dL_dvalues = a.array<const T>("dL_dvalues", {n, n_degrees * n_degrees});
    T* dL_ddirections = a.array<T>("dL_ddirections", {n, 3});
    const PassCall call(a);
    sh_backward(n, n_degrees, directions, dL_dvalues, dL_ddirections, call.n_threads);
}

template <class T>
RayArrays<T> ray_arrays(Arguments& a) {
    RayArrays<T> rays{};
    const int64_t n = rays.n_rays = a.size("origins", 0);
    rays.origins = a.array<const T>("origins", {n, 3});
    rays.directions = a.array<const T>("directions", {n, 3});
    return rays;
}

template <class T>
RayArrays<T> marched_ray_arrays(Arguments& a) {
    RayArrays<T> rays = ray_arrays<T>(a);
    rays.near = a.array<const T>("near", {rays.n_rays});
    rays.far = a.array<const T>("far", {rays.n_rays});
    rays.jitter = a.array<const T>("jitter", {rays.n_rays});
    return rays;
}

void run_occupied_blocks(Arguments& a) {
    const Marching<double>& m = a.object<Marching<double>>("marching");
    const Occupancy grid = occupancy(a, m);
    const PassCall call(a);
    occupied_blocks(m.resolution, m.space.n_cascades, grid.bits, const_cast<uint8_t*>(grid.blocks), call.n_threads);
}

template <class T>
int64_t run_march_count(Arguments& a) {
    const Marching<double>& m = a.object<Marching<double>>("marching");
    const RayArrays<T> rays = marched_ray_arrays<T>(a);
    const Occupancy grid = occupancy(a, m);
    int64_t* offsets = a.array<int64_t>("offsets", {rays.n_rays + 1});
    int32_t* n_visited = a.optional_array<int32_t>("n_visited", {rays.n_rays});
    const PassCall call(a);
    return march_count(m.as<T>(), grid, rays, offsets, n_visited, call.n_threads);
}

template <class T>
void run_march_write(Arguments& a) {
    const Marching<double>& m = a.object<Marching<double>>("marching");
    const RayArrays<T> rays = marched_ray_arrays<T>(a);
    const Occupancy grid = occupancy(a, m);
    const int64_t* offsets = a.array<const int64_t>("offsets", {rays.n_rays + 1});
    const int64_t n = a.size("t", 0);
    T *t = a.array<T>("t", {n}), *dt = a.array<T>("dt", {n});
    const PassCall call(a);
    march_write(m.as<T>(), grid, rays, offsets, t, dt, call.n_threads);
}

// Occupied blocks of the picture whose pixels the rays go through, checked to be of this space.
BlockList block_list(Arguments& a, int64_t n_rays, const Marching<double>& m) {
    const int64_t n_listed = a.size("list", 0);
    const BlockList list{n_listed, a.array<const int32_t>("list", {n_listed}),
                         a.array<const int32_t>("rectangles", {n_listed, 4}), int(a.integer("width")),
                         int(a.integer("height"))};
    if (list.width < 1 || list.height < 1 || n_rays != int64_t(list.width) * list.height)
        throw nb::value_error("origins must be those of every pixel, line by line.");
    if (m.space.n_cascades != 1)
        throw nb::value_error("the space must have one cascade to march by blocks.");
    const int64_t n = m.resolution / kBlockCells;
    for (int64_t i = 0; i < list.n; ++i)
        if (list.blocks[i] < 0 || list.blocks[i] >= n * n * n)
            throw nb::value_error("list must hold numbers of blocks.");
    return list;
}

template <class T>
int64_t run_march_blocks_count(Arguments& a) {
    const Marching<double>& m = a.object<Marching<double>>("marching");
    const RayArrays<T> rays = marched_ray_arrays<T>(a);
    const Occupancy grid = occupancy(a, m);
    const BlockList list = block_list(a, rays.n_rays, m);
    int64_t* offsets = a.array<int64_t>("offsets", {rays.n_rays + 1});
    int32_t* n_visited = a.optional_array<int32_t>("n_visited", {rays.n_rays});
    const PassCall call(a);
    return march_blocks_count(m.as<T>(), grid, rays, list, offsets, n_visited, call.n_threads);
}

template <class T>
void run_march_blocks_write(Arguments& a) {
    const Marching<double>& m = a.object<Marching<double>>("marching");
    const RayArrays<T> rays = marched_ray_arrays<T>(a);
    const Occupancy grid = occupancy(a, m);
    const BlockList list = block_list(a, rays.n_rays, m);
    const int64_t* offsets = a.array<const int64_t>("offsets", {rays.n_rays + 1});
    const int64_t n = a.size("t", 0);
    T *t = a.array<T>("t", {n}), *dt = a.array<T>("dt", {n});
    const PassCall call(a);
    march_blocks_write(m.as<T>(), grid, rays, list, offsets, t, dt, call.n_threads);
}

template <class T>
void run_sample_points(Arguments& a) {
    const Marching<double>& m = a.object<Marching<double>>("marching");
    const RayArrays<T> rays = ray_arrays<T>(a);
    const int64_t* offsets = a.array<const int64_t>("offsets", {rays.n_rays + 1});
    const int64_t n = a.size("t", 0);
    const T *t = a.array<const T>("t", {n}), *dt = a.array<const T>("dt", {n});
    T *positions = a.array<T>("positions", {n, 3}), *directions = a.array<T>("sample_directions", {n, 3});
    const PassCall call(a);
    sample_points(m.as<T>().space, rays, offsets, t, dt, positions, directions, call.n_threads);
}

template <class T>
CompositeArrays<T> composite_arrays(Arguments& a) {
    CompositeArrays<T> c{};
    const int64_t n = c.n_rays = a.size("offsets", 0) - 1, n_samples = a.size("density", 0);
    c.offsets = a.array<const int64_t>("offsets", {n + 1});
    c.density = a.array<const T>("density", {n_samples});
    c.t = a.array<const T>("t", {n_samples});
    c.dt = a.array<const T>("dt", {n_samples});
    c.rgb = a.array<const T>("rgb", {n_samples, 3});
    c.out_rgb = a.array<T>("out_rgb", {n, 3});
    c.alpha = a.array<T>("alpha", {n});
    c.depth = a.array<T>("depth", {n});
    c.distortion = a.array<T>("distortion", {n});
    c.n_used = a.array<int32_t>("n_used", {n});
    return c;
}

template <class T>
void run_composite_forward(Arguments& a) {
    CompositeArrays<T> arrays = composite_arrays<T>(a);
    arrays.stop = T(a.number("stop"));
    const PassCall call(a);
    composite_forward(arrays, call.n_threads);
}

template <class T>
void run_composite_backward(Arguments& a) {
    const CompositeArrays<T> arrays = composite_arrays<T>(a);
    const int64_t n = arrays.n_rays, n_samples = a.size("density", 0);
    CompositeGradients<T> g{};
    g.rgb = a.optional_array<const T>("dL_drgb", {n, 3});
    g.alpha = a.optional_array<const T>("dL_dalpha", {n});
    g.depth = a.optional_array<const T>("dL_ddepth", {n});
    g.distortion = a.optional_array<const T>("dL_ddistortion", {n});
    g.density = a.array<T>("dL_ddensity", {n_samples});
    g.sample_rgb = a.array<T>("dL_dsample_rgb", {n_samples, 3});
    const PassCall call(a);
    composite_backward(arrays, g, call.n_threads);
}

void run_occupancy_update(Arguments& a) {
    const int64_t n_cells = a.size("density", 0), n_values = a.size("cells", 0);
    float* density = a.array<float>("density", {n_cells});
    const int64_t* cells = a.array<const int64_t>("cells", {n_values});
    const float* values = a.array<const float>("values", {n_values});
    const float decay = float(a.number("decay"));
    const PassCall call(a);
    occupancy_update(n_cells, decay, n_values, cells, values, density, call.n_threads);
}

void run_occupancy_pack(Arguments& a) {
    const int64_t n_cells = a.size("density", 0);
    if (n_cells % 8)
        throw nb::value_error("density must have a multiple of 8 cells.");
    const float* density = a.array<const float>("density", {n_cells});
    const float threshold = float(a.number("threshold"));
    uint8_t* bits = a.array<uint8_t>("bits", {n_cells / 8});
    const PassCall call(a);
    occupancy_pack(n_cells, density, threshold, bits, call.n_threads);
}

} // namespace

void bind_field(nb::module_& module) {
    KS_PASS(encode_forward, "positions", "Features of positions in the unit cube.");
    KS_PASS(encode_sparse, "positions", "The same from a table of which only some rows are kept.");
    KS_PASS(encode_backward, "positions", "Gradients of the table and of the positions.");
    KS_PASS(sh_forward, "directions", "Spherical harmonics of directions.");
    KS_PASS(sh_backward, "directions", "Gradients of the directions.");
    KS_PASS(march_count, "origins", "Offsets of each ray's samples; returns their number.");
    KS_PASS(march_write, "origins", "The samples of all rays.");
    KS_PASS(march_blocks_count, "origins", "The same by occupied blocks of a picture.");
    KS_PASS(march_blocks_write, "origins", "The same by occupied blocks of a picture.");
    KS_PASS(sample_points, "origins", "Grid positions and directions of samples.");
    KS_PASS(composite_forward, "density", "Colour, alpha, depth and distortion of rays.");
    KS_PASS(composite_backward, "density", "Gradients of the samples.");
    KS_SINGLE_PASS(occupied_blocks, "Which blocks of cells have an occupied one.");
    KS_SINGLE_PASS(occupancy_update, "Lets the density of cells decay and raises that of some.");
    KS_SINGLE_PASS(occupancy_pack, "One bit a cell.");
}

} // namespace cpu
} // namespace kinosplat
