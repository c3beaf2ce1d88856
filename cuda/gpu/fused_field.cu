// Two kernels draw a picture. The first makes a ray a pixel, finds where it first meets an occupied cell, finishes the
// pixels whose rays meet none and queues the others. The second stays on the GPU until the queue is empty: each lane of
// a warp has a ray of its own and marches it from sample to sample, the warp evaluates its 32 samples together on the
// tensor cores, and lanes whose rays have ended take new ones from the queue. Nothing of a sample ever leaves the
// registers and the warp's corner of shared memory.
#include <algorithm>
#include <type_traits>

#include "gpu/fused_field.h"
#include "gpu/launch.h"
#include "gpu/layers.cuh"
#include "gpu/table.cuh"
#include "math/spherical_harmonics.h"

namespace kinosplat::gpu {
namespace {

// Tiles of columns that a kernel has registers for: those of networks up to 64 wide, or of any.
constexpr int kNarrowTiles = 4, kWideTiles = mma_tiles(kMaxMlpWidth);

// Warps of a block, which share one copy of the weights: as many as the multiprocessor has registers for.
__host__ __device__ constexpr int most_warps(int n_tiles) { return n_tiles == kNarrowTiles ? 16 : 12; }

constexpr int kGroups = kWarp / kMmaSize;
constexpr int kHarmonics = sh_basis_size(3);

// Idle lanes that a warp gathers before it fetches rays for them: fetching diverges, idle lanes waste work.
constexpr int kRefill = 8;

// What a warp keeps in shared memory of its 32 samples, a row each: features and harmonics.
struct Corner {
    SharedMatrix features, harmonics;
};

struct SharedField {
    Half *density_weights, *colour_weights;
    Corner corner;
};

int shared_bytes(const MlpShape& density, const MlpShape& colour, int n_warps) {
    const int feature_stride = shared_stride(mma_tiles(density.n_inputs()));
    const int corner = kWarp * (feature_stride + shared_stride(1)) * int(sizeof(Half));
    return shared_weight_bytes(density) + shared_weight_bytes(colour) + n_warps * corner;
}

// How the kernels of a field are launched.
struct Block {
    int n_tiles, n_warps, n_bytes;
};

// As many warps as shared memory has room for, in halves of the most.
Block block_of(const FusedField& field) {
    const int n_tiles =
        mma_tiles(std::max(widest(field.density), widest(field.colour))) <= kNarrowTiles ? kNarrowTiles : kWideTiles;
    const int most_bytes = most_shared_bytes();
    int n_warps = most_warps(n_tiles);
    while (n_warps > 1 && shared_bytes(field.density, field.colour, n_warps) > most_bytes)
        n_warps /= 2;
    return {n_tiles, n_warps, shared_bytes(field.density, field.colour, n_warps)};
}

// Loads the weights; the whole block has to come here.
__device__ inline SharedField prepare(const FusedField& field, Half* shared) {
    SharedField s;
    s.density_weights = shared;
    s.colour_weights = layer_weights(field.density, shared, field.density.n_layers).data;
    Half* corners = layer_weights(field.colour, s.colour_weights, field.colour.n_layers).data;
    const int feature_stride = shared_stride(mma_tiles(field.density.widths[0]));
    Half* corner = corners + warp_id() * kWarp * (feature_stride + shared_stride(1));
    s.corner = {{corner, feature_stride}, {corner + kWarp * feature_stride, shared_stride(1)}};
    load_weights<false>(field.density, field.density_weights, s.density_weights);
    load_weights<false>(field.colour, field.colour_weights, s.colour_weights);
    // Columns that pad the features to whole tiles stay zero.
    for (int column = 0; column < feature_stride; column += 2)
        s.corner.features.pair(lane_id(), column) = 0;
    __syncthreads();
    return s;
}

// Cycles since the last lap go to a stage; nothing where they are not wanted.
template <bool kTimed>
class StageClock {
  public:
    __device__ StageClock() {
        if constexpr (kTimed)
            last_ = clock64();
    }
    __device__ void lap(FieldStage stage) {
        if constexpr (kTimed) {
            const long long now = clock64();
            cycles_[stage] += now - last_;
            last_ = now;
        }
    }
    __device__ void add_to(uint64_t* stage_cycles) const {
        if constexpr (kTimed)
            if (lane_id() == 0)
                for (int stage = 0; stage < kFieldStages; ++stage)
                    atomicAdd(reinterpret_cast<unsigned long long*>(stage_cycles + stage),
                              static_cast<unsigned long long>(cycles_[stage]));
    }

  private:
    long long last_ = 0, cycles_[kFieldStages] = {};
};

__device__ inline void write_harmonics(const FusedField& field, const SharedMatrix& rows, Vec3<float> direction) {
    float basis[kHarmonics];
    sh_basis<3>(direction, basis);
    const int n = field.n_degrees * field.n_degrees;
#pragma unroll
    for (int k = 0; k < kHarmonics; k += 2)
        rows.pair(lane_id(), k) = round_pair(k < n ? basis[k] : 0.0f, k + 1 < n ? basis[k + 1] : 0.0f);
}

template <int kFeatures, bool kSparse>
__device__ inline auto table_reader(const FusedField& field) {
    const TableReader<kFeatures, Half> rows{static_cast<const Half*>(field.table)};
    if constexpr (kSparse)
        return SparseReader<kFeatures, Half>{rows, field.sparse};
    else
        return rows;
}

// This lane's row of features, multiplied by the saliency where there is one; returns the factor of the density.
template <int kFeatures, bool kSparse>
__device__ inline float write_features(const FusedField& field, const SharedMatrix& rows, Vec3<float> position) {
    float saliency = 1.0f, square = 0.0f;
    if (field.saliency) {
        float logit[1];
        grid_interpolate<1>(
            field.saliency_grid.levels[0], position,
            [&](uint32_t entry, float* value) { *value = field.saliency[entry]; }, logit);
        saliency = sigmoid(logit[0]);
    }
    const auto read = table_reader<kFeatures, kSparse>(field);
#pragma unroll 2
    for (int level = 0; level < field.grid.n_levels; ++level) {
        float features[kFeatures];
        grid_interpolate<kFeatures>(field.grid.levels[level], position, read, features);
#pragma unroll
        for (int f = 0; f < kFeatures; f += 2) {
            const float low = saliency * features[f], high = saliency * features[f + 1];
            square += low * low + high * high;
            rows.pair(lane_id(), level * kFeatures + f) = round_pair(low, high);
        }
    }
    return field.saliency ? tanhf(field.sharpness * sqrtf(square)) : 1.0f;
}

struct Evaluated {
    float density;
    Vec3<float> rgb;
};

// Both networks for the rows of a warp's corner; `gate` multiplies the lane's density.
template <int kTiles>
__device__ inline Evaluated run_networks(const FusedField& field, const SharedField& shared, float gate) {
    const int n_tiles = mma_tiles(field.density.widths[0]), lane = lane_id();
    Evaluated own{};
#pragma unroll 1
    for (int group = 0; group < kGroups; ++group) {
        const int first_row = group * kMmaSize;
        Fragment numbers[1][kTiles];
        Sum sums[1][2 * kTiles];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile)
            if (tile < n_tiles)
                numbers[0][tile] = load_matrices(shared.corner.features.rows_first(first_row, tile * kMmaSize));
        multiply_network(field.density, shared.density_weights, numbers, sums);
        const float log_near = sums[0][0].values[0], log_far = sums[0][0].values[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* c = sums[0][half].values;
            numbers[0][0].pairs[2 * half] = saturated_pair(c[0], c[1]);
            numbers[0][0].pairs[2 * half + 1] = saturated_pair(c[2], c[3]);
        }
        numbers[0][1] = load_matrices(shared.corner.harmonics.rows_first(first_row, 0));
        multiply_network(field.colour, shared.colour_weights, numbers, sums);

        // Row r of the group is in lanes 4 (r % 8) and on; it belongs to lane first_row + r.
        const int from = lane % 8 * 4;
        const bool far = lane & 8;
        const float* c = sums[0][0].values;
        const float red_near = __shfl_sync(kAllLanes, c[0], from), red_far = __shfl_sync(kAllLanes, c[2], from);
        const float green_near = __shfl_sync(kAllLanes, c[1], from), green_far = __shfl_sync(kAllLanes, c[3], from);
        const float blue_near = __shfl_sync(kAllLanes, c[0], from + 1),
                    blue_far = __shfl_sync(kAllLanes, c[2], from + 1);
        const float density_near = __shfl_sync(kAllLanes, log_near, from);
        const float density_far = __shfl_sync(kAllLanes, log_far, from);
        if (lane / kMmaSize == group)
            own = {far ? density_far : density_near,
                   {far ? red_far : red_near, far ? green_far : green_near, far ? blue_far : blue_near}};
    }
    own.density = expf(fminf(own.density, float(kLargestLogDensity))) * field.density_scale * gate;
    own.rgb = {sigmoid(own.rgb.x), sigmoid(own.rgb.y), sigmoid(own.rgb.z)};
    return own;
}

// ---- samples ----

template <int kTiles, int kFeatures, bool kSparse>
__global__ __launch_bounds__(most_warps(kTiles) * kWarp,
                             1) void evaluate_kernel(const __grid_constant__ FusedField field, int64_t n_samples,
                                                     const float* positions, const float* directions, float* density,
                                                     float* rgb) {
    extern __shared__ float4 shared_memory[];
    const SharedField shared = prepare(field, reinterpret_cast<Half*>(shared_memory));
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t first = int64_t(blockIdx.x) * blockDim.x + warp_id() * kWarp; first < n_samples; first += step) {
        const int64_t i = first + lane_id();
        float gate = 0.0f;
        if (i < n_samples) {
            const float *p = positions + 3 * i, *d = directions + 3 * i;
            write_harmonics(field, shared.corner.harmonics, {d[0], d[1], d[2]});
            gate = write_features<kFeatures, kSparse>(field, shared.corner.features, {p[0], p[1], p[2]});
        }
        __syncwarp();
        const Evaluated own = run_networks<kTiles>(field, shared, gate);
        if (i < n_samples) {
            density[i] = own.density;
            rgb[3 * i] = own.rgb.x;
            rgb[3 * i + 1] = own.rgb.y;
            rgb[3 * i + 2] = own.rgb.z;
        }
        __syncwarp();
    }
}

// ---- pictures ----

__device__ inline void write_pixel(const FieldView<float>& view, const FieldPicture& picture, uint32_t pixel,
                                   Vec3<float> rgb, float transmittance, float depth) {
    const float colour[3] = {rgb.x + transmittance * view.background[0], rgb.y + transmittance * view.background[1],
                             rgb.z + transmittance * view.background[2]};
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        if (picture.rgb)
            picture.rgb[3 * int64_t(pixel) + c] = colour[c];
        if (picture.bytes)
            picture.bytes[3 * int64_t(pixel) + c] = uint8_t(__saturatef(colour[c]) * 255.0f + 0.5f);
    }
    if (picture.alpha)
        picture.alpha[pixel] = 1.0f - transmittance;
    if (picture.depth)
        picture.depth[pixel] = depth;
}

constexpr int kStartWidth = 32, kStartHeight = 8; // pixels of a block, 8 x 4 a warp

__global__ __launch_bounds__(kStartWidth* kStartHeight) void start_kernel(
    const __grid_constant__ Marching<float> marching, const Occupancy occupancy,
    const __grid_constant__ FieldView<float> view, const __grid_constant__ FieldPicture picture) {
    const int lane = lane_id(), warp = warp_id();
    const int x = blockIdx.x * kStartWidth + warp % 4 * 8 + lane % 8;
    const int y = blockIdx.y * kStartHeight + warp / 4 * 4 + lane / 8;
    const bool inside = x < view.width && y < view.height;
    const uint32_t pixel = uint32_t(y) * view.width + x;
    bool found = false;
    float start = 0.0f;
    if (inside) {
        const PixelRay<float> ray = pixel_ray(view, marching, x, y);
        const Member<float> member = first_sample(marching, occupancy, ray);
        found = member.mid < ray.marched.last;
        start = member.t;
    }
    const unsigned all = __ballot_sync(kAllLanes, found);
    if (all) {
        unsigned long long first = 0;
        if (lane == 0)
            first = atomicAdd(reinterpret_cast<unsigned long long*>(picture.counters),
                              static_cast<unsigned long long>(__popc(all)));
        first = __shfl_sync(kAllLanes, first, 0);
        if (found) {
            const unsigned long long place = first + __popc(all & ((1u << lane) - 1));
            picture.pixels[place] = pixel;
            picture.starts[place] = start;
        }
    }
    if (inside && !found)
        write_pixel(view, picture, pixel, {0.0f, 0.0f, 0.0f}, 1.0f, 0.0f);
}

template <int kTiles, int kFeatures, bool kSparse, bool kTimed>
__global__ __launch_bounds__(most_warps(kTiles) * kWarp,
                             1) void draw_kernel(const __grid_constant__ FusedField field,
                                                 const __grid_constant__ Marching<float> marching,
                                                 const Occupancy occupancy,
                                                 const __grid_constant__ FieldView<float> view,
                                                 const __grid_constant__ FieldPicture picture) {
    extern __shared__ float4 shared_memory[];
    const SharedField shared = prepare(field, reinterpret_cast<Half*>(shared_memory));
    StageClock<kTimed> clock;
    const int lane = lane_id();
    const uint64_t n_queued = picture.counters[0];
    bool queue_empty = false, alive = false;
    uint64_t n_samples = 0; // the same in all lanes
    uint32_t pixel = 0;
    Vec3<float> direction{}, rgb{};
    MarchedRay<float> ray{};
    Member<float> member{};
    float transmittance = 1.0f, depth = 0.0f;
    while (true) {
        const int n_idle = __popc(__ballot_sync(kAllLanes, !alive));
        if (!queue_empty && n_idle >= kRefill) {
            unsigned long long first = 0;
            if (lane == 0)
                first = atomicAdd(reinterpret_cast<unsigned long long*>(picture.counters + 1),
                                  static_cast<unsigned long long>(n_idle));
            first = __shfl_sync(kAllLanes, first, 0);
            const unsigned idle = __ballot_sync(kAllLanes, !alive);
            const unsigned long long place = first + __popc(idle & ((1u << lane) - 1));
            if (!alive && place < n_queued) {
                alive = true;
                pixel = picture.pixels[place];
                const PixelRay<float> own = pixel_ray(view, marching, pixel % view.width, pixel / view.width);
                ray = own.marched;
                direction = own.direction;
                member = member_at(marching, ray, picture.starts[place]);
                transmittance = 1.0f;
                depth = 0.0f;
                rgb = {0.0f, 0.0f, 0.0f};
                write_harmonics(field, shared.corner.harmonics, direction);
            }
            queue_empty = first + n_idle >= n_queued;
            clock.lap(kStageRays);
        }
        const unsigned busy = __ballot_sync(kAllLanes, alive);
        if (!busy)
            break;
        n_samples += __popc(busy);
        float gate = 0.0f;
        if (alive)
            gate = write_features<kFeatures, kSparse>(
                field, shared.corner.features, grid_position(marching.space, view.position + member.mid * direction));
        __syncwarp();
        clock.lap(kStageEncode);
        const Evaluated sample = run_networks<kTiles>(field, shared, gate);
        __syncwarp();
        clock.lap(kStageNetworks);
        if (alive) {
            const float left = expf(-sample.density * member.dt), weight = transmittance * (1.0f - left);
            rgb = rgb + weight * sample.rgb;
            depth += weight * member.mid;
            transmittance *= left;
        }
        clock.lap(kStageComposite);
        if (alive && transmittance >= view.stop)
            member = next_sample(marching, occupancy, ray, member);
        __syncwarp();
        clock.lap(kStageMarch);
        if (alive && !(transmittance >= view.stop && member.mid < ray.last)) {
            write_pixel(view, picture, pixel, rgb, transmittance, depth);
            alive = false;
        }
        clock.lap(kStageRays);
    }
    if (lane == 0)
        atomicAdd(reinterpret_cast<unsigned long long*>(picture.counters + 2),
                  static_cast<unsigned long long>(n_samples));
    clock.add_to(picture.stage_cycles);
}

// What `make` returns for the tiles, the field's number of features and its kind of table, which it gets as constants.
template <class Make>
auto chosen(const FusedField& field, int n_tiles, const Make& make) {
    const auto of_table = [&](auto tiles, auto features) {
        return field.sparse.headers ? make(tiles, features, std::true_type())
                                    : make(tiles, features, std::false_type());
    };
    const auto of_features = [&](auto tiles) {
        return field.grid.n_features == 2 ? of_table(tiles, std::integral_constant<int, 2>())
                                          : of_table(tiles, std::integral_constant<int, 4>());
    };
    return n_tiles == kNarrowTiles ? of_features(std::integral_constant<int, kNarrowTiles>())
                                   : of_features(std::integral_constant<int, kWideTiles>());
}

// As many blocks as can be on the GPU together.
template <class Kernel>
int resident_blocks(Kernel kernel, const Block& block, const char* pass) {
    allow_shared_bytes(kernel, block.n_bytes, pass);
    return multiprocessors() * blocks_at_once(kernel, block.n_warps * kWarp, block.n_bytes, pass);
}

} // namespace

int least_shared_bytes(const MlpShape& density, const MlpShape& colour) { return shared_bytes(density, colour, 1); }

void evaluate_field(const FusedField& field, int64_t n_samples, const float* positions, const float* directions,
                    float* density, float* rgb, cudaStream_t stream) {
    if (n_samples == 0)
        return;
    const Block block = block_of(field);
    const auto kernel = chosen(field, block.n_tiles, [](auto n_tiles, auto n_features, auto sparse) {
        return evaluate_kernel<n_tiles(), n_features(), sparse()>;
    });
    const int n_threads = block.n_warps * kWarp;
    const int64_t n_blocks =
        std::min<int64_t>(divide_up(n_samples, int64_t(n_threads)), resident_blocks(kernel, block, "evaluate field"));
    kernel<<<unsigned(n_blocks), n_threads, block.n_bytes, stream>>>(field, n_samples, positions, directions, density,
                                                                     rgb);
    check_launch("evaluate field");
}

void draw_field(const FusedField& field, const Marching<float>& marching, const Occupancy& occupancy,
                const FieldView<float>& view, const FieldPicture& picture, cudaStream_t stream) {
    check(cudaMemsetAsync(picture.counters, 0, kFieldCounters * sizeof(uint64_t), stream), "draw field");
    if (picture.stage_cycles)
        check(cudaMemsetAsync(picture.stage_cycles, 0, kFieldStages * sizeof(uint64_t), stream), "draw field");
    const dim3 tiles(divide_up(view.width, kStartWidth), divide_up(view.height, kStartHeight));
    start_kernel<<<tiles, kStartWidth * kStartHeight, 0, stream>>>(marching, occupancy, view, picture);
    check_launch("draw field");
    const bool timed = picture.stage_cycles;
    const Block block = block_of(field);
    const auto kernel = chosen(field, block.n_tiles, [&](auto n_tiles, auto n_features, auto sparse) {
        return timed ? draw_kernel<n_tiles(), n_features(), sparse(), true>
                     : draw_kernel<n_tiles(), n_features(), sparse(), false>;
    });
    const int n_blocks = resident_blocks(kernel, block, "draw field");
    kernel<<<unsigned(n_blocks), block.n_warps * kWarp, block.n_bytes, stream>>>(field, marching, occupancy, view,
                                                                                 picture);
    check_launch("draw field");
}

} // namespace kinosplat::gpu
