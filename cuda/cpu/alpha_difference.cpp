// The weighted mean of |rendered - target| of alphas and its gradient; summed in the order of chunks.
#include "math/alpha_difference.h"

#include <algorithm>
#include <vector>

#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kChunk = 16384; // pixels a task

} // namespace

template <class T>
double alpha_difference(const AlphaDifferenceArrays<T>& a, int n_threads) {
    std::vector<double> sums(chunks_of(a.n_pixels, kChunk));
    parallel_for(int64_t(sums.size()), n_threads, [&](int64_t chunk, int) {
        double sum = 0;
        for (int64_t i = chunk * kChunk; i < std::min(a.n_pixels, (chunk + 1) * kChunk); ++i) {
            const AlphaDifference<T> point =
                alpha_difference_point(a.rendered[i], a.target[i], a.mask ? a.scale * a.mask[i] : a.scale);
            sum += double(point.value);
            a.dL_drendered[i] = point.d_rendered;
        }
        sums[chunk] = sum;
    });
    double total = 0;
    for (double sum : sums)
        total += sum;
    return total;
}

template double alpha_difference<float>(const AlphaDifferenceArrays<float>&, int);
template double alpha_difference<double>(const AlphaDifferenceArrays<double>&, int);

} // namespace kinosplat::cpu
