// The backward pass of blending (math/blending.h has the formulas): back to front through the hits of a tile, the
// transmittance in front of each found by dividing the last one by 1 - alpha. Per hit the moments and the gradients of
// the channels are summed over the pixels of the tile and left at the hit's slot; hits nobody saw get zeros.
#include "cpu/threads.h"
#include "cpu/tile_pixels.h"

namespace kinosplat::cpu {
namespace {

template <class T, int kChannels>
class TileGradient {
    using L = Lanes<T>;
    using Mask = typename L::Mask;
    using Pixels = TilePixels<T>;
    static constexpr int kSums = kNumMoments + kChannels;

  public:
    TileGradient(int tile, const BlendArrays<T>& arrays, const BlendGradients<T>& gradients, int first_channel,
                 int n_channels)
        : arrays_(arrays), gradients_(gradients), first_channel_(first_channel), n_channels_(n_channels), tile_(tile),
          stride_(record_stride(arrays.n_channels)), pixels_(tile, arrays.width, arrays.height) {
        load();
    }

    void run() {
        const int32_t begin = arrays_.tile_offsets[tile_], end = arrays_.tile_offsets[tile_ + 1];
        const L zeros[kSums] = {};
        for (int32_t at = begin + n_seen_; at < end; ++at)
            write(at, zeros);
        for (int32_t at = begin + n_seen_ - 1; at >= begin; --at) {
            prefetch_record(arrays_, std::max(at - kPrefetchAhead, begin), stride_);
            blend_hit(at, T(at - begin));
        }
    }

  private:
    // Per-pixel state behind the last hit, and the gradient of the background.
    void load() {
        transmittance_.fill(T(1));
        behind_.fill(T(0));
        last_.fill(T(0));
        for (TileNumbers<T>& g : g_)
            g.fill(T(0));
        T background[kChannels] = {};
        for (int line = 0; line < pixels_.n_lines; ++line)
            for (int column = 0; column < pixels_.n_columns; ++column) {
                const int64_t p = pixels_.pixel(line, column, arrays_.width);
                const int at = Pixels::at(line, column);
                const T transmittance = gradients_.transmittance[p];
                n_seen_ = std::max(n_seen_, gradients_.last_hit[p]);
                T& block_last = block_last_[at / kBlockPixels];
                block_last = std::max(block_last, T(gradients_.last_hit[p]));
                T through = first_channel_ == 0 && gradients_.alpha ? -gradients_.alpha[p] : T(0);
                for (int c = 0; c < n_channels_; ++c) {
                    const Channel<T>& channel = gradients_.channels[first_channel_ + c];
                    if (!channel.data)
                        continue;
                    const T g = channel.data[p * channel.stride];
                    g_[c].values[at] = g;
                    through += channel.background * g;
                    background[c] += transmittance * g;
                }
                transmittance_.values[at] = transmittance;
                last_.values[at] = T(gradients_.last_hit[p]);
                behind_.values[at] = transmittance * through;
            }
        for (int c = 0; c < n_channels_; ++c)
            gradients_.tile_backgrounds[int64_t(tile_) * arrays_.n_channels + first_channel_ + c] = background[c];
    }

    // Blocks with a pixel that got as far as this hit.
    KS_HOST_DEVICE uint32_t blocks_behind(T number) const {
        uint32_t blocks = 0;
        for (int b = 0; b < kBlocks; b += L::kCount)
            blocks |= bits(L::load(block_last_ + b) > L(number)) << b;
        return blocks;
    }

    // `number` of the hit in its tile, from 0.
    KS_HOST_DEVICE void blend_hit(int32_t hit, T number) {
        const T* record = arrays_.records + int64_t(arrays_.hit_rows[hit]) * stride_;
        const Sym2<L> conic{L(record[kConicXX]), L(record[kConicXY]), L(record[kConicYY])};
        const L mean_x(record[kMeanX]), mean_y(record[kMeanY]), opacity(record[kOpacity]);
        const L min_exponent(record[kMinExponent]), hit_number(number), zero(T(0));
        L value[kChannels], sums[kSums] = {};
        for (int c = 0; c < kChannels; ++c)
            value[c] = L(record[kRecordHead + first_channel_ + c]);

        const uint32_t blocks = pixels_.reached_blocks(record, conic) & blocks_behind(number);
        Pixels::for_each_vector(blocks, [&](int, int at) {
            const L dx = pixels_.x.load(at) - mean_x, dy = pixels_.y.load(at) - mean_y;
            const L exponent = falloff_exponent(conic, dx, dy);
            const Mask near = (exponent >= min_exponent) & (last_.load(at) > hit_number);
            if (!any(near))
                return;
            const L raw = opacity * exp_bounded(exponent);
            const L alpha = clamp_alpha(raw);
            const Mask blended = (alpha >= L(T(kMinAlpha))) & near;
            const L inverse = reciprocal(L(T(1)) - alpha);
            const L after = transmittance_.load(at), behind = behind_.load(at);
            const L transmittance = after * inverse;
            const L weight = select(blended, alpha * transmittance, zero);
            L value_dot_g = zero;
            for (int c = 0; c < kChannels; ++c) {
                const L g = g_[c].load(at);
                value_dot_g = value_dot_g + value[c] * g;
                sums[kNumMoments + c] = sums[kNumMoments + c] + weight * g;
            }
            const L s = select(blended, blend_vjp(raw, alpha, inverse, transmittance, value_dot_g, behind), zero);
            behind_.store(at, behind + weight * value_dot_g);
            transmittance_.store(at, select(blended, transmittance, after));
            const L sx = s * dx, sy = s * dy;
            sums[0] = sums[0] + s;
            sums[1] = sums[1] + sx;
            sums[2] = sums[2] + sy;
            sums[3] = sums[3] + sx * dx;
            sums[4] = sums[4] + sx * dy;
            sums[5] = sums[5] + sy * dy;
        });
        write(hit, sums);
    }

    // The first group of channels starts the moments, later ones add to them.
    KS_HOST_DEVICE void write(int32_t at, const L* sums) const {
        T* out = gradients_.hits + int64_t(arrays_.hit_slots[at]) * (kNumMoments + arrays_.n_channels);
        for (int m = 0; m < kNumMoments; ++m) {
            const T sum = horizontal_sum(sums[m]);
            out[m] = first_channel_ == 0 ? sum : out[m] + sum;
        }
        for (int c = 0; c < n_channels_; ++c)
            out[kNumMoments + first_channel_ + c] = horizontal_sum(sums[kNumMoments + c]);
    }

    const BlendArrays<T>& arrays_;
    const BlendGradients<T>& gradients_;
    int first_channel_, n_channels_, tile_, stride_;
    int32_t n_seen_ = 0; // hits up to and with the last that contributed to any pixel
    Pixels pixels_;
    TileNumbers<T> transmittance_, behind_, last_, g_[kChannels];
    alignas(kVectorBytes) T block_last_[kBlocks] = {};
};

} // namespace

template <class T>
void blend_backward(const BlendArrays<T>& arrays, const BlendGradients<T>& gradients, int n_threads) {
    const int64_t n_tiles = int64_t(tiles_across(arrays.width)) * tiles_across(arrays.height);
    parallel_for(n_tiles, n_threads, [&](int64_t tile, int) {
        for_channel_groups(arrays.n_channels, [&](auto size, int first, int n) {
            TileGradient<T, size()>(int(tile), arrays, gradients, first, n).run();
        });
    });
}

template void blend_backward<float>(const BlendArrays<float>&, const BlendGradients<float>&, int);
template void blend_backward<double>(const BlendArrays<double>&, const BlendGradients<double>&, int);

} // namespace kinosplat::cpu
