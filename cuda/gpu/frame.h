// What the passes of one frame read and write: plain pointers to device memory that the caller owns. A frame renders
// one set of Gaussians from several cameras of one size; a `row` is one visible pair of a Gaussian and a camera.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "constants.h"

namespace kinosplat::gpu {

// Parameters (const float) or their gradients (float), laid out as render/gaussians.py says; null where there is none.
template <class Number>
struct GaussianArrays {
    Number* means;          // (N, 3)
    Number* quats;          // (N, 4)
    Number* log_scales;     // (N, 3)
    Number* opacity_logits; // (N,)
    Number* sh_dc;          // (N, 3)
    Number* sh_rest;        // (N, n_sh_rest, 3)
    Number* displacements;  // (N, 3)
    Number* time_centres;   // (N,)
    Number* log_durations;  // (N,)
    Number* features;       // (N, n_features)
};

// Accumulators over views, one number a Gaussian, all null where statistics are not wanted; `visible` is wanted or not
// by itself.
struct StatisticsArrays {
    float* blend_weight;
    int* n_pixels;
    float* screen_gradient; // half images
    int* n_seen;
    float* max_radius; // pixels
    bool* visible;
};

// A span of tiles has 12 bits for a column: no picture may be wider or higher.
constexpr int kMaxImageSize = 4096 * kTileSize;

// Their times travel with the kernels' arguments, which are limited to 4 KiB.
constexpr int kMaxCameras = 64;

struct Frame {
    GaussianArrays<const float> gaussians;
    const float* world_to_camera; // (C, 4, 4)
    const float* K;               // (C, 3, 3)
    const float* background;      // (C, 3)
    StatisticsArrays statistics;
    float times[kMaxCameras]; // seconds, read in a moving set only
    int n_gaussians, n_cameras, width, height;
    int n_sh_rest; // stored coefficients a colour beyond the first
    int sh_degree; // used
    int n_features;
    float near, far;
    bool antialiased;
    bool depth_channel, normal_channel;
    bool packed; // inference: colours in half precision, nothing kept for a backward pass

    bool moving() const { return gaussians.displacements != nullptr; }
    int n_pairs() const { return n_gaussians * n_cameras; }
    // Channels blended beside the colour: depth, normal, features, in this order.
    int n_channels() const { return (depth_channel ? 1 : 0) + (normal_channel ? 3 : 0) + n_features; }
};

// The size of the tile grid, over all cameras.
struct TileGrid {
    int columns, rows, n_cameras;
    __host__ __device__ int n_tiles() const { return columns * rows; }
    __host__ __device__ int n_all() const { return columns * rows * n_cameras; }
};
TileGrid tile_grid(const Frame& frame);

// One row as the blend passes read it, in units of float4: a Gaussian's falloff is 2^(log2_opacity - u^2 - v^2) with
// u = u_x dx + u_y dy and v = v_y dy (Cholesky factor of its conic times log2(e) / 2), d = pixel centre - mean.
//   [0] = {mean_x, mean_y, u_x, u_y}
//   [1] = {v_y, log2_opacity, red, green}      packed: {v_y, log2_opacity, half2(red, green), half2(blue, 0)}
// and, unless packed, blue and depth as a float2 of their own.
constexpr int kRowFloat4s = 2;

// Gradients of one row: the six moments of cuda/math/blending.h, red and green; blue is kept apart.
constexpr int kRowGradientFloats = 8;

// What the project pass found out.
struct FrameCounts {
    uint32_t n_rows, n_hits;
    uint32_t max_depth_key, max_inverse_depth_key; // bits of the largest depth, inverted bits of the smallest
};

// Page-locked memory in which the host waits for them.
struct HostCounts {
    FrameCounts counts;
    uint32_t ready; // 0 until the counts are there
};

// Scratch of the project pass, for `frame.n_pairs()` rows; the bin pass reads it.
struct ProjectScratch {
    HostCounts* host_counts;
    uint32_t* depth_limits; // as in FrameCounts
    uint32_t* ticket;       // order in which blocks start
    uint64_t* status;       // of the chained scan, one a block
    uint32_t* emit_ticket;  // the same for the bin pass
    uint64_t* emit_status;
    size_t zeroed_bytes;   // all of the above start at zero
    uint2* spans;          // TileSpan of each row
    uint32_t* depth_keys;  // bits of the depth: positive floats sort like integers
    uint32_t* row_numbers; // 0, 1, 2, ...
};

// What the project pass leaves for the passes behind it.
struct Rows {
    float4* records;      // (rows, kRowFloat4s)
    float2* blue_depth;   // (rows,) or null when packed
    int* gaussian_of_row; // (rows,)
    int* camera_of_row;   // (rows,) or null with one camera
    int* row_of_pair;     // (C, N), -1 where not visible; null when no backward pass follows
    float* channels;      // (rows, n_channels) or null
};

// Scratch of the bin pass, which sorts to and fro between two buffers; of hits the other one is TileLists::hits.
struct BinScratch {
    uint32_t *other_depth_keys, *other_row_numbers;
    void* tile_keys[2]; // uint16_t or uint32_t a hit
    uint32_t* other_hits;
    void* sort_space; // CUB's
    size_t sort_space_bytes;
};

// Hits grouped by tile, in order of depth within a tile.
struct TileLists {
    uint32_t* hits; // row of each hit
    uint2* ranges;  // (C * tiles,) begin and end in `hits`
};

struct Pictures {
    float* rgb;          // (C, H, W, 3)
    float* alpha;        // (C, H, W)
    float* channels;     // (C, H, W, n_channels) or null
    float* median_depth; // (C, H, W) or null
};

struct PictureGradients {
    const float* rgb;      // (C, H, W, 3)
    const float* alpha;    // (C, H, W)
    const float* channels; // (C, H, W, n_channels) or null
};

struct RowGradients {
    float* moments;  // (rows, kRowGradientFloats)
    float* blue;     // (rows,)
    float* channels; // (rows, n_channels) or null
};

struct CameraGradients {
    float* world_to_camera; // (C, 4, 4) or null
    float* K;               // (C, 3, 3) or null
};

// ---- the passes, in the order of a frame; each launches on `stream` and returns ----

// Slice in time, project, colour and count tiles; visible pairs are written as rows in order of camera, then Gaussian.
void project_forward(const Frame&, const ProjectScratch&, const Rows&, cudaStream_t);
// Depth, normal and features of each row.
void gather_channels(const Frame&, const Rows&, int n_rows, cudaStream_t);
// Lists of hits a tile: rows sorted by depth, one hit for each tile a row touches, sorted by tile.
void bin(const Frame&, const FrameCounts&, const ProjectScratch&, const Rows&, const BinScratch&, const TileLists&,
         cudaStream_t);

// What the layout of scratch memory has to know of the passes.
int project_blocks(const Frame&);
int emit_blocks(uint32_t n_rows);
int tile_key_bytes(const Frame&);
size_t sort_space_bytes(const Frame&, const FrameCounts&);

void blend_forward(const Frame&, const Rows&, const TileLists&, const Pictures&, cudaStream_t);
// Adds to `gradients`, which start at zero.
void blend_backward(const Frame&, const Rows&, const TileLists&, const Pictures&, const PictureGradients&,
                    const RowGradients& gradients, cudaStream_t);
// Writes every gradient, zero where a Gaussian was not visible; adds to the cameras' gradients, which start at zero.
void project_backward(const Frame&, const Rows&, const RowGradients&, const GaussianArrays<float>& gradients,
                      const CameraGradients&, cudaStream_t);

} // namespace kinosplat::gpu
