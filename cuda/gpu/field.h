// The passes of hash-grid fields on the GPU: what each reads and writes. Python (render/field/native_cuda.py) owns all
// memory and has checked it. S is the number of samples, R that of rays. Each launches on `stream` and returns.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "math/hash_grid.h"
#include "math/march.h"
#include "math/sparse_table.h"

namespace kinosplat::gpu {

struct EncodeArrays {
    HashGrid grid;
    int64_t n_samples;
    const int32_t* count;   // where the device keeps how many of these are in use; null: all
    const float* positions; // (S, 3)
    const void* table;      // (entries, features of a level), or the rows kept of it, aligned to 16 bytes
    bool half_table;        // __half, else float
    SparseIndex sparse;     // which rows are kept; forward only
};

// features: (S, n_levels * n_features) __half or float, level-major, aligned to 16 bytes.
void encode_forward(const EncodeArrays&, void* features, bool half_features, cudaStream_t);

struct EncodeGradients {
    const float* features; // (S, n_levels * n_features), aligned to 16 bytes
    float* table;          // (entries, n_features), added to: starts at zero; null where not wanted; as aligned
    float* positions;      // (S, 3), written; null where not wanted
};

void encode_backward(const EncodeArrays&, const EncodeGradients&, cudaStream_t);

// Spherical harmonics of (S, 3) directions to (S, n_degrees^2), and back.
void sh_forward(int64_t n_samples, int n_degrees, const float* directions, float* values, cudaStream_t);
void sh_backward(int64_t n_samples, int n_degrees, const float* directions, const float* dL_dvalues,
                 float* dL_ddirections, cudaStream_t);

struct RayArrays {
    int64_t n_rays;
    const float *origins, *directions; // (R, 3)
    const float *near, *far, *jitter;  // (R,)
};

// (n_cascades, n, n, n) bytes with n = resolution / 8.
void occupied_blocks(int resolution, int n_cascades, const uint8_t* bits, uint8_t* blocks, cudaStream_t);

// counts (R,) samples of each ray; n_visited (R,) cells and blocks looked at, or null.
void march_count(const Marching<float>&, const Occupancy&, const RayArrays&, int32_t* counts, int32_t* n_visited,
                 cudaStream_t);
// The samples, (S,) each, at offsets (R + 1,).
void march_write(const Marching<float>&, const Occupancy&, const RayArrays&, const int64_t* offsets, float* t,
                 float* dt, cudaStream_t);

// Occupied blocks of one picture, front to back, as in cuda/cpu/field.h.
struct BlockList {
    int n, width, height;
    const int32_t* blocks;  // (n,)
    const int4* rectangles; // (n,) first and last column, first and last row
};

void march_blocks_count(const Marching<float>&, const Occupancy&, const RayArrays&, const BlockList&, int32_t* counts,
                        int32_t* n_visited, cudaStream_t);
void march_blocks_write(const Marching<float>&, const Occupancy&, const RayArrays&, const BlockList&,
                        const int64_t* offsets, float* t, float* dt, cudaStream_t);

// Grid positions (S, 3) of midpoints and directions (S, 3) of their rays.
void sample_points(const Space<float>&, const RayArrays&, const int64_t* offsets, const float* t, const float* dt,
                   float* positions, float* directions, cudaStream_t);

struct CompositeArrays {
    int64_t n_rays;
    const int64_t* offsets; // (R + 1,)
    const float *density, *t, *dt;
    const float* rgb; // (S, 3)
    float stop;
    float *out_rgb, *alpha, *depth, *distortion; // (R, 3), (R,)
    int32_t* n_used;                             // (R,)
};

void composite_forward(const CompositeArrays&, cudaStream_t);

struct CompositeGradients {
    const float *rgb, *alpha, *depth, *distortion; // of what was rendered; null is zero
    float *density, *sample_rgb;                   // written: (S,), (S, 3)
};

void composite_backward(const CompositeArrays&, const CompositeGradients&, cudaStream_t);

// density *= decay in all cells, then the larger of it and `values` in the cells named; NaN changes nothing.
void occupancy_update(int64_t n_cells, float decay, int64_t n_values, const int64_t* cells, const float* values,
                      float* density, cudaStream_t);
// One bit a cell, whether its density is above the threshold (1,); n_cells is a multiple of 8.
void occupancy_pack(int64_t n_cells, const float* density, const float* threshold, uint8_t* bits, cudaStream_t);

} // namespace kinosplat::gpu
