// Pictures of a hash-grid field without tensors in between (render/field/native_fused.py): a thread takes a tile of
// rays and brings one sample of each that is not finished through encoding, networks and compositing, again and again
// until none is left. Nothing is evaluated behind what a ray cannot see through.
//
// T is float or double; pointers named optional may be null.
#pragma once

#include "cpu/mlp.h"
#include "math/hash_grid.h"
#include "math/pixel_ray.h"
#include "math/sparse_table.h"

namespace kinosplat::cpu {

constexpr int kFieldTile = 32; // pixels along one side of a tile

template <class T>
struct FusedField {
    HashGrid grid;
    const T* table;         // (entries, n_features), or the rows kept of it
    SparseIndex sparse;     // which rows are kept
    HashGrid saliency_grid; // one dense level of one feature
    const T* saliency;      // optional logits: features are multiplied by their sigmoid, and
    T sharpness;            // densities by tanh(sharpness * length of the features)
    // The networks' inputs and numbers of samples are not set; the colour network reads all outputs of the density
    // network, of which the first is the log density, and n_degrees^2 harmonics. `scratch` is (n_threads, block size).
    MlpArrays<T> density, colour;
    int n_degrees;
    T density_scale; // of exp(log density): 1 / half extent
};

template <class T>
struct FieldPicture {
    // Optional each: (height, width, 3) over the background, (height, width), sum of weights times distance, and
    // (height, width, 3) rounded to 8 bits.
    T *rgb, *alpha, *depth;
    uint8_t* bytes;
    T* scratch;        // (n_threads, field_tile_size)
    int64_t* counters; // (field_tiles, 2): rays that met an occupied cell and samples evaluated, a tile
};

// Numbers of scratch a thread, for the density network's inputs and outputs.
int64_t field_tile_size(int n_features, int n_outputs, int n_degrees);
int64_t field_tiles(int width, int height);

template <class T>
void draw_field(const FusedField<T>& field, const Marching<T>& marching, Occupancy occupancy, const FieldView<T>& view,
                const FieldPicture<T>& picture, int n_threads);

} // namespace kinosplat::cpu
