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
    static constexpr int kVectors = Pixels::kVectors;

    struct Sums {
        L moments[kNumMoments], channels[kChannels];
    };

  public:
    TileGradient(int tile, const BlendArrays<T>& arrays, const BlendGradients<T>& gradients, int first_channel,
                 int n_channels)
        : arrays_(arrays), gradients_(gradients), first_channel_(first_channel), n_channels_(n_channels), tile_(tile),
          pixels_(tile, arrays.width, arrays.height) {
        load();
    }

    void run() {
        const int32_t begin = arrays_.tile_offsets[tile_], end = arrays_.tile_offsets[tile_ + 1];
        for (int32_t at = begin + n_seen_; at < end; ++at)
            write_zeros(at);
        for (int32_t at = begin + n_seen_ - 1; at >= begin; --at) {
            const T* record = arrays_.records + int64_t(arrays_.hit_rows[at]) * record_stride(arrays_.n_channels);
            const TileRange lines = pixels_.lines(record);
            Sums sums{};
            bool contributes = false;
            for (int line = lines.begin; line < lines.end; ++line)
                contributes |= blend_line(record, line, L(T(at - begin)), sums);
            if (contributes)
                write(at, sums);
            else
                write_zeros(at);
        }
    }

  private:
    // Per-pixel state before the last hit, and the gradient of the background.
    void load() {
        alignas(kVectorBytes) T transmittance[kTileSize], behind[kTileSize], last[kTileSize];
        alignas(kVectorBytes) T g[kChannels][kTileSize];
        T background[kChannels] = {};
        for (int line = 0; line < kTileSize; ++line) {
            for (int column = 0; column < kTileSize; ++column) {
                const bool inside = line < pixels_.n_lines && column < pixels_.n_columns;
                const int64_t p = inside ? pixels_.pixel(line, column, arrays_.width) : 0;
                transmittance[column] = inside ? gradients_.transmittance[p] : T(1);
                last[column] = inside ? T(gradients_.last_hit[p]) : T(0);
                n_seen_ = std::max(n_seen_, int32_t(last[column]));
                T through = inside && first_channel_ == 0 && gradients_.alpha ? -gradients_.alpha[p] : T(0);
                for (int c = 0; c < kChannels; ++c) {
                    g[c][column] = T(0);
                    if (c >= n_channels_ || !inside)
                        continue;
                    const Channel<T>& channel = gradients_.channels[first_channel_ + c];
                    if (!channel.data)
                        continue;
                    g[c][column] = channel.data[p * channel.stride];
                    through += channel.background * g[c][column];
                    background[c] += transmittance[column] * g[c][column];
                }
                behind[column] = transmittance[column] * through;
            }
            for (int v = 0; v < kVectors; ++v) {
                transmittance_[line][v] = L::load(transmittance + v * L::kCount);
                behind_[line][v] = L::load(behind + v * L::kCount);
                last_[line][v] = L::load(last + v * L::kCount);
                for (int c = 0; c < kChannels; ++c)
                    g_[c][line][v] = L::load(g[c] + v * L::kCount);
            }
        }
        for (int c = 0; c < n_channels_; ++c)
            gradients_.tile_backgrounds[int64_t(tile_) * arrays_.n_channels + first_channel_ + c] = background[c];
    }

    KS_HOST_DEVICE bool blend_line(const T* record, int line, L hit_number, Sums& sums) {
        const Sym2<L> conic{L(record[kConicXX]), L(record[kConicXY]), L(record[kConicYY])};
        const L dy(pixels_.line_centre(line) - record[kMeanY]);
        bool contributes = false;
        for (int v = 0; v < kVectors; ++v) {
            const L dx = pixels_.x[v] - L(record[kMeanX]);
            const L exponent = falloff_exponent(conic, dx, dy);
            const Mask near = (exponent >= L(record[kMinExponent])) & (last_[line][v] > hit_number);
            if (!any(near))
                continue;
            const L raw = L(record[kOpacity]) * exp_bounded(exponent);
            const L alpha = clamp_alpha(raw);
            const Mask blended = (alpha >= L(T(kMinAlpha))) & near;
            const L inverse = reciprocal(L(T(1)) - alpha);
            const L transmittance = transmittance_[line][v] * inverse;
            const L weight = select(blended, alpha * transmittance, L(T(0)));
            L value_dot_g(T(0));
            for (int c = 0; c < kChannels; ++c) {
                const L g = g_[c][line][v];
                value_dot_g = value_dot_g + L(record[kRecordHead + first_channel_ + c]) * g;
                sums.channels[c] = sums.channels[c] + weight * g;
            }
            const L behind = behind_[line][v];
            const L s = select(blended, blend_vjp(raw, alpha, inverse, transmittance, value_dot_g, behind), L(T(0)));
            behind_[line][v] = behind + weight * value_dot_g;
            transmittance_[line][v] = select(blended, transmittance, transmittance_[line][v]);
            const L sx = s * dx, sy = s * dy;
            sums.moments[0] = sums.moments[0] + s;
            sums.moments[1] = sums.moments[1] + sx;
            sums.moments[2] = sums.moments[2] + sy;
            sums.moments[3] = sums.moments[3] + sx * dx;
            sums.moments[4] = sums.moments[4] + sx * dy;
            sums.moments[5] = sums.moments[5] + sy * dy;
            contributes = true;
        }
        return contributes;
    }

    T* slot(int32_t at) const {
        return gradients_.hits + int64_t(arrays_.hit_slots[at]) * (kNumMoments + arrays_.n_channels);
    }

    // The first group of channels starts the moments, later ones add to them.
    void write(int32_t at, const Sums& sums) const {
        T* out = slot(at);
        for (int m = 0; m < kNumMoments; ++m) {
            const T sum = horizontal_sum(sums.moments[m]);
            out[m] = first_channel_ == 0 ? sum : out[m] + sum;
        }
        for (int c = 0; c < n_channels_; ++c)
            out[kNumMoments + first_channel_ + c] = horizontal_sum(sums.channels[c]);
    }

    void write_zeros(int32_t at) const {
        T* out = slot(at);
        if (first_channel_ == 0)
            std::fill(out, out + kNumMoments, T(0));
        std::fill(out + kNumMoments + first_channel_, out + kNumMoments + first_channel_ + n_channels_, T(0));
    }

    const BlendArrays<T>& arrays_;
    const BlendGradients<T>& gradients_;
    int first_channel_, n_channels_, tile_;
    int32_t n_seen_ = 0; // hits up to and with the last that contributed to any pixel
    Pixels pixels_;
    L transmittance_[kTileSize][kVectors], behind_[kTileSize][kVectors], last_[kTileSize][kVectors];
    L g_[kChannels][kTileSize][kVectors];
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
