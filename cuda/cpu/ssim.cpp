// L1 + SSIM of two pictures and its gradient in one sweep. A task is a band of lines; the lines stream through rings of
// eleven, one of window moments and one of the gradient's terms, so nothing but the pictures and the gradient touches
// main memory. The three interleaved channels need no special care: a neighbour is three numbers away. Outside the
// picture everything is zero (the common protocol).
#include <algorithm>
#include <cstring>

#include "cpu/lanes.h"
#include "cpu/passes.h"
#include "cpu/threads.h"
#include "math/ssim.h"

namespace kinosplat::cpu {
namespace {

constexpr int kBandLines = 64; // 20 lines of halo are computed twice a band
constexpr int kColours = 3;
constexpr int kPad = kSsimRadius * kColours; // zeros on both sides of a line
constexpr int kMoments = 4;                  // a, b, a^2 + b^2, a b
constexpr int kTerms = 3;                    // of the gradient

// Numbers in a line with its padding: a vector may start at the last number of a line and be convolved there.
constexpr int64_t padded_line(int64_t width) { return (width * kColours + 2 * kPad + 16 + 15) / 16 * 16; }

template <class T>
class Band {
    using L = Lanes<T>;

  public:
    Band(const PhotometricArrays<T>& arrays, int64_t image, int band, T* scratch)
        : arrays_(arrays), n_(int64_t(arrays.width) * kColours), stride_(padded_line(arrays.width)),
          first_(band * kBandLines), last_(std::min(first_ + kBandLines, arrays.height)),
          rendered_(arrays.rendered + image * n_ * arrays.height), target_(arrays.target + image * n_ * arrays.height),
          mask_(arrays.mask ? arrays.mask + image * arrays.width * arrays.height : nullptr),
          gradient_(arrays.dL_drendered ? arrays.dL_drendered + image * n_ * arrays.height : nullptr) {
        for (int i = 0; i < kMoments; ++i)
            line_[i] = take(scratch);
        for (int i = 0; i < kTerms; ++i)
            term_[i] = take(scratch);
        for (int k = 0; k < kSsimTaps; ++k) {
            for (int i = 0; i < kMoments; ++i)
                moments_[k][i] = take(scratch);
            for (int i = 0; i < kTerms; ++i)
                terms_[k][i] = take(scratch);
        }
        mask_line_ = take(scratch);
        masked_a_ = take(scratch);
        masked_b_ = take(scratch);
    }

    void run(double* sums) {
        sums[0] = sums[1] = sums[2] = 0;
        const int halo = gradient_ ? 2 * kSsimRadius : kSsimRadius; // lines above and below that take part
        for (int y = first_ - halo; y < last_ + halo; ++y) {
            read_line(y, sums);
            const int centre = y - kSsimRadius; // the line whose window is now complete
            if (centre >= first_ - (halo - kSsimRadius))
                compare_line(centre, sums);
            if (gradient_ && centre - kSsimRadius >= first_)
                write_gradient(centre - kSsimRadius);
        }
    }

  private:
    T* take(T*& scratch) {
        T* line = scratch;
        std::fill(line, line + stride_, T(0));
        scratch += stride_;
        return line + kPad;
    }

    static int ring(int y) { return (y + 4 * kSsimTaps) % kSsimTaps; }
    bool inside(int y) const { return y >= 0 && y < arrays_.height; }

    // Masked numbers of line y to a and b, the mask itself to mask_line_.
    void load_masked(int y, T* a, T* b) {
        std::memcpy(a, rendered_ + y * n_, n_ * sizeof(T));
        std::memcpy(b, target_ + y * n_, n_ * sizeof(T));
        if (!mask_)
            return;
        const T* mask = mask_ + int64_t(y) * arrays_.width;
        for (int x = 0; x < arrays_.width; ++x)
            for (int c = 0; c < kColours; ++c)
                mask_line_[x * kColours + c] = mask[x];
        for (int64_t i = 0; i < n_; ++i) {
            a[i] *= mask_line_[i];
            b[i] *= mask_line_[i];
        }
    }

    // Runs over a line by whole vectors; what they write past its end lands in padding that nobody reads.
    template <class Function>
    KS_HOST_DEVICE void for_each_vector(Function&& function) const {
        for (int64_t i = 0; i < n_; i += L::kCount)
            function(i);
    }

    // 1 for numbers of the line, 0 past its end.
    KS_HOST_DEVICE L inside_line(int64_t i) const { return select(L::ramp() < L(T(n_ - i)), L(T(1)), L(T(0))); }

    void convolve_along(const T* from, T* to) const {
        for_each_vector([&](int64_t i) {
            L sum = L(ssim_window<T>(0)) * L::load(from + i);
            for (int k = 1; k <= kSsimRadius; ++k)
                sum =
                    sum + L(ssim_window<T>(k)) * (L::load(from + i - k * kColours) + L::load(from + i + k * kColours));
            sum.store(to + i);
        });
    }

    // Window across the lines y - 5 .. y + 5 of a ring, at number i.
    template <int kCount>
    static KS_HOST_DEVICE L across(T* const (*lines)[kCount], const int* order, int which, int64_t i) {
        L sum = L(ssim_window<T>(0)) * L::load(lines[order[kSsimRadius]][which] + i);
        for (int k = 1; k <= kSsimRadius; ++k)
            sum = sum + L(ssim_window<T>(k)) * (L::load(lines[order[kSsimRadius - k]][which] + i) +
                                                L::load(lines[order[kSsimRadius + k]][which] + i));
        return sum;
    }

    static void ring_order(int y, int* order) {
        for (int k = 0; k < kSsimTaps; ++k)
            order[k] = ring(y + k - kSsimRadius);
    }

    void read_line(int y, double* sums) {
        T* const* out = moments_[ring(y)];
        if (!inside(y)) {
            for (int i = 0; i < kMoments; ++i)
                std::fill(out[i], out[i] + n_, T(0));
            return;
        }
        T *a = line_[0], *b = line_[1];
        load_masked(y, a, b);
        L difference(T(0));
        for_each_vector([&](int64_t i) {
            const L va = L::load(a + i), vb = L::load(b + i), d = va - vb;
            difference = difference + maximum(d, -d); // both are zero in the padding
            (va * va + vb * vb).store(line_[2] + i);
            (va * vb).store(line_[3] + i);
        });
        if (y >= first_ && y < last_) {
            sums[0] += horizontal_sum(difference);
            sums[2] += squared_error();
        }
        for (int i = 0; i < kMoments; ++i)
            convolve_along(line_[i], out[i]);
    }

    // Sum of mask * (a - b)^2 over the line that was just loaded, whose numbers carry the mask already.
    double squared_error() const {
        L sum(T(0));
        for_each_vector([&](int64_t i) {
            const L d = L::load(line_[0] + i) - L::load(line_[1] + i), square = d * d;
            if (!mask_) {
                sum = sum + square;
                return;
            }
            const L mask = L::load(mask_line_ + i);
            sum = sum + select(mask > L(T(0)), square / mask, L(T(0)));
        });
        return horizontal_sum(sum);
    }

    // SSIM of line y to the sum, its gradient's terms, convolved along the line, to the other ring.
    void compare_line(int y, double* sums) {
        T* const* out = terms_[ring(y)];
        if (!inside(y)) {
            for (int i = 0; i < kTerms; ++i)
                std::fill(out[i], out[i] + n_, T(0));
            return;
        }
        if (mask_)
            load_masked(y, masked_a_, masked_b_);
        int order[kSsimTaps];
        ring_order(y, order);
        L similarity(T(0));
        for_each_vector([&](int64_t i) {
            const SsimPoint<L> point =
                ssim_point(WindowMoments<L>{across(moments_, order, 0, i), across(moments_, order, 1, i),
                                            across(moments_, order, 2, i), across(moments_, order, 3, i)});
            const L weight = mask_ ? L::load(mask_line_ + i) : inside_line(i);
            similarity = similarity + weight * point.value;
            (weight * point.d_mean_a).store(term_[0] + i);
            (weight * point.d_squares).store(term_[1] + i);
            (weight * point.d_ab).store(term_[2] + i);
        });
        if (y >= first_ && y < last_)
            sums[1] += horizontal_sum(similarity);
        if (gradient_)
            for (int i = 0; i < kTerms; ++i)
                convolve_along(term_[i], out[i]);
    }

    void write_gradient(int y) {
        load_masked(y, masked_a_, masked_b_);
        int order[kSsimTaps];
        ring_order(y, order);
        const T l1_scale = (T(1) - arrays_.ssim_weight) * arrays_.inverse_count;
        const T ssim_scale = -arrays_.ssim_weight * arrays_.inverse_count;
        T* out = gradient_ + y * n_;
        for_each_vector([&](int64_t i) {
            const L a = L::load(masked_a_ + i), b = L::load(masked_b_ + i), one(T(1)), zero(T(0));
            const L ssim_part = across(terms_, order, 0, i) + L(T(2)) * a * across(terms_, order, 1, i) +
                                b * across(terms_, order, 2, i);
            const L sign = select(a > b, one, zero) - select(a < b, one, zero);
            L gradient = L(l1_scale) * sign + L(ssim_scale) * ssim_part;
            if (mask_)
                gradient = gradient * L::load(mask_line_ + i);
            if (i + L::kCount <= n_) {
                gradient.store(out + i);
            } else {
                T values[L::kCount];
                gradient.store(values);
                std::copy(values, values + (n_ - i), out + i); // the gradient has no padding
            }
        });
    }

    const PhotometricArrays<T>& arrays_;
    int64_t n_, stride_; // numbers in a line, without and with padding
    int first_, last_;   // lines of the band
    const T *rendered_, *target_, *mask_;
    T* gradient_;
    T *line_[kMoments], *term_[kTerms];
    T *moments_[kSsimTaps][kMoments], *terms_[kSsimTaps][kTerms];
    T *mask_line_, *masked_a_, *masked_b_;
};

} // namespace

int64_t photometric_scratch(int64_t width) {
    return (kMoments + kTerms + kSsimTaps * (kMoments + kTerms) + 3) * padded_line(width);
}

int64_t photometric_bands(int64_t height) { return chunks_of(height, kBandLines); }

template <class T>
void photometric(const PhotometricArrays<T>& arrays, int n_threads) {
    const int64_t n_bands = photometric_bands(arrays.height);
    parallel_for(arrays.n_images * n_bands, n_threads, [&](int64_t i, int worker) {
        T* scratch = arrays.scratch + worker * photometric_scratch(arrays.width);
        Band<T>(arrays, i / n_bands, int(i % n_bands), scratch).run(arrays.band_sums + kPhotometricSums * i);
    });
}

template void photometric<float>(const PhotometricArrays<float>&, int);
template void photometric<double>(const PhotometricArrays<double>&, int);

} // namespace kinosplat::cpu
