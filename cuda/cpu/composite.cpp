// Compositing on the CPU: a task is a run of rays; the exponentials of a ray's samples are taken in vectors, the rest
// follows one by one, since every sample's share depends on those before it.
#include <algorithm>

#include "cpu/field.h"
#include "cpu/lanes.h"
#include "cpu/threads.h"
#include "math/composite.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kTask = 64; // rays
constexpr int kSteps = 64;    // samples whose exponentials are taken together

// exp(-density dt) of n <= kSteps samples; reads no further than they go.
template <class T>
void transmitted(const T* density, const T* dt, int n, T* steps) {
    using L = Lanes<T>;
    int k = 0;
    for (; k + L::kCount <= n; k += L::kCount)
        exp(-(L::load(density + k) * L::load(dt + k))).store(steps + k);
    if (k < n) {
        T optical_depth[L::kCount] = {};
        for (int j = 0; k + j < n; ++j)
            optical_depth[j] = density[k + j] * dt[k + j];
        exp(-L::load(optical_depth)).store(steps + k); // `steps` has room for whole vectors
    }
}

template <class T>
Vec3<T> row(const T* rows, int64_t i) {
    return {rows[3 * i], rows[3 * i + 1], rows[3 * i + 2]};
}

template <class T>
void composite_ray(const CompositeArrays<T>& a, int64_t ray) {
    const int64_t begin = a.offsets[ray], end = a.offsets[ray + 1];
    RaySums<T> sums{};
    T transmittance = T(1);
    int64_t i = begin;
    for (bool open = true; open && i < end;) {
        alignas(kVectorBytes) T steps[kSteps];
        const int n = int(std::min<int64_t>(kSteps, end - i));
        transmitted(a.density + i, a.dt + i, n, steps);
        for (int k = 0; k < n && open; ++k, ++i) {
            const T weight = transmittance * (T(1) - steps[k]), mid = a.t[i] + T(0.5) * a.dt[i];
            sums.distortion += distortion_of_sample(weight, a.dt[i], mid, sums.weight, sums.depth);
            sums.rgb = sums.rgb + weight * row(a.rgb, i);
            sums.weight += weight;
            sums.depth += weight * mid;
            transmittance *= steps[k];
            open = !(transmittance < a.stop);
        }
    }
    a.out_rgb[3 * ray] = sums.rgb.x;
    a.out_rgb[3 * ray + 1] = sums.rgb.y;
    a.out_rgb[3 * ray + 2] = sums.rgb.z;
    a.alpha[ray] = sums.weight;
    a.depth[ray] = sums.depth;
    a.distortion[ray] = sums.distortion;
    a.n_used[ray] = int32_t(i - begin);
}

template <class T>
void composite_ray_backward(const CompositeArrays<T>& a, const CompositeGradients<T>& g, int64_t ray) {
    const int64_t begin = a.offsets[ray], used = begin + a.n_used[ray], end = a.offsets[ray + 1];
    const RaySums<T> total{a.alpha[ray], row(a.out_rgb, ray), a.depth[ray], a.distortion[ray]};
    const RayGradient<T> gradient{g.rgb ? row(g.rgb, ray) : Vec3<T>{T(0), T(0), T(0)}, g.alpha ? g.alpha[ray] : T(0),
                                  g.depth ? g.depth[ray] : T(0), g.distortion ? g.distortion[ray] : T(0)};
    T transmittance = T(1), weight_before = T(0), depth_before = T(0), behind = weighted_gradients(gradient, total);
    for (int64_t i = begin; i < used;) {
        alignas(kVectorBytes) T steps[kSteps];
        const int n = int(std::min<int64_t>(kSteps, used - i));
        transmitted(a.density + i, a.dt + i, n, steps);
        for (int k = 0; k < n; ++k, ++i) {
            const T weight = transmittance * (T(1) - steps[k]), mid = a.t[i] + T(0.5) * a.dt[i];
            const T dL_dweight =
                weight_gradient(gradient, row(a.rgb, i), weight, a.dt[i], mid, weight_before, depth_before, total);
            behind -= weight * dL_dweight;
            transmittance *= steps[k];
            g.density[i] = density_gradient(a.dt[i], transmittance, dL_dweight, behind);
            g.sample_rgb[3 * i] = weight * gradient.rgb.x;
            g.sample_rgb[3 * i + 1] = weight * gradient.rgb.y;
            g.sample_rgb[3 * i + 2] = weight * gradient.rgb.z;
            weight_before += weight;
            depth_before += weight * mid;
        }
    }
    std::fill(g.density + used, g.density + end, T(0));
    std::fill(g.sample_rgb + 3 * used, g.sample_rgb + 3 * end, T(0));
}

template <class Function>
void for_rays(int64_t n_rays, int n_threads, Function&& function) {
    parallel_for(chunks_of(n_rays, kTask), n_threads, [&](int64_t task, int) {
        for (int64_t i = task * kTask; i < std::min(n_rays, (task + 1) * kTask); ++i)
            function(i);
    });
}

} // namespace

template <class T>
void composite_forward(const CompositeArrays<T>& a, int n_threads) {
    for_rays(a.n_rays, n_threads, [&](int64_t ray) { composite_ray(a, ray); });
}

template <class T>
void composite_backward(const CompositeArrays<T>& a, const CompositeGradients<T>& g, int n_threads) {
    for_rays(a.n_rays, n_threads, [&](int64_t ray) { composite_ray_backward(a, g, ray); });
}

template void composite_forward(const CompositeArrays<float>&, int);
template void composite_forward(const CompositeArrays<double>&, int);
template void composite_backward(const CompositeArrays<float>&, const CompositeGradients<float>&, int);
template void composite_backward(const CompositeArrays<double>&, const CompositeGradients<double>&, int);

} // namespace kinosplat::cpu
