// Front-to-back blending (math/blending.h), one tile a task, one vector of pixels at a time. A tile is left as soon as
// all its pixels are finished. Channels beyond the first group are blended again with the same weights, so that the
// tile stays in L1.
#include "cpu/threads.h"
#include "cpu/tile_pixels.h"

namespace kinosplat::cpu {
namespace {

template <class T, int kChannels>
class Tile {
    using L = Lanes<T>;
    using Mask = typename L::Mask;
    using Pixels = TilePixels<T>;

  public:
    Tile(int tile, const BlendArrays<T>& arrays, const BlendOutputs<T>& out, int first_channel, int n_channels)
        : arrays_(arrays), out_(out), first_channel_(first_channel), n_channels_(n_channels),
          stride_(record_stride(arrays.n_channels)), begin_(arrays.tile_offsets[tile]),
          end_(arrays.tile_offsets[tile + 1]), pixels_(tile, arrays.width, arrays.height) {
        transmittance_.fill(T(0));
        last_.fill(T(0));
        median_.fill(T(0));
        for (TileNumbers<T>& channel : channels_)
            channel.fill(T(0));
        // Pixels beyond the image start with nothing left and are never touched.
        for (int line = 0; line < pixels_.n_lines; ++line)
            for (int column = 0; column < pixels_.n_columns; ++column)
                transmittance_.values[Pixels::at(line, column)] = T(1);
        Pixels::for_each_vector((1u << kBlocks) - 1, [&](int block, int at) {
            alive_[at / L::kCount] = transmittance_.load(at) > L(T(0));
            alive_blocks_ |= uint32_t(any(alive_[at / L::kCount])) << block;
        });
    }

    // kExtras: median depth and statistics, which most pictures do without.
    template <bool kExtras>
    void blend() {
        int32_t at = begin_;
        for (; at < end_ && alive_blocks_; ++at) {
            prefetch_record(arrays_, std::min(at + kPrefetchAhead, end_ - 1), stride_);
            blend_hit<kExtras>(at);
        }
        if constexpr (kExtras)
            for (; at < end_; ++at)
                write_statistics(at, T(0), T(0));
    }

    void write() const {
        for (int line = 0; line < pixels_.n_lines; ++line)
            for (int column = 0; column < pixels_.n_columns; ++column) {
                const int64_t p = pixels_.pixel(line, column, arrays_.width);
                const int at = Pixels::at(line, column);
                const T transmittance = transmittance_.values[at];
                for (int c = 0; c < n_channels_; ++c) {
                    const Channel<T>& channel = out_.channels[first_channel_ + c];
                    if (channel.data)
                        channel.data[p * channel.stride] = channels_[c].values[at] + transmittance * channel.background;
                }
                if (first_channel_ > 0)
                    continue;
                out_.transmittance[p] = transmittance;
                out_.alpha[p] = T(1) - transmittance;
                out_.last_hit[p] = int32_t(last_.values[at]);
                if (out_.median_depth)
                    out_.median_depth[p] = median_.values[at];
            }
    }

  private:
    template <bool kExtras>
    KS_HOST_DEVICE void blend_hit(int32_t hit) {
        const int64_t row = arrays_.hit_rows[hit];
        const T* record = arrays_.records + row * stride_;
        const Sym2<L> conic{L(record[kConicXX]), L(record[kConicXY]), L(record[kConicYY])};
        const L mean_x(record[kMeanX]), mean_y(record[kMeanY]), opacity(record[kOpacity]);
        const L min_exponent(record[kMinExponent]), hit_number(T(hit - begin_ + 1));
        L value[kChannels];
        for (int c = 0; c < kChannels; ++c)
            value[c] = L(record[kRecordHead + first_channel_ + c]);
        L weight_sum(T(0)), pixel_sum(T(0));

        const uint32_t blocks = pixels_.reached_blocks(record, conic) & alive_blocks_;
        Pixels::for_each_vector(blocks, [&](int block, int at) {
            Mask& alive = alive_[at / L::kCount];
            const L exponent = falloff_exponent(conic, pixels_.x.load(at) - mean_x, pixels_.y.load(at) - mean_y);
            const Mask near = (exponent >= min_exponent) & alive;
            if (!any(near))
                return;
            const L alpha = clamp_alpha(opacity * exp_bounded(exponent));
            const L transmittance = transmittance_.load(at);
            const L next = transmittance * (L(T(1)) - alpha);
            const Mask counts = (alpha >= L(T(kMinAlpha))) & near;
            const Mask blended = (next >= L(T(kMinTransmittance))) & counts;
            const L weight = select(blended, alpha * transmittance, L(T(0)));
            for (int c = 0; c < kChannels; ++c)
                channels_[c].store(at, channels_[c].load(at) + weight * value[c]);
            transmittance_.store(at, select(blended, next, transmittance));
            last_.store(at, select(blended, hit_number, last_.load(at)));
            if constexpr (kExtras) {
                const L half = L(T(kMedianTransmittance));
                const Mask passes = (transmittance > half) & (next <= half) & blended;
                median_.store(at, select(passes, L(arrays_.depths[row]), median_.load(at)));
                weight_sum = weight_sum + weight;
                pixel_sum = pixel_sum + select(blended, L(T(1)), L(T(0)));
            }
            const Mask finished = without(counts, blended);
            if (any(finished)) {
                alive = without(alive, finished);
                alive_blocks_ &= ~(uint32_t(!block_alive(block)) << block);
            }
        });
        if constexpr (kExtras)
            write_statistics(hit, horizontal_sum(weight_sum), horizontal_sum(pixel_sum));
    }

    bool block_alive(int block) const {
        bool alive = false;
        for (int v = 0; v < Pixels::kVectors; ++v)
            alive |= any(alive_[block * Pixels::kVectors + v]);
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
    int first_channel_, n_channels_, stride_;
    int32_t begin_, end_;       // hits of the tile
    uint32_t alive_blocks_ = 0; // those with a pixel that is not finished
    Pixels pixels_;
    TileNumbers<T> transmittance_, last_, median_, channels_[kChannels];
    Mask alive_[kBlocks * Pixels::kVectors];
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
