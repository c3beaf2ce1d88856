// Adam over the rows that were visible; forward only.
#include <algorithm>

#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {

template <class T>
void adam_step(const AdamArrays<T>& arrays, const AdamSettings<T>& settings, int n_threads) {
    const int64_t chunk_rows = std::max<int64_t>(1, 16384 / arrays.row_size);
    const auto update = [&](int64_t begin, int64_t end) { // numbers, not rows
#pragma GCC ivdep
        for (int64_t i = begin; i < end; ++i)
            adam_update(settings, arrays.gradient[i], arrays.parameter[i], arrays.first[i], arrays.second[i]);
    };
    parallel_for(chunks_of(arrays.n_rows, chunk_rows), n_threads, [&](int64_t chunk, int) {
        const int64_t end = std::min(arrays.n_rows, (chunk + 1) * chunk_rows);
        for (int64_t row = chunk * chunk_rows; row < end;) {
            // Runs of visible rows are one contiguous stretch of numbers.
            int64_t stop = row;
            while (stop < end && (!arrays.visible || arrays.visible[stop]))
                ++stop;
            update(row * arrays.row_size, stop * arrays.row_size);
            row = stop + 1;
        }
    });
}

template void adam_step<float>(const AdamArrays<float>&, const AdamSettings<float>&, int);
template void adam_step<double>(const AdamArrays<double>&, const AdamSettings<double>&, int);

} // namespace kinosplat::cpu
