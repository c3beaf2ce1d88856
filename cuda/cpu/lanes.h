// Lanes<T>: as many float or double as fit one vector register of the target, with the operations the shared
// mathematics uses (math/scalar.h). Compiler vector extensions do the arithmetic on every target; AVX-512 keeps its
// comparison results in mask registers.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "math/scalar.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define KS_AVX512 1
#else
#define KS_AVX512 0
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace kinosplat {

#if KS_AVX512
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Written out, because GCC drops the attribute from a dependent type while it checks overloads.
template <class T>
struct NativeVector;
template <>
struct NativeVector<float> {
    typedef float Values __attribute__((vector_size(kVectorBytes)));
    typedef int32_t Mask __attribute__((vector_size(kVectorBytes)));
};
template <>
struct NativeVector<double> {
    typedef double Values __attribute__((vector_size(kVectorBytes)));
    typedef int64_t Mask __attribute__((vector_size(kVectorBytes)));
};

template <class T>
struct LaneMask {
#if KS_AVX512
    using Native = std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8>;
    Native v;
    friend KS_HOST_DEVICE LaneMask operator&(LaneMask a, LaneMask b) { return {Native(a.v & b.v)}; }
    friend KS_HOST_DEVICE LaneMask operator|(LaneMask a, LaneMask b) { return {Native(a.v | b.v)}; }
    // a and not b
    friend KS_HOST_DEVICE LaneMask without(LaneMask a, LaneMask b) { return {Native(a.v & ~b.v)}; }
    friend KS_HOST_DEVICE bool any(LaneMask a) { return a.v != 0; }
    friend KS_HOST_DEVICE uint32_t bits(LaneMask a) { return a.v; }
    static KS_HOST_DEVICE LaneMask none() { return {0}; }
#else
    using Native = typename NativeVector<T>::Mask;
    Native v;
    friend KS_HOST_DEVICE LaneMask operator&(LaneMask a, LaneMask b) { return {a.v & b.v}; }
    friend KS_HOST_DEVICE LaneMask operator|(LaneMask a, LaneMask b) { return {a.v | b.v}; }
    // a and not b
    friend KS_HOST_DEVICE LaneMask without(LaneMask a, LaneMask b) { return {a.v & ~b.v}; }
    friend KS_HOST_DEVICE bool any(LaneMask a) { return bits(a) != 0; }
    friend KS_HOST_DEVICE uint32_t bits(LaneMask a) {
#if defined(__AVX__)
        if constexpr (sizeof(T) == 4)
            return uint32_t(_mm256_movemask_ps(__m256(a.v)));
        else
            return uint32_t(_mm256_movemask_pd(__m256d(a.v)));
#elif defined(__SSE2__)
        if constexpr (sizeof(T) == 4)
            return uint32_t(_mm_movemask_ps(__m128(a.v)));
        else
            return uint32_t(_mm_movemask_pd(__m128d(a.v)));
#endif
        uint32_t result = 0;
        for (int i = 0; i < int(kVectorBytes / sizeof(T)); ++i)
            result |= uint32_t(a.v[i] & 1) << i;
        return result;
    }
    static KS_HOST_DEVICE LaneMask none() { return {Native{}}; }
#endif
};

template <class T>
struct Lanes {
    static constexpr int kCount = kVectorBytes / int(sizeof(T));
    using Native = typename NativeVector<T>::Values;
    using Mask = LaneMask<T>;
    Native v;

    Lanes() = default;
    KS_HOST_DEVICE Lanes(T scalar) : v(scalar - Native{}) {} // x - 0 is x, and compiles to a broadcast
    explicit KS_HOST_DEVICE Lanes(Native native) : v(native) {}

    static KS_HOST_DEVICE Lanes load(const T* from) {
        Lanes out;
        std::memcpy(&out.v, from, sizeof(Native));
        return out;
    }
    KS_HOST_DEVICE void store(T* to) const { std::memcpy(to, &v, sizeof(Native)); }

    // 0, 1, 2, ...
    static KS_HOST_DEVICE Lanes ramp() {
        Lanes out;
        for (int i = 0; i < kCount; ++i)
            out.v[i] = T(i);
        return out;
    }

    KS_HOST_DEVICE T operator[](int i) const { return v[i]; }

    friend KS_HOST_DEVICE Lanes operator+(Lanes a, Lanes b) { return Lanes(a.v + b.v); }
    friend KS_HOST_DEVICE Lanes operator-(Lanes a, Lanes b) { return Lanes(a.v - b.v); }
    friend KS_HOST_DEVICE Lanes operator*(Lanes a, Lanes b) { return Lanes(a.v * b.v); }
    friend KS_HOST_DEVICE Lanes operator/(Lanes a, Lanes b) { return Lanes(a.v / b.v); }
    friend KS_HOST_DEVICE Lanes operator-(Lanes a) { return Lanes(-a.v); }

#if KS_AVX512
#define KS_COMPARE(op, code)                                                                                           \
    friend KS_HOST_DEVICE Mask operator op(Lanes a, Lanes b) {                                                         \
        if constexpr (sizeof(T) == 4)                                                                                  \
            return {_mm512_cmp_ps_mask(__m512(a.v), __m512(b.v), code)};                                               \
        else                                                                                                           \
            return {_mm512_cmp_pd_mask(__m512d(a.v), __m512d(b.v), code)};                                             \
    }
    KS_COMPARE(<, _CMP_LT_OQ)
    KS_COMPARE(<=, _CMP_LE_OQ)
    KS_COMPARE(>, _CMP_GT_OQ)
    KS_COMPARE(>=, _CMP_GE_OQ)
    KS_COMPARE(==, _CMP_EQ_OQ)
#undef KS_COMPARE
    friend KS_HOST_DEVICE Lanes select(Mask condition, Lanes if_true, Lanes if_false) {
        if constexpr (sizeof(T) == 4)
            return Lanes(Native(_mm512_mask_blend_ps(condition.v, __m512(if_false.v), __m512(if_true.v))));
        else
            return Lanes(Native(_mm512_mask_blend_pd(condition.v, __m512d(if_false.v), __m512d(if_true.v))));
    }
    friend KS_HOST_DEVICE Lanes minimum(Lanes a, Lanes b) {
        if constexpr (sizeof(T) == 4)
            return Lanes(Native(_mm512_min_ps(__m512(a.v), __m512(b.v))));
        else
            return Lanes(Native(_mm512_min_pd(__m512d(a.v), __m512d(b.v))));
    }
    friend KS_HOST_DEVICE Lanes maximum(Lanes a, Lanes b) {
        if constexpr (sizeof(T) == 4)
            return Lanes(Native(_mm512_max_ps(__m512(a.v), __m512(b.v))));
        else
            return Lanes(Native(_mm512_max_pd(__m512d(a.v), __m512d(b.v))));
    }
#else
    friend KS_HOST_DEVICE Mask operator<(Lanes a, Lanes b) { return {typename Mask::Native(a.v < b.v)}; }
    friend KS_HOST_DEVICE Mask operator<=(Lanes a, Lanes b) { return {typename Mask::Native(a.v <= b.v)}; }
    friend KS_HOST_DEVICE Mask operator>(Lanes a, Lanes b) { return {typename Mask::Native(a.v > b.v)}; }
    friend KS_HOST_DEVICE Mask operator>=(Lanes a, Lanes b) { return {typename Mask::Native(a.v >= b.v)}; }
    friend KS_HOST_DEVICE Mask operator==(Lanes a, Lanes b) { return {typename Mask::Native(a.v == b.v)}; }
    friend KS_HOST_DEVICE Lanes select(Mask condition, Lanes if_true, Lanes if_false) {
        return Lanes(Native(condition.v ? if_true.v : if_false.v));
    }
    friend KS_HOST_DEVICE Lanes minimum(Lanes a, Lanes b) { return Lanes(Native(a.v < b.v ? a.v : b.v)); }
    friend KS_HOST_DEVICE Lanes maximum(Lanes a, Lanes b) { return Lanes(Native(a.v > b.v ? a.v : b.v)); }
#endif

    friend KS_HOST_DEVICE Lanes sqrt(Lanes a) {
#if KS_AVX512
        if constexpr (sizeof(T) == 4)
            return Lanes(Native(_mm512_sqrt_ps(__m512(a.v))));
        else
            return Lanes(Native(_mm512_sqrt_pd(__m512d(a.v))));
#else
        return map(a, [](T x) { return std::sqrt(x); });
#endif
    }

    // A library function, lane by lane.
    template <class Function>
    static KS_HOST_DEVICE Lanes map(Lanes a, Function function) {
        alignas(kVectorBytes) T values[kCount];
        a.store(values);
        for (int i = 0; i < kCount; ++i)
            values[i] = function(values[i]);
        return load(values);
    }

    friend KS_HOST_DEVICE Lanes floor(Lanes a) {
#if KS_AVX512
        if constexpr (sizeof(T) == 4)
            return Lanes(Native(_mm512_floor_ps(__m512(a.v))));
        else
            return Lanes(Native(_mm512_floor_pd(__m512d(a.v))));
#else
        return map(a, [](T x) { return std::floor(x); });
#endif
    }
    friend KS_HOST_DEVICE Lanes ceil(Lanes a) { return -floor(-a); }

    // One Newton step after the hardware's 14 bits: relative error below 2e-7 for float, exact division for double.
    friend KS_HOST_DEVICE Lanes reciprocal(Lanes a) {
#if KS_AVX512
        if constexpr (sizeof(T) == 4) {
            const Native guess = Native(_mm512_rcp14_ps(__m512(a.v)));
            return Lanes(Native(guess * (T(2) - a.v * guess)));
        }
#endif
        return Lanes(Native(T(1) / a.v));
    }

    // Used once a Gaussian, where the library's accuracy costs little.
    friend KS_HOST_DEVICE Lanes log(Lanes a) {
        return map(a, [](T x) { return std::log(x); });
    }

    // float: 2^n times a polynomial in the fraction, relative error below 2e-7, 0 below -87 and +inf above 88, NaN
    // stays NaN. double: the library, since it is there for checking gradients.
    friend KS_HOST_DEVICE Lanes exp(Lanes a) {
        if constexpr (sizeof(T) == 4) {
            using Ints = NativeVector<float>::Mask;
            // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
            const Native magic = Native{} + T(12582912);
            const Native x = a.v * T(1.44269504088896341);
            const Native shifted = x + magic;
            const Native n = shifted - magic;
            // x - n, with the product's rounding error made good so that large arguments keep their digits.
            const Native f = (a.v - n * T(0.693359375)) - n * T(-2.12194440054690583e-4);
            // Minimax polynomial of exp on [-ln 2 / 2, ln 2 / 2] (Cephes expf, Moshier).
            Native p = Native{} + T(1.9875691500e-4);
            p = p * f + T(1.3981999507e-3);
            p = p * f + T(8.3334519073e-3);
            p = p * f + T(4.1665795894e-2);
            p = p * f + T(1.6666665459e-1);
            p = p * f + T(5.0000001201e-1);
            p = p * (f * f) + f + T(1);
            const Native result = Native(Ints(p) + (Ints(shifted) << 23));
            const Lanes clipped = select(a < Lanes(T(-87)), Lanes(T(0)), Lanes(result));
            return select(a > Lanes(T(88)), Lanes(T(INFINITY)), select(a == a, clipped, a));
        } else {
            return map(a, [](T x) { return std::exp(x); });
        }
    }

    // exp for an argument known to lie in [-87, 88] (or whose result is not used): what the blending loops call.
    friend KS_HOST_DEVICE Lanes exp_bounded(Lanes a) {
        if constexpr (sizeof(T) == 4) {
            using Ints = NativeVector<float>::Mask;
            const Native magic = Native{} + T(12582912);
            const Native x = a.v * T(1.44269504088896341);
            const Native shifted = x + magic;
            const Native f = x - (shifted - magic);
            // Minimax polynomial of 2^f on [-1/2, 1/2], relative error 2e-7 with rounding.
            Native p = Native{} + T(0.001326472731307149);
            p = p * f + T(0.009671512991189957);
            p = p * f + T(0.05550733581185341);
            p = p * f + T(0.24022242426872253);
            p = p * f + T(0.6931470036506653);
            p = p * f + T(1);
            return Lanes(Native(Ints(p) + (Ints(shifted) << 23)));
        } else {
            return exp(a);
        }
    }
};

// Lane by lane from a function of the lane number: gathers with any layout.
template <class T, class Function>
KS_HOST_DEVICE Lanes<T> make_lanes(Function function) {
    alignas(kVectorBytes) T values[Lanes<T>::kCount];
    for (int i = 0; i < Lanes<T>::kCount; ++i)
        values[i] = function(i);
    return Lanes<T>::load(values);
}

// Sum in a fixed order: halves are folded onto each other.
template <class T>
KS_HOST_DEVICE T horizontal_sum(Lanes<T> a) {
#if KS_AVX512
    if constexpr (sizeof(T) == 4)
        return _mm512_reduce_add_ps(__m512(a.v));
    else
        return _mm512_reduce_add_pd(__m512d(a.v));
#else
    alignas(kVectorBytes) T values[Lanes<T>::kCount];
    a.store(values);
    for (int half = Lanes<T>::kCount / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i)
            values[i] += values[i + half];
    return values[0];
#endif
}

} // namespace kinosplat
