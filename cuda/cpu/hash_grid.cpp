// Encoding on the CPU. Positions go in blocks: entries and weights of a block are computed side by side in vectors,
// then gathered sample by sample. Levels are taken one after the other by all threads, so that the caches hold one
// level's table at a time: with 2^19 entries a level that is twice as fast as all levels of a run of samples. Backward,
// a task is a whole level, which nobody else adds to.
#include <algorithm>
#include <cstring>

#include "cpu/field.h"
#include "cpu/threads.h"
#include "math/grid_dispatch.h"

namespace kinosplat::cpu {
namespace {

constexpr int kBlock = 64;      // samples whose corners are computed together
constexpr int64_t kTask = 1024; // samples of a task

// Corners of up to kBlock samples in one level.
template <class T>
struct BlockCorners {
    alignas(64) uint32_t entries[8][kBlock];
    alignas(64) T weights[8][kBlock];

    void compute(const GridLevel& level, const T* positions, int n) {
        alignas(64) T x[kBlock], y[kBlock], z[kBlock];
        for (int i = 0; i < n; ++i) {
            x[i] = positions[3 * i];
            y[i] = positions[3 * i + 1];
            z[i] = positions[3 * i + 2];
        }
        for (int i = n; i < kBlock; ++i)
            x[i] = y[i] = z[i] = T(0);
        // Known in each branch, so that the loop inside has none.
        GridLevel known = level;
        if (level.hashed) {
            known.hashed = true;
            compute(known, x, y, z);
        } else {
            known.hashed = false;
            compute(known, x, y, z);
        }
    }

  private:
    KS_HOST_DEVICE void compute(const GridLevel& level, const T* x, const T* y, const T* z) {
#pragma omp simd
        for (int i = 0; i < kBlock; ++i) {
            const GridCell<T> cell = grid_cell(level, Vec3<T>{x[i], y[i], z[i]});
            const GridCorners corners = grid_corners(level, cell);
            T shares[8];
            grid_weights(cell.fraction, shares);
            for (int corner = 0; corner < 8; ++corner) {
                entries[corner][i] = corners.entry[corner];
                weights[corner][i] = shares[corner];
            }
        }
    }
};

// Where a row's values lie; rows that are not kept are zeros.
template <int kFeatures, bool kSparse, class T>
KS_HOST_DEVICE const T* table_row(const EncodeArrays<T>& a, uint32_t entry) {
    static constexpr T kZeros[kFeatures] = {};
    if constexpr (kSparse) {
        const uint32_t row = sparse_row(a.sparse, entry);
        return row == kNoRow ? kZeros : a.table + size_t(row) * kFeatures;
    }
    return a.table + size_t(entry) * kFeatures;
}

template <int kFeatures, bool kSparse, class T>
void encode_task(const EncodeArrays<T>& a, int l, int64_t begin, int64_t end, T* features) {
    const int64_t row = int64_t(a.grid.n_levels) * kFeatures;
    BlockCorners<T> corners;
    for (int64_t first = begin; first < end; first += kBlock) {
        const int n = int(std::min<int64_t>(kBlock, end - first));
        corners.compute(a.grid.levels[l], a.positions + 3 * first, n);
        T* out = features + first * row + l * kFeatures;
        for (int i = 0; i < n; ++i, out += row) {
            T sums[kFeatures] = {};
            for (int corner = 0; corner < 8; ++corner) {
                const T* values = table_row<kFeatures, kSparse>(a, corners.entries[corner][i]);
                const T weight = corners.weights[corner][i];
                for (int f = 0; f < kFeatures; ++f)
                    sums[f] += weight * values[f];
            }
            for (int f = 0; f < kFeatures; ++f)
                out[f] = sums[f];
        }
    }
}

template <int kFeatures, class T>
void table_gradient_of_level(const EncodeArrays<T>& a, const EncodeGradients<T>& g, int l) {
    const GridLevel& level = a.grid.levels[l];
    const int64_t row = int64_t(a.grid.n_levels) * kFeatures;
    std::fill_n(g.table + size_t(level.offset) * kFeatures, size_t(level.size) * kFeatures, T(0));
    BlockCorners<T> corners;
    for (int64_t first = 0; first < a.n_samples; first += kBlock) {
        const int n = int(std::min<int64_t>(kBlock, a.n_samples - first));
        corners.compute(level, a.positions + 3 * first, n);
        const T* dL_dfeatures = g.features + first * row + l * kFeatures;
        for (int i = 0; i < n; ++i, dL_dfeatures += row) {
            for (int corner = 0; corner < 8; ++corner) {
                T* entry = g.table + size_t(corners.entries[corner][i]) * kFeatures;
                const T weight = corners.weights[corner][i];
                for (int f = 0; f < kFeatures; ++f)
                    entry[f] += weight * dL_dfeatures[f];
            }
        }
    }
}

template <int kFeatures, class T>
void position_gradients(const EncodeArrays<T>& a, const EncodeGradients<T>& g, int64_t begin, int64_t end) {
    const int64_t row = int64_t(a.grid.n_levels) * kFeatures;
    const auto read = [&](uint32_t entry, T* values) {
        std::memcpy(values, a.table + size_t(entry) * kFeatures, kFeatures * sizeof(T));
    };
    for (int64_t i = begin; i < end; ++i) {
        const Vec3<T> position{a.positions[3 * i], a.positions[3 * i + 1], a.positions[3 * i + 2]};
        Vec3<T> sum{T(0), T(0), T(0)};
        for (int l = 0; l < a.grid.n_levels; ++l) {
            T dL_dfeatures[kFeatures];
            std::memcpy(dL_dfeatures, g.features + i * row + l * kFeatures, sizeof dL_dfeatures);
            sum = sum + grid_position_vjp<kFeatures>(a.grid.levels[l], position, read, dL_dfeatures);
        }
        g.positions[3 * i] = sum.x;
        g.positions[3 * i + 1] = sum.y;
        g.positions[3 * i + 2] = sum.z;
    }
}

} // namespace

template <class T>
void encode_forward(const EncodeArrays<T>& a, T* features, int n_threads) {
    with_grid_features(a.grid.n_features, [&](auto n_features) {
        const int64_t n_tasks = chunks_of(a.n_samples, kTask);
        parallel_for(a.grid.n_levels * n_tasks, n_threads, [&](int64_t i, int) {
            const int64_t task = i % n_tasks;
            const auto encode =
                a.sparse.headers ? encode_task<n_features(), true, T> : encode_task<n_features(), false, T>;
            encode(a, int(i / n_tasks), task * kTask, std::min(a.n_samples, (task + 1) * kTask), features);
        });
    });
}

template <class T>
void encode_backward(const EncodeArrays<T>& a, const EncodeGradients<T>& g, int n_threads) {
    with_grid_features(a.grid.n_features, [&](auto n_features) {
        if (g.table) // the finest, largest levels first: the short tasks fill the gaps at the end
            parallel_for(a.grid.n_levels, n_threads, [&](int64_t task, int) {
                table_gradient_of_level<n_features()>(a, g, a.grid.n_levels - 1 - int(task));
            });
        if (g.positions)
            parallel_for(chunks_of(a.n_samples, kTask), n_threads, [&](int64_t task, int) {
                position_gradients<n_features()>(a, g, task * kTask, std::min(a.n_samples, (task + 1) * kTask));
            });
    });
}

template void encode_forward(const EncodeArrays<float>&, float*, int);
template void encode_forward(const EncodeArrays<double>&, double*, int);
template void encode_backward(const EncodeArrays<float>&, const EncodeGradients<float>&, int);
template void encode_backward(const EncodeArrays<double>&, const EncodeGradients<double>&, int);

} // namespace kinosplat::cpu
