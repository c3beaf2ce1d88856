// What rays cost beside what they should have seen, and the gradients of what they saw.
#include "math/ray_difference.h"

#include <algorithm>
#include <vector>

#include "cpu/field_step.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kTask = 1024; // rays

} // namespace

template <class T>
void ray_difference(const RayDifferenceArrays<T>& a, double (&sums)[3], int n_threads) {
    struct TaskSums {
        double numbers[3] = {};
    };
    std::vector<TaskSums> tasks(chunks_of(a.n_rays, kTask)); // added in order, whoever did them
    parallel_for(int64_t(tasks.size()), n_threads, [&](int64_t task, int) {
        double (&own)[3] = tasks[task].numbers;
        for (int64_t i = task * kTask; i < std::min(a.n_rays, (task + 1) * kTask); ++i) {
            const T share = (a.weight ? a.weight[i] : T(1)) / a.total;
            const RayDifference<T> ray =
                ray_difference(load3(a.rgb, i), a.alpha[i], load3(a.background, i), load3(a.target, i), share, a.huber);
            store3(a.dL_drgb, i, ray.dL_drgb);
            a.dL_dalpha[i] = ray.dL_dalpha;
            own[0] += ray.loss;
            own[2] += ray.squared;
            if (a.distortion) {
                a.dL_ddistortion[i] = share * a.distortion_weight;
                own[1] += a.dL_ddistortion[i] * a.distortion[i];
            }
        }
    });
    std::fill_n(sums, 3, 0.0);
    for (const TaskSums& task : tasks)
        for (int k = 0; k < 3; ++k)
            sums[k] += task.numbers[k];
}

template void ray_difference(const RayDifferenceArrays<float>&, double (&)[3], int);
template void ray_difference(const RayDifferenceArrays<double>&, double (&)[3], int);

} // namespace kinosplat::cpu
