// What densification, pruning and a sparse optimiser want to know of each Gaussian, gathered from the rows of one
// camera.
#include <algorithm>

#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kChunk = 4096; // rows a task

} // namespace

template <class T>
void add_statistics(const StatisticsArrays<T>& arrays, int n_threads) {
    parallel_for(chunks_of(arrays.n_rows, kChunk), n_threads, [&](int64_t chunk, int) {
        const int64_t end = std::min(arrays.n_rows, (chunk + 1) * kChunk);
        for (int64_t row = chunk * kChunk; row < end; ++row) {
            T weight = T(0), n_pixels = T(0);
            for (int32_t slot = arrays.hit_offsets[row]; slot < arrays.hit_offsets[row + 1]; ++slot) {
                weight += arrays.hit_weights[slot];
                n_pixels += arrays.hit_pixels[slot];
            }
            const T* ellipse = arrays.ellipses + row * kEllipseFields;
            const T radius = screen_radius(Sym2<T>{ellipse[kCovXX], ellipse[kCovXY], ellipse[kCovYY]});
            const int32_t i = arrays.indices[row];
            arrays.blend_weight[i] += float(weight);
            arrays.n_pixels[i] += int32_t(n_pixels);
            arrays.n_seen[i] += 1;
            arrays.max_radius[i] = std::max(arrays.max_radius[i], float(radius));
        }
    });
}

void mark_visible(int64_t n, int64_t n_rows, const int32_t* indices, bool clear, bool* visible, int n_threads) {
    if (clear)
        std::fill_n(visible, n, false);
    parallel_for(chunks_of(n_rows, kChunk), n_threads, [&](int64_t chunk, int) {
        for (int64_t row = chunk * kChunk; row < std::min(n_rows, (chunk + 1) * kChunk); ++row)
            visible[indices[row]] = true;
    });
}

template void add_statistics<float>(const StatisticsArrays<float>&, int);
template void add_statistics<double>(const StatisticsArrays<double>&, int);

} // namespace kinosplat::cpu
