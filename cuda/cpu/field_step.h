// The passes of a field's training step on the CPU that are no passes of drawing: the rays of a step, what networks say
// made into density and colour, and what rays cost. Memory and types as in cpu/field.h.
#pragma once

#include <cstdint>

#include "math/cell_visits.h"
#include "math/pixel_draw.h"

namespace kinosplat::cpu {

// The rays of a step; `key` is that of the random numbers.
void draw_rays(const PixelPool& pool, const DrawnRays& rays, uint64_t key, int n_threads);

// Visits `first` and on of an update of the occupancy grid: cells (n,), -1 for none, and grid positions (n, 3).
void visit_cells(const Marching<float>& marching, const CellVisits& visits, int64_t n_occupied, int64_t first,
                 int64_t n, int64_t* cells, float* positions, int n_threads);

template <class T>
struct HeadArrays {
    int64_t n_samples;
    int width;              // of a row that begins with the outputs of the density network
    const T* outputs;       // (S, width), the first is the log density
    const T* gate;          // optional (S,) factor of the density
    const T* colour_logits; // (S, 3)
    T density_scale;
};

// density (S,) and rgb (S, 3).
template <class T>
void activate(const HeadArrays<T>& arrays, T* density, T* rgb, int n_threads);

// dL_dlogits (S, 3) from those of the colours, which are (S, 3) as well.
template <class T>
void colour_gradients(int64_t n_samples, const T* rgb, const T* dL_drgb, T* dL_dlogits, int n_threads);

template <class T>
struct OutputGradients {
    int n_outputs;              // of the density network
    int n_colour_inputs;        // of the colour network, whose first are the outputs
    const T* dL_dcolour_inputs; // (S, n_colour_inputs)
    const T* dL_ddensity;       // (S,)
    T* dL_doutputs;             // (S, n_outputs)
    T* dL_dgate;                // (S,) where there is a gate
};

// Of the density network's outputs, by way of colour and of density.
template <class T>
void output_gradients(const HeadArrays<T>& arrays, const OutputGradients<T>& gradients, int n_threads);

template <class T>
struct GateArrays {
    int64_t n_samples;
    int n_features;
    const T* features; // (S, n_features)
    const T* logits;   // (S,) of the saliency
    T sharpness;
};

// gated (S, n_features) and gate (S,).
template <class T>
void gate_features(const GateArrays<T>& arrays, T* gated, T* gate, int n_threads);

// Gradients of the features, which may take the place of those of what was gated, and of the logits.
template <class T>
void gate_gradients(const GateArrays<T>& arrays, const T* dL_dgated, const T* dL_dgate, T* dL_dfeatures, T* dL_dlogits,
                    int n_threads);

template <class T>
struct RayDifferenceArrays {
    int64_t n_rays;
    const T *rgb, *alpha;         // (R, 3), (R,)
    const T *background, *target; // (R, 3)
    const T* distortion;          // optional (R,)
    const T* weight;              // optional (R,)
    T total;                      // sum of the weights, or R
    T huber, distortion_weight;
    T *dL_drgb, *dL_dalpha; // written
    T* dL_ddistortion;      // written where there is distortion
};

// sums receives the loss of colours, that of distortion, and the squared error: means over the rays.
template <class T>
void ray_difference(const RayDifferenceArrays<T>& arrays, double (&sums)[3], int n_threads);

} // namespace kinosplat::cpu
