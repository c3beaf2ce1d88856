// One Adam update (Kingma and Ba 2015) of one number, with the arithmetic of torch.optim.Adam.
#pragma once

#include "math/scalar.h"

namespace kinosplat {

template <class T>
struct AdamSettings {
    T beta1, beta2;
    T one_minus_beta1, one_minus_beta2; // rounded from double: 1 - beta2 is too small to be taken in float
    T epsilon;
    T step_size;                      // learning rate / (1 - beta1^step)
    T inverse_sqrt_second_correction; // 1 / sqrt(1 - beta2^step)
};

template <class T>
KS_HOST_DEVICE void adam_update(const AdamSettings<T>& s, T gradient, T& parameter, T& first, T& second) {
    first = s.beta1 * first + s.one_minus_beta1 * gradient;
    second = s.beta2 * second + s.one_minus_beta2 * gradient * gradient;
    parameter = parameter - s.step_size * first / (sqrt(second) * s.inverse_sqrt_second_correction + s.epsilon);
}

} // namespace kinosplat
