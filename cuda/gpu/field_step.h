// The passes of a field's training step on the GPU: what each reads and writes. Memory as in gpu/field.h, but buffers
// of samples have a fixed capacity and the device alone knows how many are in use, so that nobody waits for their
// number.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "math/cell_visits.h"
#include "math/pixel_draw.h"

namespace kinosplat::gpu {

// Rays share a buffer in their order. The one that reaches its end keeps what fits, those behind get nothing.
struct BufferCounts {
    int32_t n_wanted; // samples of all rays
    int32_t n_rows;   // those in the buffer
    int32_t n_rays;   // rays all of whose samples are there
    int32_t unused;
};

// How blocks of rays find their places; all zero at the start.
struct PlaceChain {
    uint64_t* status; // (buffer_blocks,)
    uint32_t* ticket;
    BufferCounts* counts;
};

int64_t buffer_blocks(int64_t n_rays);

// The rays of a step; `key` is that of the random numbers.
void draw_rays(const PixelPool&, const DrawnRays&, uint64_t key, cudaStream_t);

struct MarchBuffer {
    int64_t n_rays, capacity;
    const float *origins, *directions, *jitter; // (R, 3), (R,)
    float near;                                 // nothing is seen nearer, world units
    PlaceChain chain;
    int64_t* offsets;          // (R + 1,)
    float *t, *dt, *positions; // (capacity,), grid positions of midpoints (capacity, 3)
};

// The samples of all rays in one launch: the same as march_count and march_write give.
void march_into(const Marching<float>&, const Occupancy&, const MarchBuffer&, cudaStream_t);

// Rows of numbers that go along with a sample.
struct RowCopy {
    const float* from;
    float* to;
    int width; // 0: nothing to copy
};

constexpr int kMaxRowCopies = 5;

struct VisibleArrays {
    int64_t n_rays, capacity;
    const int64_t* offsets; // (R + 1,) of the samples met
    const float *t, *dt;
    const float* outputs; // (samples, n_outputs) of the density network, the first is the log density
    int n_outputs;
    const float* gate; // factor of the density, or null
    float density_scale, stop;
    const BufferCounts* met;
    const float* directions; // (R, 3)
    int n_degrees;           // of the spherical harmonics
    PlaceChain chain;
    // What is written of the samples up to the one that ends each ray.
    int64_t* out_offsets;
    float *out_t, *out_dt;
    float* colour_inputs; // (capacity, n_outputs + n_degrees^2)
    RowCopy copies[kMaxRowCopies];
};

void keep_visible(const VisibleArrays&, cudaStream_t);

// `count` is where the device keeps how many of `n_samples` rows are in use; null: all.
struct HeadArrays {
    int64_t n_samples;
    const int32_t* count;
    int width;                  // of a row that begins with the outputs of the density network
    const float* outputs;       // (S, width), the first is the log density
    const float* gate;          // (S,) factor of the density, or null
    const float* colour_logits; // (S, 3)
    float density_scale;
};

// density (S,) and rgb (S, 3).
void activate(const HeadArrays&, float* density, float* rgb, cudaStream_t);
// dL_dlogits (S, 3) from those of the colours.
void colour_gradients(int64_t n_samples, const int32_t* count, const float* rgb, const float* dL_drgb,
                      float* dL_dlogits, cudaStream_t);

struct OutputGradients {
    int n_outputs;                  // of the density network
    int n_colour_inputs;            // of the colour network, whose first are the outputs
    const float* dL_dcolour_inputs; // (S, n_colour_inputs)
    const float* dL_ddensity;       // (S,)
    float* dL_doutputs;             // (S, n_outputs)
    float* dL_dgate;                // (S,) where there is a gate
};

// Of the density network's outputs, by way of colour and of density.
void output_gradients(const HeadArrays&, const OutputGradients&, cudaStream_t);

struct GateArrays {
    int64_t n_samples;
    const int32_t* count;
    int n_features;
    const float* features; // (S, n_features)
    const float* logits;   // (S,) of the saliency
    float sharpness;
};

// gated (S, n_features) and gate (S,).
void gate_features(const GateArrays&, float* gated, float* gate, cudaStream_t);
// Gradients of the features, which may take the place of those of what was gated, and of the logits.
void gate_gradients(const GateArrays&, const float* dL_dgated, const float* dL_dgate, float* dL_dfeatures,
                    float* dL_dlogits, cudaStream_t);

struct RayDifferenceArrays {
    int64_t n_rays;
    const BufferCounts* counts; // rays whose samples did not fit cost nothing; null: all fit
    const float *rgb, *alpha;   // (R, 3), (R,)
    const float *background, *target;
    const float* distortion; // (R,) or null
    const float* weight;     // (R,) or null
    const float* total;      // sum of the weights of all rays; null: R
    float huber, distortion_weight;
    float *dL_drgb, *dL_dalpha;
    float* dL_ddistortion; // where there is distortion
    float* sums;           // (3,), added to: loss of colours, of distortion, squared error
};

void ray_difference(const RayDifferenceArrays&, cudaStream_t);

// Numbers (n_cells,) of the occupied cells in their order, and how many; status and ticket are zero at the start.
int64_t list_blocks(int64_t n_cells);
void list_occupied(int64_t n_cells, const uint8_t* bits, uint64_t* status, uint32_t* ticket, int32_t* cells,
                   int32_t* count, cudaStream_t);

// Visits `first` and on of an update of the occupancy grid: cells (n,), -1 for none, and grid positions (n, 3).
void visit_cells(const Marching<float>&, const CellVisits&, const int32_t* n_occupied, int64_t first, int64_t n,
                 int64_t* cells, float* positions, cudaStream_t);

} // namespace kinosplat::gpu
