// A hash-grid field as it is drawn, not learned (render/field/native_fused.py): from grid positions and directions to
// densities and colours in one kernel, and from a camera to a picture in two. Numbers of 16 bits in the table and in
// the networks, sums in float.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

#include "math/hash_grid.h"
#include "math/mlp.h"
#include "math/pixel_ray.h"
#include "math/sparse_table.h"

namespace kinosplat::gpu {

// Outputs of the density network, of which the first is the log density: one tile of the tensor cores.
constexpr int kDensityOutputs = 16;

struct FusedField {
    HashGrid grid;            // of 2 or 4 features a level, kMaxMlpWidth in all
    const void* table;        // (entries, n_features) of 16 bits, or the rows kept of it
    SparseIndex sparse;       // which rows are kept
    HashGrid saliency_grid;   // one dense level of one feature
    const float* saliency;    // optional logits: features are multiplied by their sigmoid, and
    float sharpness;          // densities by tanh(sharpness * length of the features)
    MlpShape density, colour; // n_features to kDensityOutputs; these and n_degrees^2 harmonics to 3
    const float* density_weights[kMaxMlpLayers];
    const float* colour_weights[kMaxMlpLayers];
    int n_degrees;       // of the spherical harmonics of the direction
    float density_scale; // of exp(log density): 1 / half extent
};

// Bytes of shared memory that a block needs at least for networks of these shapes (launch.h: what the device has).
int least_shared_bytes(const MlpShape& density, const MlpShape& colour);

// Densities (n,) and colours (n, 3) of samples: grid positions and unit directions (n, 3).
void evaluate_field(const FusedField&, int64_t n_samples, const float* positions, const float* directions,
                    float* density, float* rgb, cudaStream_t);

// Stages whose share of the time is told: cycles of warps, which wait for one another while others work.
enum FieldStage { kStageMarch, kStageEncode, kStageNetworks, kStageComposite, kStageRays, kFieldStages };

struct FieldPicture {
    // Optional each: (height, width, 3) over the background, (height, width), sum of weights times distance, and
    // (height, width, 3) rounded to 8 bits.
    float *rgb, *alpha, *depth;
    uint8_t* bytes;
    // Scratch: pixels whose rays meet something and where, (height * width) each; counters (kFieldCounters), of which
    // the first is the number of these pixels, the third the number of samples evaluated when the call is done.
    uint32_t* pixels;
    float* starts;
    uint64_t* counters;
    uint64_t* stage_cycles; // optional (kFieldStages)
};

constexpr int kFieldCounters = 3;

void draw_field(const FusedField&, const Marching<float>&, const Occupancy&, const FieldView<float>&,
                const FieldPicture&, cudaStream_t);

} // namespace kinosplat::gpu
