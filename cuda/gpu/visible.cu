// What of the samples met can be seen: those up to the one that ends each ray go into a buffer of their own, with all
// that has been worked out of them, so that what is learned from is not encoded twice. One warp a ray.
#include "gpu/field.h"
#include "gpu/ray_lanes.cuh"
#include "math/field_heads.h"
#include "math/spherical_harmonics.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = kBufferWarps * kWarp;
constexpr int kMaxHarmonics = sh_basis_size(3);

// How many of the samples from `begin` to `end`, all of one ray, can be seen; as compositing counts them.
__device__ inline int count_visible(const VisibleArrays& a, int64_t begin, int64_t end) {
    float transmittance = 1.0f;
    int n = 0;
    for (int64_t first = begin; first < end; first += kWarp) {
        const int64_t i = first + lane_id();
        const bool inside = i < end;
        float density = 0.0f;
        if (inside)
            density = density_of(a.outputs[i * a.n_outputs], a.density_scale) * (a.gate ? a.gate[i] : 1.0f);
        const LaneSample s = lane_sample(density, inside ? a.dt[i] : 0.0f, transmittance);
        n += __popc(__ballot_sync(kAllLanes, inside && (i == begin || !(s.transmittance_before < a.stop))));
        if (transmittance < a.stop)
            break;
    }
    return n;
}

// `n` consecutive numbers; both sides start at multiples of 16 bytes where `in_fours`.
__device__ inline void copy_numbers(const float* from, float* to, int n, bool in_fours) {
    if (in_fours)
        for (int k = lane_id(); k < n / 4; k += kWarp)
            reinterpret_cast<float4*>(to)[k] = reinterpret_cast<const float4*>(from)[k];
    else
        for (int k = lane_id(); k < n; k += kWarp)
            to[k] = from[k];
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
    const int width = a.n_outputs + a.n_degrees * a.n_degrees;
    const float* outputs = a.outputs + from * a.n_outputs;
    float* inputs = a.colour_inputs + to * width;
    for (int k = lane_id(); k < n * width; k += kWarp) {
        const int row = k / width, column = k - row * width;
        inputs[k] = column < a.n_outputs ? outputs[row * a.n_outputs + column] : harmonics[column - a.n_outputs];
    }
}

__global__ __launch_bounds__(kThreads) void visible_kernel(const __grid_constant__ VisibleArrays a) {
    __shared__ int64_t places[kBufferRays];
    __shared__ int32_t counts[kBufferRays];
    __shared__ float harmonics[kBufferWarps][kMaxHarmonics];
    const uint32_t block = take_ticket(a.chain.ticket);
    const int first = warp_id() * kBufferRaysAWarp;
    const int64_t first_ray = int64_t(block) * kBufferRays + first;
    for (int k = 0; k < kBufferRaysAWarp; ++k) {
        const int64_t ray = first_ray + k;
        const int n = ray < a.n_rays ? count_visible(a, a.offsets[ray], a.offsets[ray + 1]) : 0;
        if (lane_id() == 0)
            places[first + k] = counts[first + k] = n;
    }
    take_places(a.chain, block, a.n_rays, a.met->n_rays, a.capacity, a.out_offsets, places);
    for (int k = 0; k < kBufferRaysAWarp; ++k) {
        const int64_t place = places[first + k], room = a.capacity - place;
        if (counts[first + k] == 0 || room <= 0)
            continue;
        float basis[kMaxHarmonics];
        sh_basis<3>(load3(a.directions, first_ray + k), basis);
        float own = 0.0f;
#pragma unroll
        for (int i = 0; i < kMaxHarmonics; ++i)
            own = i == lane_id() ? basis[i] : own;
        if (lane_id() < kMaxHarmonics)
            harmonics[warp_id()][lane_id()] = own;
        __syncwarp();
        keep(a, a.offsets[first_ray + k], place, int(min(int64_t(counts[first + k]), room)), harmonics[warp_id()]);
        __syncwarp();
    }
}

} // namespace

void keep_visible(const VisibleArrays& a, cudaStream_t stream) {
    if (a.n_rays == 0)
        return;
    visible_kernel<<<unsigned(buffer_blocks(a.n_rays)), kThreads, 0, stream>>>(a);
    check_launch("visible samples");
}

} // namespace kinosplat::gpu
