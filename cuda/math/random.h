// Random numbers as a pure function of a key and a counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3"). No state, so both backends and any number of threads draw the same.
#pragma once

#include <cstdint>

#include "math/vec.h"

namespace kinosplat {

using std::cos;
using std::sin;

struct Random4 {
    uint32_t x, y, z, w;
};

KS_HOST_DEVICE Random4 philox(uint64_t key, uint64_t counter) {
    Random4 c{uint32_t(counter), uint32_t(counter >> 32), 0, 0};
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = 0xd2511f53ull * c.x, b = 0xcd9e8d57ull * c.z;
        c = {uint32_t(b >> 32) ^ c.y ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c.w ^ k1, uint32_t(a)};
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return c;
}

// In (0, 1], so that its logarithm is finite.
template <class T>
KS_HOST_DEVICE T uniform(uint32_t bits) {
    return (T(bits) + T(0.5)) * T(1.0 / 4294967296.0);
}

// In [0, 1).
KS_HOST_DEVICE float random_unit(uint32_t bits) { return float(bits >> 8) * (1.0f / 16777216.0f); }

// In [0, n), for n up to 2^32.
KS_HOST_DEVICE int64_t random_below(uint32_t bits, int64_t n) { return int64_t(uint64_t(bits) * uint64_t(n) >> 32); }

// Three independent standard normal numbers (Box and Muller 1958).
template <class T>
KS_HOST_DEVICE Vec3<T> standard_normal3(uint64_t key, uint64_t counter) {
    constexpr double two_pi = 6.283185307179586;
    const Random4 r = philox(key, counter);
    const T radius = sqrt(T(-2) * log(uniform<T>(r.x))), other = sqrt(T(-2) * log(uniform<T>(r.z)));
    const T angle = T(two_pi) * uniform<T>(r.y);
    return {radius * cos(angle), radius * sin(angle), other * cos(T(two_pi) * uniform<T>(r.w))};
}

} // namespace kinosplat
