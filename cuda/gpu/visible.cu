// What of the samples met can be seen: those up to the one that ends each ray go into a buffer of their own, with all
// that has been worked out of them, so that what is learned from is not encoded twice. One warp a ray.
#include "gpu/field.h"
#include "gpu/ray_lanes.cuh"
#include "math/field_heads.h"
#include "math/spherical_harmonics.h"

namespace kinosplat::gpu {
namespace {

constexpr int kMaxHarmonics = sh_basis_size(3);

// A sample as compositing needs it; nothing behind the end of its ray.
struct Thin {
    float density, dt;
};

__device__ inline Thin load_thin(const VisibleArrays& a, int64_t i, int64_t end) {
    if (i >= end)
        return {0.0f, 0.0f};
    const float density = density_of(a.outputs[i * a.n_outputs], a.density_scale);
    return {a.gate ? density * a.gate[i] : density, a.dt[i]};
}

// How many of the samples from `begin` to `end`, all of one ray, can be seen; as compositing counts them.
__device__ inline int count_visible(const VisibleArrays& a, int64_t begin, int64_t end) {
    float transmittance = 1.0f;
    int n = 0;
    Thin ahead = load_thin(a, begin + lane_id(), end);
    for (int64_t first = begin; first < end; first += kWarp) {
        const int64_t i = first + lane_id();
        const Thin own = ahead;
        ahead = load_thin(a, i + kWarp, end);
        const LaneSample s = lane_sample(own.density, own.dt, transmittance);
        n += __popc(__ballot_sync(kAllLanes, i < end && (i == begin || !(s.transmittance_before < a.stop))));
        if (transmittance < a.stop)
            break;
    }
    return n;
}

// Numbers of each lane on their way at a time.
constexpr int kAhead = 4;

// to[k] = read(k) for all k < n.
template <class Number, class Read>
__device__ inline void copy(Number* to, int n, Read&& read) {
    for (int first = lane_id(); first < n; first += kAhead * kWarp) {
        Number values[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
            if (first + i * kWarp < n)
                values[i] = read(first + i * kWarp);
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
            if (first + i * kWarp < n)
                to[first + i * kWarp] = values[i];
    }
}

__device__ inline float4* as_fours(float* numbers) { return reinterpret_cast<float4*>(numbers); }
__device__ inline const float4* as_fours(const float* numbers) { return reinterpret_cast<const float4*>(numbers); }

// `n` consecutive numbers; both sides start at multiples of 16 bytes where `in_fours`.
__device__ inline void copy_numbers(const float* from, float* to, int n, bool in_fours) {
    if (in_fours)
        copy(as_fours(to), n / 4, [&](int k) { return as_fours(from)[k]; });
    else
        copy(to, n, [&](int k) { return from[k]; });
}

// Rows of outputs, each followed by the ray's harmonics.
__device__ inline void write_colour_inputs(const VisibleArrays& a, int64_t from, int64_t to, int n,
                                           const float* harmonics) {
    const int n_outputs = a.n_outputs, width = n_outputs + a.n_degrees * a.n_degrees;
    const float* outputs = a.outputs + from * n_outputs;
    float* inputs = a.colour_inputs + to * width;
    if (n_outputs % 4 == 0 && width % 4 == 0)
        copy(as_fours(inputs), n * width / 4, [&](int k) {
            const int row = k / (width / 4), column = k - row * (width / 4), n_fours = n_outputs / 4;
            return column < n_fours ? as_fours(outputs)[row * n_fours + column] : as_fours(harmonics)[column - n_fours];
        });
    else
        copy(inputs, n * width, [&](int k) {
            const int row = k / width, column = k - row * width;
            return column < n_outputs ? outputs[row * n_outputs + column] : harmonics[column - n_outputs];
        });
}

__device__ inline void keep(const VisibleArrays& a, int64_t from, int64_t to, int n, const float* harmonics) {
    copy_numbers(a.t + from, a.out_t + to, n, false);
    copy_numbers(a.dt + from, a.out_dt + to, n, false);
#pragma unroll
    for (int k = 0; k < kMaxRowCopies; ++k) {
        const RowCopy& rows = a.copies[k];
        if (rows.width > 0)
            copy_numbers(rows.from + from * rows.width, rows.to + to * rows.width, n * rows.width, rows.width % 4 == 0);
    }
    write_colour_inputs(a, from, to, n, harmonics);
}

__global__ __launch_bounds__(kBufferThreads) void visible_kernel(const __grid_constant__ VisibleArrays a) {
    __shared__ alignas(16) float harmonics[kBufferRays][kMaxHarmonics];
    const uint32_t block = take_ticket(a.chain.ticket);
    const int64_t ray = int64_t(block) * kBufferRays + warp_id();
    const int64_t begin = ray < a.n_rays ? a.offsets[ray] : 0, end = ray < a.n_rays ? a.offsets[ray + 1] : 0;
    const int n = count_visible(a, begin, end);
    const int64_t place = take_place(a.chain, block, n, a.n_rays, a.met->n_rays, a.capacity, a.out_offsets);
    const int64_t room = a.capacity - place;
    if (n == 0 || room <= 0)
        return;
    float basis[kMaxHarmonics];
    sh_basis<3>(load3(a.directions, ray), basis);
    float own = 0.0f;
#pragma unroll
    for (int i = 0; i < kMaxHarmonics; ++i)
        own = i == lane_id() ? basis[i] : own;
    if (lane_id() < kMaxHarmonics)
        harmonics[warp_id()][lane_id()] = own;
    __syncwarp();
    keep(a, begin, place, int(min(int64_t(n), room)), harmonics[warp_id()]);
}

} // namespace

void keep_visible(const VisibleArrays& a, cudaStream_t stream) {
    if (a.n_rays == 0)
        return;
    visible_kernel<<<unsigned(buffer_blocks(a.n_rays)), kBufferThreads, 0, stream>>>(a);
    check_launch("visible samples");
}

} // namespace kinosplat::gpu
