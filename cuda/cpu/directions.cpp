// Spherical harmonics of the directions a field is looked at from.
#include <algorithm>

#include "cpu/field.h"
#include "cpu/load.h"
#include "cpu/threads.h"
#include "math/spherical_harmonics.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kTask = 4096; // samples

} // namespace

template <class T>
void sh_forward(int64_t n_samples, int n_degrees, const T* directions, T* values, int n_threads) {
    with_sh_degree(n_degrees - 1, [&](auto degree) {
        constexpr int kSize = sh_basis_size(degree());
        parallel_for(chunks_of(n_samples, kTask), n_threads, [&](int64_t task, int) {
            for (int64_t i = task * kTask; i < std::min(n_samples, (task + 1) * kTask); ++i)
                sh_basis<degree()>(Vec3<T>{directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]},
                                   values + i * kSize);
        });
    });
}

template <class T>
void sh_backward(int64_t n_samples, int n_degrees, const T* directions, const T* dL_dvalues, T* dL_ddirections,
                 int n_threads) {
    with_sh_degree(n_degrees - 1, [&](auto degree) {
        constexpr int kSize = sh_basis_size(degree());
        parallel_for(chunks_of(n_samples, kTask), n_threads, [&](int64_t task, int) {
            for (int64_t i = task * kTask; i < std::min(n_samples, (task + 1) * kTask); ++i) {
                const Vec3<T> g = sh_basis_vjp<degree()>(
                    Vec3<T>{directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]}, dL_dvalues + i * kSize);
                dL_ddirections[3 * i] = g.x;
                dL_ddirections[3 * i + 1] = g.y;
                dL_ddirections[3 * i + 2] = g.z;
            }
        });
    });
}

template void sh_forward(int64_t, int, const float*, float*, int);
template void sh_forward(int64_t, int, const double*, double*, int);
template void sh_backward(int64_t, int, const float*, const float*, float*, int);
template void sh_backward(int64_t, int, const double*, const double*, double*, int);

} // namespace kinosplat::cpu
