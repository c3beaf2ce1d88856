// Adam over the rows that were visible, and the search for rows that cannot take part.
#include <algorithm>
#include <atomic>

#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kChunkNumbers = 16384; // a task

int64_t chunk_rows(int64_t row_size) { return std::max<int64_t>(1, kChunkNumbers / std::max<int64_t>(1, row_size)); }

} // namespace

template <class T>
int64_t keep_finite_rows(int64_t n_rows, int64_t row_size, const T* numbers, const bool* asked, bool sparse, bool* rows,
                         int n_threads) {
    const int64_t size = chunk_rows(row_size);
    std::atomic<int64_t> n_lost{0};
    parallel_for(chunks_of(n_rows, size), n_threads, [&](int64_t chunk, int) {
        int64_t lost = 0;
        for (int64_t row = chunk * size; row < std::min(n_rows, (chunk + 1) * size); ++row) {
            rows[row] = !asked || asked[row];
            if (!rows[row])
                continue;
            const T* begin = numbers + row * row_size;
            T sum = T(0); // of zeros, unless a number is not finite
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < row_size; ++i)
                sum += begin[i] - begin[i];
            rows[row] = sum == T(0);
            lost += !rows[row];
            if (sparse)
                rows[row] = rows[row] && std::any_of(begin, begin + row_size, [](T x) { return x != T(0); });
        }
        if (lost > 0)
            n_lost += lost;
    });
    return n_lost;
}

template <class T>
void adam_step(const AdamArrays<T>& arrays, const AdamSettings<T>& settings, int n_threads) {
    const int64_t size = chunk_rows(arrays.row_size);
    const auto update = [&](int64_t begin, int64_t end) { // numbers, not rows
#pragma GCC ivdep
        for (int64_t i = begin; i < end; ++i)
            adam_update(settings, arrays.gradient[i], arrays.parameter[i], arrays.first[i], arrays.second[i]);
    };
    parallel_for(chunks_of(arrays.n_rows, size), n_threads, [&](int64_t chunk, int) {
        const int64_t end = std::min(arrays.n_rows, (chunk + 1) * size);
        for (int64_t row = chunk * size; row < end;) {
            // Runs of visible rows are one contiguous stretch of numbers.
            int64_t stop = row;
            while (stop < end && (!arrays.visible || arrays.visible[stop]))
                ++stop;
            update(row * arrays.row_size, stop * arrays.row_size);
            row = stop + 1;
        }
    });
}

template int64_t keep_finite_rows<float>(int64_t, int64_t, const float*, const bool*, bool, bool*, int);
template int64_t keep_finite_rows<double>(int64_t, int64_t, const double*, const bool*, bool, bool*, int);
template void adam_step<float>(const AdamArrays<float>&, const AdamSettings<float>&, int);
template void adam_step<double>(const AdamArrays<double>&, const AdamSettings<double>&, int);

} // namespace kinosplat::cpu
