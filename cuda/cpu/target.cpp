// Targets of renderings from the bytes of pictures.
#include "math/target.h"

#include <algorithm>

#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kChunk = 16384; // pixels a task

} // namespace

void compose_target(const TargetArrays& a, int n_threads) {
    const Vec3<float> background = load3(a.background, 0);
    parallel_for(chunks_of(a.n_pixels, kChunk), n_threads, [&](int64_t chunk, int) {
        for (int64_t i = chunk * kChunk; i < std::min(a.n_pixels, (chunk + 1) * kChunk); ++i) {
            const TargetPixel<float> pixel = target_pixel(a.pixels + a.n_channels * i, a.n_channels,
                                                          a.mask ? a.mask + i : nullptr, a.mask_cuts_out, background);
            store3(a.rgb, i, pixel.rgb);
            if (a.alpha)
                a.alpha[i] = pixel.alpha;
            if (a.weight)
                a.weight[i] = pixel.weight;
        }
    });
}

} // namespace kinosplat::cpu
