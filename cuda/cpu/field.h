// The passes of hash-grid fields on the CPU: what each reads and writes. Python (render/field/native.py) owns all
// memory. S is the number of samples, R that of rays; results do not depend on the number of threads.
//
// T is float or double. Pointers named optional may be null.
#pragma once

#include <cstdint>

#include "math/hash_grid.h"
#include "math/march.h"
#include "math/sparse_table.h"

namespace kinosplat::cpu {

template <class T>
struct EncodeArrays {
    HashGrid grid;
    int64_t n_samples;
    const T* positions; // (S, 3)
    const T* table;     // (entries, features of a level), or the rows kept of it
    SparseIndex sparse; // which rows are kept; forward only
};

// features: (S, n_levels * n_features), level-major.
template <class T>
void encode_forward(const EncodeArrays<T>& arrays, T* features, int n_threads);

template <class T>
struct EncodeGradients {
    const T* features; // (S, n_levels * n_features)
    T* table;          // (entries, n_features), written; optional
    T* positions;      // (S, 3), written; optional
};

template <class T>
void encode_backward(const EncodeArrays<T>& arrays, const EncodeGradients<T>& gradients, int n_threads);

// Spherical harmonics of (S, 3) directions to (S, n_degrees^2), and back.
template <class T>
void sh_forward(int64_t n_samples, int n_degrees, const T* directions, T* values, int n_threads);
template <class T>
void sh_backward(int64_t n_samples, int n_degrees, const T* directions, const T* dL_dvalues, T* dL_ddirections,
                 int n_threads);

template <class T>
struct RayArrays {
    int64_t n_rays;
    const T *origins, *directions; // (R, 3)
    const T *near, *far, *jitter;  // (R,)
};

// Which blocks of 8^3 cells have an occupied one: (n_cascades, n, n, n) bytes with n = resolution / 8.
void occupied_blocks(int resolution, int n_cascades, const uint8_t* bits, uint8_t* blocks, int n_threads);

// offsets (R + 1,) of each ray's samples; n_visited optional (R,), cells and blocks looked at. Returns S.
template <class T>
int64_t march_count(const Marching<T>& marching, Occupancy occupancy, const RayArrays<T>& rays, int64_t* offsets,
                    int32_t* n_visited, int n_threads);
// The samples themselves, (S,) each, where march_count said.
template <class T>
void march_write(const Marching<T>& marching, Occupancy occupancy, const RayArrays<T>& rays, const int64_t* offsets,
                 T* t, T* dt, int n_threads);

// Occupied blocks of one picture, from front to back: no block before one that hides it from the rays' common origin.
struct BlockList {
    int64_t n;
    const int32_t* blocks;     // (n,) numbers, of the only cascade
    const int32_t* rectangles; // (n, 4) pixels it may cover: first and last column, first and last row
    int width, height;         // of the picture, whose pixels are the rays, line by line
};

// march_count and march_write, visiting blocks and the rays each covers instead of empty space along each ray.
template <class T>
int64_t march_blocks_count(const Marching<T>& marching, Occupancy occupancy, const RayArrays<T>& rays,
                           const BlockList& list, int64_t* offsets, int32_t* n_visited, int n_threads);
template <class T>
void march_blocks_write(const Marching<T>& marching, Occupancy occupancy, const RayArrays<T>& rays,
                        const BlockList& list, const int64_t* offsets, T* t, T* dt, int n_threads);

// Midpoints of samples as grid positions (S, 3), and the directions of their rays (S, 3).
template <class T>
void sample_points(const Space<T>& space, const RayArrays<T>& rays, const int64_t* offsets, const T* t, const T* dt,
                   T* positions, T* directions, int n_threads);

template <class T>
struct CompositeArrays {
    int64_t n_rays;
    const int64_t* offsets; // (R + 1,)
    const T *density, *t, *dt;
    const T* rgb;                            // (S, 3)
    T stop;                                  // transmittance below which a ray ends
    T *out_rgb, *alpha, *depth, *distortion; // (R, 3), (R,)
    int32_t* n_used;                         // (R,) samples up to and with the last that counted
};

template <class T>
void composite_forward(const CompositeArrays<T>& arrays, int n_threads);

// Optional gradients stand for zeros. What lies behind the last sample used has none.
template <class T>
struct CompositeGradients {
    const T *rgb, *alpha, *depth, *distortion; // of what was rendered, each optional
    T *density, *sample_rgb;                   // written: (S,), (S, 3)
};

template <class T>
void composite_backward(const CompositeArrays<T>& arrays, const CompositeGradients<T>& gradients, int n_threads);

// density *= decay in all n cells, then the larger of it and `values` in the cells named.
void occupancy_update(int64_t n_cells, float decay, int64_t n_values, const int64_t* cells, const float* values,
                      float* density, int n_threads);
// One bit a cell: whether its density is above the threshold. n_cells is a multiple of 8.
void occupancy_pack(int64_t n_cells, const float* density, float threshold, uint8_t* bits, int n_threads);

} // namespace kinosplat::cpu
