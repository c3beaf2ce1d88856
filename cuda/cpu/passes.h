// The passes of the CPU backend: what each reads and writes. Python (render/native_cpu.py) owns all memory and the
// order of calls:
//
//     project_forward -> bin -> blend_forward    ...    blend_backward -> project_backward
//
// A *row* is one visible Gaussian of one camera, in the order of the set. A *hit* is a pair of a row and a tile it
// touches; it has a *position* in the lists that are sorted by tile and, within one, by depth, and a *slot* in the
// order of rows, where its gradients wait until project_backward sums them. Sums are always taken in the order of
// slots, so results do not depend on the number of threads.
//
// T is float or double. Pointers named optional may be null.
#pragma once

#include <cstdint>

#include "math/adam.h"
#include "math/exposure.h"
#include "math/gaussian.h"
#include "math/mcmc.h"

namespace kinosplat::cpu {

// One row as the blend pass reads it: these fields, then the channels.
enum RecordField : int {
    kMeanX,
    kMeanY,
    kConicXX,
    kConicXY,
    kConicYY,
    kOpacity,
    kMinExponent,      // of the falloff at a pixel: what lies below is under kMinAlpha
    kMinBlockExponent, // at the centre of a block: what lies below has no pixel that matters
    kRecordHead        // number of fields before the channels
};

// Pixels along one side of the blocks that tiles are blended in: a block is one vector of 16 floats, and square,
// because a small Gaussian touches fewer squares than rows of 16 pixels.
constexpr int kBlockSize = 4;

// Data beside the records that only the bin pass needs.
enum EllipseField : int { kCovXX, kCovXY, kCovYY, kCutoff, kEllipseFields };

template <class T>
struct GaussianArrays {
    int64_t n;
    const T *means, *quats, *log_scales, *opacity_logits, *sh_dc, *sh_rest;
    const T *displacements, *time_centres, *log_durations; // optional: all or none
    const T* features;                                     // optional (n, n_features)
    int n_sh_rest, n_features;
};

struct ChannelSettings {
    int sh_degree;      // used, at most what is stored
    bool depth, normal; // extra channels
    int n_features;
    int count() const { return 3 + int(depth) + 3 * int(normal) + n_features; }
};

// Channels are blended in groups of 3, 4 or 8, sizes known at compile time; more than 8 go in several groups.
constexpr int kMaxChannelGroup = 8;
constexpr int channel_group_size(int n) { return n <= 3 ? 3 : n == 4 ? 4 : kMaxChannelGroup; }

// Numbers a record takes: the channels are padded with zeros to whole groups.
constexpr int record_stride(int n_channels) {
    const int full = (n_channels - 1) / kMaxChannelGroup * kMaxChannelGroup;
    return kRecordHead + full + channel_group_size(n_channels - full);
}

template <class T>
struct ProjectOutputs {
    int32_t* indices;     // (n) Gaussian of each row
    T* records;           // (n, record_stride(channels))
    T* depths;            // (n) z in the camera
    T* ellipses;          // (n, kEllipseFields)
    int32_t* hit_offsets; // (n + 1) first slot of each row
    int32_t* chunk_rows;  // (chunks) scratch
};

struct ProjectCounts {
    int64_t n_rows, n_hits;
};

constexpr int64_t kProjectChunk = 1024; // Gaussians a task

// Rows come out in the order of the set. Throws std::length_error when there are more than 2^31 - 1 hits.
template <class T>
ProjectCounts project_forward(const GaussianArrays<T>& gaussians, const View<T>& view, const ChannelSettings& channels,
                              const ProjectOutputs<T>& out, int n_threads);

template <class T>
struct BinArrays {
    int64_t n_rows, n_hits;
    int width, height, n_channels;
    const T *records, *depths, *ellipses;
    const int32_t* hit_offsets;
    // scratch
    uint64_t *keys, *keys_other; // (n_rows) each
    int32_t* tile_of_slot;       // (n_hits)
    int32_t* histograms;         // (n_threads, tiles)
    // outputs
    int32_t* tile_offsets;         // (tiles + 1)
    int32_t *hit_rows, *hit_slots; // (n_hits) by position
};

template <class T>
void bin(const BinArrays<T>& arrays, int n_threads);

// One channel of a picture, or of its gradient: value of pixel p is data[p * stride]; null data is all zero and not
// written.
template <class T>
struct Channel {
    T* data;
    int64_t stride;
    T background;
};

template <class T>
struct BlendArrays {
    int width, height, n_channels;
    const T *records, *depths;
    const int32_t *tile_offsets, *hit_rows;
    const int32_t* hit_slots;
};

template <class T>
struct BlendOutputs {
    const Channel<T>* channels;
    T* transmittance;  // (height, width) left at the end
    T* alpha;          // (height, width) 1 - transmittance
    int32_t* last_hit; // (height, width) hits of the tile up to and with the last that contributed
    T* median_depth;   // optional (height, width)
    T* hit_weights;    // optional (n_hits) by slot: sum of alpha * transmittance
    T* hit_pixels;     // optional (n_hits) by slot: pixels contributed to
};

template <class T>
void blend_forward(const BlendArrays<T>& arrays, const BlendOutputs<T>& out, int n_threads);

template <class T>
struct BlendGradients {
    const Channel<T>* channels; // gradients of the loss by the picture, with the forward pass's backgrounds
    const T* alpha;             // optional (height, width)
    const T* transmittance;
    const int32_t* last_hit;
    T* hits;             // (n_hits, kNumMoments + n_channels) by slot
    T* tile_backgrounds; // (tiles, n_channels) gradient of the background, to be summed
};

template <class T>
void blend_backward(const BlendArrays<T>& arrays, const BlendGradients<T>& gradients, int n_threads);

template <class T>
struct ProjectGradients {
    int64_t n_rows;
    const int32_t *indices, *hit_offsets;
    const T* records;
    const T* hits; // as blend_backward left them
    // Outputs, (n, ...) like the parameters; optional ones are not wanted. They are added to, or with `clear` set, and
    // then zero for what nobody saw.
    bool clear;
    T *means, *quats, *log_scales, *opacity_logits, *sh_dc, *sh_rest, *displacements, *time_centres, *log_durations;
    T* features;
    T* world_to_camera;         // (4, 4)
    T* K;                       // (3, 3)
    float* screen_gradient;     // optional (n): norm of the gradient by the mean on screen, in half images
    CameraGradient<T>* partial; // (chunks of kProjectChunk rows) scratch
};

template <class T>
void project_backward(const GaussianArrays<T>& gaussians, const View<T>& view, const ChannelSettings& channels,
                      const ProjectGradients<T>& gradients, int n_threads);

// Adds one camera's rows to the per-Gaussian statistics; arrays over all n Gaussians.
template <class T>
struct StatisticsArrays {
    int64_t n_rows;
    const int32_t *indices, *hit_offsets;
    const T *ellipses, *hit_weights, *hit_pixels;
    float* blend_weight;
    int32_t *n_pixels, *n_seen;
    float* max_radius;
};

template <class T>
void add_statistics(const StatisticsArrays<T>& arrays, int n_threads);

// Sets `visible` (n) to true for the Gaussians of one camera's rows; with `clear` to false for all others.
void mark_visible(int64_t n, int64_t n_rows, const int32_t* indices, bool clear, bool* visible, int n_threads);

constexpr int kPhotometricSums = 3; // absolute differences, SSIM values, squared differences

// (1 - w) mean |a - b| + w (1 - mean SSIM(a, b)) over (n_images, height, width, 3); pixels count `mask` times, and both
// images are multiplied by it first.
template <class T>
struct PhotometricArrays {
    int64_t n_images;
    int width, height;
    const T *rendered, *target;
    const T* mask;     // optional (n_images, height, width)
    T ssim_weight;     // w
    T inverse_count;   // 1 / (3 sum of mask)
    T* scratch;        // (n_threads, photometric_scratch(width))
    double* band_sums; // (n_images * photometric_bands(height), kPhotometricSums), all times mask
    T* dL_drendered;   // optional (n_images, height, width, 3)
};

int64_t photometric_scratch(int64_t width);
int64_t photometric_bands(int64_t height);

template <class T>
void photometric(const PhotometricArrays<T>& arrays, int n_threads);

// Colours of pictures as cameras show them (cuda/math/exposure.h).
template <class T>
struct ExposureArrays {
    int64_t n_images, n_pixels; // pixels a picture
    const T* rgb;               // (n_images, n_pixels, 3)
    const T* exposures;         // optional (n_images, 3, 4), the identity without
    const T* target;            // optional (n_images, n_pixels, 3), nothing is cut off without
    T saturated;                // a target at least this bright may have been any brighter
};

template <class T>
void expose(const ExposureArrays<T>& arrays, T* shown, int n_threads);

// `dL_dexposures` is optional.
template <class T>
void expose_backward(const ExposureArrays<T>& arrays, const T* dL_dshown, T* dL_drgb, T* dL_dexposures, int n_threads);

// The target of a rendering from the bytes of one picture (cuda/math/target.h).
struct TargetArrays {
    int64_t n_pixels;
    int n_channels;          // 3 or 4
    const uint8_t* pixels;   // (n_pixels, n_channels)
    const uint8_t* mask;     // optional (n_pixels)
    bool mask_cuts_out;      // it ends the scene, else it weighs pixels
    const float* background; // (3)
    float* rgb;              // (n_pixels, 3)
    float *alpha, *weight;   // optional (n_pixels)
};

void compose_target(const TargetArrays& arrays, int n_threads);

// `scale` times the sum of mask * |rendered - target| over alphas, and its gradient.
template <class T>
struct AlphaDifferenceArrays {
    int64_t n_pixels;
    const T *rendered, *target;
    const T* mask; // optional
    T scale;
    T* dL_drendered;
};

template <class T>
double alpha_difference(const AlphaDifferenceArrays<T>& arrays, int n_threads);

// Sets `rows` (n_rows) to those that are `asked` for (optional, all by default; it may be `rows` itself), whose numbers
// are all finite and, where `sparse`, not all zero; returns how many were asked for and are not finite.
template <class T>
int64_t keep_finite_rows(int64_t n_rows, int64_t row_size, const T* numbers, const bool* asked, bool sparse, bool* rows,
                         int n_threads);

// One step of Adam on (n_rows, row_size) numbers; rows where `visible` is false keep everything as it is.
template <class T>
struct AdamArrays {
    int64_t n_rows, row_size;
    T *parameter, *first, *second;
    const T* gradient;
    const bool* visible; // optional (n_rows)
};

template <class T>
void adam_step(const AdamArrays<T>& arrays, const AdamSettings<T>& settings, int n_threads);

// Noise on positions (cuda/math/mcmc.h); `key` is that of the random numbers, the Gaussian's number their counter.
template <class T>
struct ShakeArrays {
    int64_t n;
    T* means; // (n, 3), moved in place
    const T *quats, *log_scales, *opacity_logits;
    T strength;
    uint64_t key;
};

template <class T>
void shake(const ShakeArrays<T>& arrays, int n_threads);

// Sums over the Gaussians in view, each times its fade at `times`, of opacities and of scales along all three axes.
template <class T>
struct PenaltyArrays {
    int64_t n;
    const T *opacity_logits, *log_scales;
    const bool* visible;
    const T *time_centres, *log_durations; // optional: both or none
    const T* times;                        // (n_times) seconds
    int n_times;
};

// Optional gradients by the opacity logits (n) and the log-scales (n, 3), to which those of the sums are added, from
// the sums' own.
template <class T>
struct PenaltyTotals {
    PenaltyPoint<T> dL_dsums;
    T *opacity_logits, *log_scales;
};

template <class T>
void penalties(const PenaltyArrays<T>& arrays, T* sums, const PenaltyTotals<T>& add_to, int n_threads);

template <class T>
void penalties_backward(const PenaltyArrays<T>& arrays, PenaltyPoint<T> dL_dsums, T* dL_dopacity_logits,
                        T* dL_dlog_scales, int n_threads);

} // namespace kinosplat::cpu
