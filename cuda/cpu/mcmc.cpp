// Noise on positions and penalties on what is in view; sums are taken in the order of chunks, so they do not depend on
// the number of threads.
#include <algorithm>
#include <vector>

#include "cpu/passes.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kChunk = 4096; // Gaussians a task

template <class Function>
void for_each_chunk(int64_t n, int n_threads, Function&& function) {
    parallel_for(chunks_of(n, kChunk), n_threads,
                 [&](int64_t chunk, int) { function(chunk, chunk * kChunk, std::min(n, (chunk + 1) * kChunk)); });
}

template <class T>
T fade_of(const PenaltyArrays<T>& a, int64_t i) {
    return a.time_centres ? largest_fade(a.time_centres[i], a.log_durations[i], a.times, a.n_times) : T(1);
}

} // namespace

template <class T>
void shake(const ShakeArrays<T>& a, int n_threads) {
    for_each_chunk(a.n, n_threads, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            if (!is_shaken(a.opacity_logits[i]))
                continue;
            const T* q = a.quats + 4 * i;
            const Vec3<T> shift = position_noise<T>({q[0], q[1], q[2], q[3]}, load3(a.log_scales, i),
                                                    a.opacity_logits[i], a.strength, a.key, uint64_t(i));
            if (is_finite(shift))
                store3(a.means, i, load3(a.means, i) + shift);
        }
    });
}

template <class T>
void penalties(const PenaltyArrays<T>& a, T* sums, const PenaltyTotals<T>& add_to, int n_threads) {
    std::vector<PenaltyPoint<T>> chunks(chunks_of(a.n, kChunk));
    for_each_chunk(a.n, n_threads, [&](int64_t chunk, int64_t begin, int64_t end) {
        PenaltyPoint<T> sum{};
        for (int64_t i = begin; i < end; ++i) {
            if (!a.visible[i])
                continue;
            const T fade = fade_of(a, i);
            const PenaltyPoint<T> point = penalty_point(a.opacity_logits[i], load3(a.log_scales, i), fade);
            sum.opacity += point.opacity;
            sum.scale += point.scale;
            if (add_to.opacity_logits) {
                const PenaltyGradient<T> gradient =
                    penalty_point_vjp(a.opacity_logits[i], load3(a.log_scales, i), fade, add_to.dL_dsums);
                add_to.opacity_logits[i] += gradient.opacity_logit;
                store3(add_to.log_scales, i, load3(add_to.log_scales, i) + gradient.log_scale);
            }
        }
        chunks[chunk] = sum;
    });
    sums[0] = sums[1] = T(0);
    for (const PenaltyPoint<T>& chunk : chunks) {
        sums[0] += chunk.opacity;
        sums[1] += chunk.scale;
    }
}

template <class T>
void penalties_backward(const PenaltyArrays<T>& a, PenaltyPoint<T> dL_dsums, T* dL_dopacity_logits, T* dL_dlog_scales,
                        int n_threads) {
    for_each_chunk(a.n, n_threads, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            PenaltyGradient<T> gradient{};
            if (a.visible[i])
                gradient = penalty_point_vjp(a.opacity_logits[i], load3(a.log_scales, i), fade_of(a, i), dL_dsums);
            dL_dopacity_logits[i] = gradient.opacity_logit;
            store3(dL_dlog_scales, i, gradient.log_scale);
        }
    });
}

template void shake<float>(const ShakeArrays<float>&, int);
template void shake<double>(const ShakeArrays<double>&, int);
template void penalties<float>(const PenaltyArrays<float>&, float*, const PenaltyTotals<float>&, int);
template void penalties<double>(const PenaltyArrays<double>&, double*, const PenaltyTotals<double>&, int);
template void penalties_backward<float>(const PenaltyArrays<float>&, PenaltyPoint<float>, float*, float*, int);
template void penalties_backward<double>(const PenaltyArrays<double>&, PenaltyPoint<double>, double*, double*, int);

} // namespace kinosplat::cpu
