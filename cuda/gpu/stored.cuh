// Loading what is stored of a Gaussian, and moving rows of SH coefficients between global and shared memory.
#pragma once

#include <cuda_fp16.h>

#include "gpu/device.cuh"
#include "gpu/frame.h"
#include "math/gaussian.h"

namespace kinosplat::gpu {

__device__ inline View<float> load_view(const Frame& frame, int camera) {
    const float* m = frame.world_to_camera + 16 * camera;
    const float* k = frame.K + 9 * camera;
    View<float> view;
    PinholeCamera<float>& c = view.camera;
    c.rotation = {{m[0], m[1], m[2]}, {m[4], m[5], m[6]}, {m[8], m[9], m[10]}};
    c.translation = {m[3], m[7], m[11]};
    c.position = camera_position(c.rotation, c.translation);
    c.fx = k[0];
    c.fy = k[4];
    c.cx = k[2];
    c.cy = k[5];
    c.width = float(frame.width);
    c.height = float(frame.height);
    c.near = frame.near;
    c.far = frame.far;
    view.moving = frame.gaussians.displacements != nullptr;
    view.time = view.moving ? frame.times[camera] : 0.0f;
    view.antialiased = frame.antialiased;
    return view;
}

using kinosplat::load3;

__device__ inline Vec3<float> load3(const __half* data, int64_t i) {
    return {__half2float(data[3 * i]), __half2float(data[3 * i + 1]), __half2float(data[3 * i + 2])};
}

// Opacity (logit and time parameters) first: in a moving set most Gaussians are not alive, and nothing else of them is
// read.
__device__ inline bool is_alive(const GaussianArrays<const float>& from, int i, const View<float>& view) {
    float fade = 1.0f;
    if (view.moving) {
        const float phase = (view.time - from.time_centres[i]) * expf(-from.log_durations[i]);
        fade = expf(-0.5f * phase * phase);
    }
    // A little below the limit: is_drawn decides, with the same numbers in another order.
    return sigmoid(from.opacity_logits[i]) * fade >= 0.999f * float(kMinAlpha);
}

__device__ inline StoredGaussian<float> load_gaussian(const GaussianArrays<const float>& from, int i, bool moving) {
    StoredGaussian<float> g;
    g.mean = load3(from.means, i);
    const float4 q = reinterpret_cast<const float4*>(from.quats)[i];
    g.quat = {q.x, q.y, q.z, q.w};
    g.log_scale = load3(from.log_scales, i);
    g.opacity_logit = from.opacity_logits[i];
    g.displacement = {0.0f, 0.0f, 0.0f};
    g.time_centre = g.log_duration = 0.0f;
    if (moving) {
        g.displacement = load3(from.displacements, i);
        g.time_centre = from.time_centres[i];
        g.log_duration = from.log_durations[i];
    }
    return g;
}

// A warp's 32 Gaussians own 32 consecutive rows of `row_length` numbers. In shared memory they keep that layout:
// row_length is odd for degrees 1 and 3, so that lanes reading one column of their rows hit different banks.
struct WarpRows {
    int first_gaussian, n_gaussians; // of the warp, of the set
    int row_length;                  // numbers
};

// Row number of number `offset`, for offsets below 32 * 45; exact for row lengths 9, 24 and 45.
__device__ inline int row_of_offset(int offset, int row_length) {
    return int(__umulhi(unsigned(offset), 0xffffffffu / unsigned(row_length) + 1u));
}

// Starts to read the rows of the lanes in `wanted`, 16 bytes at a time; other rows are left as they are.
template <class Number>
__device__ inline void start_loading_warp_rows(Number* shared, const Number* global, WarpRows rows, unsigned wanted) {
    constexpr int kNumbers = 16 / sizeof(Number);
    if (!wanted || rows.row_length == 0)
        return;
    const Number* source = global + int64_t(rows.first_gaussian) * rows.row_length;
    const int n_numbers = min(kWarp, rows.n_gaussians - rows.first_gaussian) * rows.row_length;
    for (int offset = kNumbers * lane_id(); offset < n_numbers; offset += kNumbers * kWarp) {
        const unsigned first = row_of_offset(offset, rows.row_length);
        const unsigned last = min(unsigned(row_of_offset(offset + kNumbers - 1, rows.row_length)), 31u);
        if (!((wanted >> first | wanted >> last) & 1))
            continue;
        if (offset + kNumbers <= n_numbers)
            copy_16_async(shared + offset, source + offset);
        else
            for (int k = offset; k < n_numbers; ++k)
                shared[k] = source[k];
    }
}

__device__ inline void finish_loading_warp_rows() {
    wait_for_async_copies();
    __syncwarp();
}

// Writes the rows of all 32 lanes.
__device__ inline void store_warp_rows(const float* shared, float* global, WarpRows rows) {
    __syncwarp();
    float* target = global + int64_t(rows.first_gaussian) * rows.row_length;
    const int n_floats = min(kWarp, rows.n_gaussians - rows.first_gaussian) * rows.row_length;
    for (int offset = 4 * lane_id(); offset < n_floats; offset += 4 * kWarp) {
        if (offset + 4 <= n_floats)
            *reinterpret_cast<float4*>(target + offset) = *reinterpret_cast<const float4*>(shared + offset);
        else
            for (int k = offset; k < n_floats; ++k)
                target[k] = shared[k];
    }
}

// The colour before it is clamped at 0; `rest` is this Gaussian's row.
template <int kDegree, class Coefficient>
__device__ inline Vec3<float> sh_colour(const float* basis, Vec3<float> dc, const Coefficient* rest) {
    constexpr int kSize = (kDegree + 1) * (kDegree + 1);
    const float offset = float(kShOffset);
    Vec3<float> colour = Vec3<float>{offset, offset, offset} + basis[0] * dc;
#pragma unroll
    for (int k = 1; k < kSize; ++k)
        colour = colour + basis[k] * load3(rest, k - 1);
    return colour;
}

} // namespace kinosplat::gpu
