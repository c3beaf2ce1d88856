// Colours as cameras show them, and the gradients; sums over a picture are taken in the order of chunks, so they do not
// depend on the number of threads.
#include <algorithm>
#include <vector>

#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kChunk = 8192; // pixels a task

template <class T>
Exposure<T> exposure_of(const ExposureArrays<T>& a, int64_t image) {
    return a.exposures ? exposure_from_rows(a.exposures + kExposureNumbers * image) : no_exposure<T>();
}

// Calls function(image, chunk, begin, end) for runs of pixels of one picture, in a loop over all pictures' pixels.
template <class T, class Function>
void for_each_run(const ExposureArrays<T>& a, int n_threads, Function&& function) {
    const int64_t n_chunks = chunks_of(a.n_pixels, kChunk);
    parallel_for(a.n_images * n_chunks, n_threads, [&](int64_t task, int) {
        const int64_t image = task / n_chunks, first = task % n_chunks * kChunk;
        function(image, task, image * a.n_pixels + first, image * a.n_pixels + std::min(first + kChunk, a.n_pixels));
    });
}

} // namespace

template <class T>
void expose(const ExposureArrays<T>& a, T* shown, int n_threads) {
    for_each_run(a, n_threads, [&](int64_t image, int64_t, int64_t begin, int64_t end) {
        const Exposure<T> exposure = exposure_of(a, image);
        for (int64_t i = begin; i < end; ++i) {
            const Vec3<T> colour = exposed(exposure, load3(a.rgb, i));
            store3(shown, i, a.target ? cut_off(colour, load3(a.target, i), a.saturated) : colour);
        }
    });
}

template <class T>
void expose_backward(const ExposureArrays<T>& a, const T* dL_dshown, T* dL_drgb, T* dL_dexposures, int n_threads) {
    const int64_t n_chunks = chunks_of(a.n_pixels, kChunk);
    std::vector<Exposure<T>> sums(dL_dexposures ? a.n_images * n_chunks : 0);
    for_each_run(a, n_threads, [&](int64_t image, int64_t task, int64_t begin, int64_t end) {
        const Exposure<T> exposure = exposure_of(a, image);
        Exposure<T> sum{};
        for (int64_t i = begin; i < end; ++i) {
            const Vec3<T> rgb = load3(a.rgb, i);
            Vec3<T> dL = load3(dL_dshown, i);
            if (a.target)
                dL = cut_off_vjp(exposed(exposure, rgb), load3(a.target, i), a.saturated, dL);
            add_exposure_vjp(sum, rgb, dL);
            store3(dL_drgb, i, transposed_times(exposure.matrix, dL));
        }
        if (dL_dexposures)
            sums[task] = sum;
    });
    if (!dL_dexposures)
        return;
    for (int64_t image = 0; image < a.n_images; ++image) {
        Exposure<T> sum{};
        for (int64_t task = image * n_chunks; task < (image + 1) * n_chunks; ++task) {
            sum.matrix = sum.matrix + sums[task].matrix;
            sum.offset = sum.offset + sums[task].offset;
        }
        rows_from_exposure(sum, dL_dexposures + kExposureNumbers * image);
    }
}

template void expose<float>(const ExposureArrays<float>&, float*, int);
template void expose<double>(const ExposureArrays<double>&, double*, int);
template void expose_backward<float>(const ExposureArrays<float>&, const float*, float*, float*, int);
template void expose_backward<double>(const ExposureArrays<double>&, const double*, double*, double*, int);

} // namespace kinosplat::cpu
