// Front-to-back blending (math/blending.h), one tile a task, one vector of pixels at a time. A tile is left as soon as
// all its pixels are finished. Channels beyond the first group are blended again with the same weights, so memory stays
// in L1.
#include "cpu/threads.h"
#include "cpu/tile_pixels.h"

namespace kinosplat::cpu {
namespace {

template <class T, int kChannels>
class Tile {
    using L = Lanes<T>;
    using Mask = typename L::Mask;
    using Pixels = TilePixels<T>;
    static constexpr int kVectors = Pixels::kVectors;

  public:
    Tile(int tile, const BlendArrays<T>& arrays, const BlendOutputs<T>& out, int first_channel, int n_channels)
        : arrays_(arrays), out_(out), first_channel_(first_channel), n_channels_(n_channels), tile_(tile),
          pixels_(tile, arrays.width, arrays.height) {
        for (int line = 0; line < kTileSize; ++line)
            for (int v = 0; v < kVectors; ++v) {
                transmittance_[line][v] = L(T(1));
                last_[line][v] = L(T(0));
                median_[line][v] = L(T(0));
                alive_[line][v] = line < pixels_.n_lines ? pixels_.inside[v] : Mask::none();
                for (int c = 0; c < kChannels; ++c)
                    channel_[c][line][v] = L(T(0));
            }
    }

    // kExtras: median depth and statistics, which most pictures do without.
    template <bool kExtras>
    void blend() {
        int n_alive = pixels_.n_lines; // lines with a pixel that is not finished
        const int32_t begin = arrays_.tile_offsets[tile_], end = arrays_.tile_offsets[tile_ + 1];
        int32_t at = begin;
        for (; at < end && n_alive > 0; ++at) {
            const int64_t row = arrays_.hit_rows[at];
            const T* record = arrays_.records + row * record_stride(arrays_.n_channels);
            const TileRange lines = pixels_.lines(record);
            L weight_sum(T(0)), pixel_sum(T(0));
            for (int line = lines.begin; line < lines.end; ++line)
                if (blend_line<kExtras>(record, row, line, L(T(at - begin + 1)), weight_sum, pixel_sum))
                    n_alive -= !line_alive(line);
            if constexpr (kExtras)
                write_statistics(at, horizontal_sum(weight_sum), horizontal_sum(pixel_sum));
        }
        if constexpr (kExtras)
            for (; at < end; ++at)
                write_statistics(at, T(0), T(0));
    }

    void write() const {
        for (int line = 0; line < pixels_.n_lines; ++line)
            for (int column = 0; column < pixels_.n_columns; ++column) {
                const int64_t p = pixels_.pixel(line, column, arrays_.width);
                const int v = column / L::kCount, lane = column % L::kCount;
                const T transmittance = transmittance_[line][v][lane];
                for (int c = 0; c < n_channels_; ++c) {
                    const Channel<T>& channel = out_.channels[first_channel_ + c];
                    if (channel.data)
                        channel.data[p * channel.stride] =
                            channel_[c][line][v][lane] + transmittance * channel.background;
                }
                if (first_channel_ > 0)
                    continue;
                out_.transmittance[p] = transmittance;
                out_.last_hit[p] = int32_t(last_[line][v][lane]);
                if (out_.median_depth)
                    out_.median_depth[p] = median_[line][v][lane];
            }
    }

  private:
    // True when a pixel of the line was finished.
    template <bool kExtras>
    KS_HOST_DEVICE bool blend_line(const T* record, int64_t row, int line, L hit_number, L& weight_sum, L& pixel_sum) {
        const Sym2<L> conic{L(record[kConicXX]), L(record[kConicXY]), L(record[kConicYY])};
        const L dy(pixels_.line_centre(line) - record[kMeanY]);
        bool any_finished = false;
        for (int v = 0; v < kVectors; ++v) {
            const L exponent = falloff_exponent(conic, pixels_.x[v] - L(record[kMeanX]), dy);
            const Mask near = (exponent >= L(record[kMinExponent])) & alive_[line][v];
            if (!any(near))
                continue;
            const L alpha = clamp_alpha(L(record[kOpacity]) * exp_bounded(exponent));
            const L transmittance = transmittance_[line][v];
            const L next = transmittance * (L(T(1)) - alpha);
            const Mask counts = (alpha >= L(T(kMinAlpha))) & near;
            const Mask finished = (next < L(T(kMinTransmittance))) & counts;
            const Mask blended = without(counts, finished);
            const L weight = select(blended, alpha * transmittance, L(T(0)));
            for (int c = 0; c < kChannels; ++c)
                channel_[c][line][v] = channel_[c][line][v] + weight * L(record[kRecordHead + first_channel_ + c]);
            transmittance_[line][v] = select(blended, next, transmittance);
            last_[line][v] = select(blended, hit_number, last_[line][v]);
            if constexpr (kExtras) {
                const L half = L(T(kMedianTransmittance));
                const Mask passes = (transmittance > half) & (next <= half) & blended;
                median_[line][v] = select(passes, L(arrays_.depths[row]), median_[line][v]);
                weight_sum = weight_sum + weight;
                pixel_sum = pixel_sum + select(blended, L(T(1)), L(T(0)));
            }
            if (any(finished)) {
                alive_[line][v] = without(alive_[line][v], finished);
                any_finished = true;
            }
        }
        return any_finished;
    }

    bool line_alive(int line) const {
        bool alive = false;
        for (int v = 0; v < kVectors; ++v)
            alive |= any(alive_[line][v]);
        return alive;
    }

    void write_statistics(int32_t at, T weight, T n_pixels) const {
        if (!out_.hit_weights || first_channel_ > 0)
            return;
        out_.hit_weights[arrays_.hit_slots[at]] = weight;
        out_.hit_pixels[arrays_.hit_slots[at]] = n_pixels;
    }

    const BlendArrays<T>& arrays_;
    const BlendOutputs<T>& out_;
    int first_channel_, n_channels_, tile_;
    Pixels pixels_;
    L transmittance_[kTileSize][kVectors], last_[kTileSize][kVectors], median_[kTileSize][kVectors];
    L channel_[kChannels][kTileSize][kVectors];
    Mask alive_[kTileSize][kVectors];
};

} // namespace

template <class T>
void blend_forward(const BlendArrays<T>& arrays, const BlendOutputs<T>& out, int n_threads) {
    const int64_t n_tiles = int64_t(tiles_across(arrays.width)) * tiles_across(arrays.height);
    const bool extras = out.median_depth || out.hit_weights;
    parallel_for(n_tiles, n_threads, [&](int64_t i, int) {
        for_channel_groups(arrays.n_channels, [&](auto size, int first, int n) {
            Tile<T, size()> tile(int(i), arrays, out, first, n);
            if (extras)
                tile.template blend<true>();
            else
                tile.template blend<false>();
            tile.write();
        });
    });
}

template void blend_forward<float>(const BlendArrays<float>&, const BlendOutputs<float>&, int);
template void blend_forward<double>(const BlendArrays<double>&, const BlendOutputs<double>&, int);

} // namespace kinosplat::cpu
