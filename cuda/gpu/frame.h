// What the passes of one frame read and write: plain pointers to device memory that the caller owns. A frame renders
// one set of Gaussians from several cameras of one size. A `row` is a pair of a Gaussian and a camera, numbered camera
// * n_gaussians + Gaussian; a `hit` is a pair of a row and a tile it touches; a `quad` is two by two tiles, and an
// `entry` a row in the list of a quad, with one bit for each of the four tiles that it hits.
#pragma once

#include <cstdint>
#include <cuda_fp16.h>
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
    const __half* half_sh_rest;   // instead of gaussians.sh_rest, where nothing is kept for a backward pass
    const float* world_to_camera; // (C, 4, 4)
    const float* K;               // (C, 3, 3)
    const float* background;      // (C, 3) or null for black
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
    __host__ __device__ int quad_columns() const { return (columns + 1) / 2; }
    __host__ __device__ int n_quads() const { return quad_columns() * ((rows + 1) / 2); }
    __host__ __device__ int n_all_quads() const { return n_quads() * n_cameras; }
};
TileGrid tile_grid(const Frame& frame);

// One row as the blend passes read it, in units of float4: a Gaussian's falloff is 2^(log2_opacity - u^2 - v^2) with
// u = u_x dx + u_y dy and v = v_y dy (Cholesky factor of its conic times log2(e) / 2), d = pixel centre - mean.
//   [0] = {mean_x, mean_y, u_x, u_y}
//   [1] = {v_y, log2_opacity, red, green}      packed: {v_y, log2_opacity, half2(red, green), half2(blue, 0)}
// and, unless packed, blue and depth as a float2 of their own.
constexpr int kRowFloat4s = 2;

// What the host waits for, in page-locked memory.
struct FrameCounts {
    uint32_t n_rows, n_hits, n_entries; // visible rows; at most 2^32 - 1, and then they are more
};
struct HostCounts {
    FrameCounts counts;
    uint32_t ready; // 0 until the counts are there
};

// Found out by the project and compact passes; starts at zero.
struct DeviceCounts {
    unsigned long long n_hits, n_entries;
    uint32_t n_rows;
    uint32_t max_depth_key, max_inverse_depth_key; // bits of the largest depth, inverted bits of the smallest
};

// Keys and values that a sort moves to and fro between two of these.
template <class Key>
struct SortBuffer {
    Key* keys;
    uint32_t* values;
};

constexpr int kMaxRadixBits = 8;
constexpr int kRadixBins = 1 << kMaxRadixBits;

// What a sort needs besides its buffers; starts at zero.
struct RadixScratch {
    uint32_t* histograms; // (passes, kRadixBins), filled in by whoever writes the first buffer
    uint32_t* tickets;    // (passes,) order in which blocks start
    uint32_t* status;     // (passes, blocks, kRadixBins) of the scan chained through blocks
    int n_blocks;
};

// Depths are sorted by 24 bits.
constexpr int kDepthPasses = 3;

// Scratch of everything up to the rows in order of depth.
struct ProjectScratch {
    HostCounts* host_counts;
    DeviceCounts* counts;
    uint32_t* compact_ticket; // order in which blocks start
    uint64_t* compact_status; // of the chained scan, one a block
    RadixScratch sort;
    size_t zeroed_bytes;              // all of the above on the device starts at zero
    uint2* block_counts;              // hits and entries of each block of the project pass
    uint2* spans;                     // TileSpan of each row
    uint32_t* more_spans;             // the rest of it, where there is any
    uint32_t* sorted_rows;            // the result
    SortBuffer<uint32_t> by_depth[2]; // [0].keys: first bits of the depth of every row, 0 where not visible
    void* free_after_sort;            // what by_depth takes besides sorted_rows
    size_t free_bytes;
};

// What the project pass leaves for the passes behind it.
struct Rows {
    float4* records;    // (rows, kRowFloat4s)
    float2* blue_depth; // (rows,) or null when packed
    float* channels;    // (rows, n_channels) or null
};

// Scratch of the bin pass, which sorts to and fro between two buffers, one of which holds TileLists::entries.
struct BinScratch {
    RadixScratch sort;
    uint32_t* ticket;
    uint64_t* status;    // of the chained scan, one a block
    size_t zeroed_bytes; // all of the above starts at zero
    void* keys[2];       // quad numbers, uint16_t or uint32_t an entry
    uint32_t* other_entries;
};

// Entries grouped by quad, in order of depth within a quad. An entry is row * 16 + bits of the tiles hit, see
// quad_bit().
struct TileLists {
    uint32_t* entries;
    uint2* ranges; // (C * quads,) begin and end in `entries`
};
constexpr int kQuadBits = 4;
__host__ __device__ inline int quad_bit(int tile_column, int tile_row) {
    return (tile_row & 1) * 2 + (tile_column & 1);
}

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

// Gradients of the rows: the six moments of cuda/math/blending.h and the colour. With one camera they are collected
// where the gradients of the Gaussians are going to be (of quats, log_scales and means), which takes no memory of their
// own.
struct RowGradients {
    float* moments;        // (rows, 4): one, x, y, xx
    float* second_moments; // (rows, 3): xy, yy, and a number nobody uses
    float* rgb;            // (rows, 3)
    float* channels;       // (rows, n_channels) or null
};

struct CameraGradients {
    float* world_to_camera; // (C, 4, 4) or null
    float* K;               // (C, 3, 3) or null
};

// ---- the passes, in the order of a frame; each launches on `stream` and returns ----

// Slice in time, project, colour and count tiles; visible rows are written at their own place.
void project_forward(const Frame&, const ProjectScratch&, const Rows&, cudaStream_t);
// Moves the visible rows together, in their order, and sends the counts to the host.
void compact(const Frame&, const ProjectScratch&, cudaStream_t);
// Visible rows in order of depth; equal depths keep the order of the rows.
void sort_by_depth(const Frame&, const ProjectScratch&, cudaStream_t);
// Depth, normal and features of each visible row.
void gather_channels(const Frame&, const Rows&, const uint32_t* visible_rows, int n_rows, cudaStream_t);
// Lists of entries a quad: one entry for each quad a row touches, in order of depth, sorted by quad.
void bin(const Frame&, const FrameCounts&, const ProjectScratch&, const Rows&, const BinScratch&, const TileLists&,
         cudaStream_t);

// What the layout of scratch memory has to know of the passes.
int project_blocks(const Frame&);
int compact_blocks(const Frame&);
int radix_blocks(uint32_t n_items);
int emit_blocks(uint32_t n_rows);
int quad_key_bytes(const Frame&);
int quad_passes(const Frame&);

void blend_forward(const Frame&, const Rows&, const TileLists&, const Pictures&, cudaStream_t);
// Sets them to zero, but for channels.
void clear_row_gradients(const Frame&, const RowGradients&, cudaStream_t);
// Adds to `gradients`, which start at zero.
void blend_backward(const Frame&, const Rows&, const TileLists&, const Pictures&, const PictureGradients&,
                    const RowGradients& gradients, cudaStream_t);
// Writes every gradient, zero where a Gaussian contributed nothing; adds to the cameras' gradients, which start at
// zero. The gradients of a Gaussian's rows are read before its own are written, so that they may share memory.
void project_backward(const Frame&, const RowGradients&, const GaussianArrays<float>& gradients, const CameraGradients&,
                      cudaStream_t);

} // namespace kinosplat::gpu
