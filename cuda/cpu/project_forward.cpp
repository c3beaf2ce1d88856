// Stored Gaussians to rows: slice in time, project, colour, count tiles; several Gaussians at once, one a lane. What is
// not drawn (math/gaussian.h says what that is) or touches no tile leaves no row.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "cpu/load.h"
#include "cpu/threads.h"
#include "cpu/tiles.h"

namespace kinosplat::cpu {
namespace {

template <class T>
struct Chunk {
    const GaussianArrays<T>& gaussians;
    const View<T>& view;
    const ChannelSettings& channels;
    const ProjectOutputs<T>& out;
    int stride; // of the records

    // Writes the rows of Gaussians [begin, end) from row number `begin` on, with their number of hits in hit_offsets.
    int32_t write_rows(int64_t begin, int64_t end) const {
        using L = Lanes<T>;
        const View<L> wide_view = widen(view);
        int32_t index[L::kCount];
        int32_t n_rows = 0;
        for (int64_t first = begin; first < end; first += L::kCount) {
            const int n = int(std::min<int64_t>(L::kCount, end - first));
            for (int lane = 0; lane < L::kCount; ++lane)
                index[lane] = int32_t(first + std::min(lane, n - 1));
            const StoredGaussian<L> g = gather_gaussians(gaussians, index, view.moving);
            const ScreenGaussian<L> s = to_screen(g, wide_view);
            uint32_t drawn = bits(is_drawn(g, wide_view, s)) & ((1u << n) - 1);
            if (!drawn)
                continue;
            int32_t counts[L::kCount];
            drawn = count_tiles(s, n, drawn, counts);
            if (!drawn)
                continue;

            const Projection<L>& p = s.projection;
            alignas(kVectorBytes) T fields[kRecordHead + 6][L::kCount];
            alignas(kVectorBytes) T ellipse[kEllipseFields][L::kCount], depth[L::kCount];
            p.mean2d.x.store(fields[kMeanX]);
            p.mean2d.y.store(fields[kMeanY]);
            p.conic.xx.store(fields[kConicXX]);
            p.conic.xy.store(fields[kConicXY]);
            p.conic.yy.store(fields[kConicYY]);
            s.opacity.store(fields[kOpacity]);
            p.depth.store(depth);
            const L cutoff = s.cutoff + L(T(kOverlapSlack));
            (L(T(-0.5)) * cutoff).store(fields[kMinExponent]);
            min_block_exponent(p.conic, cutoff).store(fields[kMinBlockExponent]);
            p.covariance.xx.store(ellipse[kCovXX]);
            p.covariance.xy.store(ellipse[kCovXY]);
            p.covariance.yy.store(ellipse[kCovYY]);
            s.cutoff.store(ellipse[kCutoff]);

            Vec3<L> colour;
            with_sh_degree(channels.sh_degree, [&](auto degree) {
                colour = sh_colour<degree()>(index, view_direction(s.mean, wide_view.camera.position));
            });
            drawn &= bits(is_finite(colour));
            maximum(colour.x, L(T(0))).store(fields[kRecordHead]);
            maximum(colour.y, L(T(0))).store(fields[kRecordHead + 1]);
            maximum(colour.z, L(T(0))).store(fields[kRecordHead + 2]);
            if (channels.normal) {
                const Vec3<L> normal = p.axes * normal_factors(p.axes, g.log_scale, s.mean, wide_view.camera.position);
                normal.x.store(fields[kRecordHead + 3]);
                normal.y.store(fields[kRecordHead + 4]);
                normal.z.store(fields[kRecordHead + 5]);
            }

            for (int lane = 0; lane < n; ++lane)
                if (drawn >> lane & 1)
                    n_rows += write_row(begin + n_rows, index[lane], lane, counts[lane], depth[lane], fields, ellipse);
        }
        return n_rows;
    }

    // By the triangle inequality in the norm of the conic: a pixel of a block is nearer than the block's centre by at
    // most the norm of half its diagonal.
    static Lanes<T> min_block_exponent(const Sym2<Lanes<T>>& conic, Lanes<T> cutoff) {
        using L = Lanes<T>;
        const L half = T(kBlockSize - 1) / T(2);
        const L diagonal = half * sqrt(conic.xx + conic.yy + L(T(2)) * maximum(conic.xy, -conic.xy));
        const L reach = sqrt(cutoff) + diagonal;
        return L(T(-0.5)) * reach * reach;
    }

    // Those of the `drawn` lanes that touch a tile; lanes that are not drawn may hold NaN and are shrunk to nothing
    // first.
    uint32_t count_tiles(const ScreenGaussian<Lanes<T>>& s, int n, uint32_t drawn, int32_t* counts) const {
        using L = Lanes<T>;
        const Projection<L>& p = s.projection;
        const L far_outside = T(-1e6), one = T(1), zero = T(0);
        const L is_drawn = make_lanes<T>([&](int lane) { return T(drawn >> lane & 1); });
        const auto keep = [&](L value, L otherwise) { return select(is_drawn > zero, value, otherwise); };
        list_tiles<T>({keep(p.mean2d.x, far_outside), keep(p.mean2d.y, far_outside), keep(p.conic.xx, one),
                       keep(p.covariance.xx, one), keep(p.covariance.xy, zero), keep(p.covariance.yy, one),
                       keep(s.cutoff, zero)},
                      n, int(view.camera.width), int(view.camera.height), counts, nullptr, nullptr);
        for (int lane = 0; lane < n; ++lane)
            if (counts[lane] == 0)
                drawn &= ~(1u << lane);
        return drawn;
    }

    // Not yet clamped at 0, so that NaN is still seen.
    template <int kDegree>
    Vec3<Lanes<T>> sh_colour(const int32_t* index, Vec3<Lanes<T>> direction) const {
        using L = Lanes<T>;
        L basis[sh_basis_size(kDegree)];
        sh_basis<kDegree>(direction, basis);
        Vec3<L> colour{L(T(kShOffset)), L(T(kShOffset)), L(T(kShOffset))};
        for (int k = 0; k < sh_basis_size(kDegree); ++k)
            colour = colour + basis[k] * gather_coefficient(gaussians, index, k);
        return colour;
    }

    // 1 when the row was written, 0 when a feature is not finite.
    int write_row(int64_t row, int32_t index, int lane, int32_t n_hits, T depth, const T (*fields)[Lanes<T>::kCount],
                  const T (*ellipse_fields)[Lanes<T>::kCount]) const {
        T* record = out.records + row * stride;
        T* ellipse = out.ellipses + row * kEllipseFields;
        for (int field = 0; field < kRecordHead; ++field)
            record[field] = fields[field][lane];
        for (int field = 0; field < kEllipseFields; ++field)
            ellipse[field] = ellipse_fields[field][lane];
        T* channel = record + kRecordHead;
        for (int c = 0; c < 3; ++c)
            *channel++ = fields[kRecordHead + c][lane];
        if (channels.depth)
            *channel++ = depth;
        if (channels.normal)
            for (int c = 3; c < 6; ++c)
                *channel++ = fields[kRecordHead + c][lane];
        T sum = T(0);
        for (int c = 0; c < channels.n_features; ++c)
            sum += * channel++ = gaussians.features[int64_t(index) * gaussians.n_features + c];
        if (!is_finite(sum))
            return 0;
        std::fill(channel, record + stride, T(0));
        out.indices[row] = index;
        out.depths[row] = depth;
        out.hit_offsets[row] = n_hits;
        return 1;
    }
};

// Closes the gaps between the chunks' rows and turns numbers of hits into offsets.
template <class T>
ProjectCounts compact(const ProjectOutputs<T>& out, int64_t n_chunks, int stride) {
    int64_t n_rows = 0, n_hits = 0;
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
        const int64_t first = chunk * kProjectChunk, n = out.chunk_rows[chunk];
        if (first != n_rows) {
            std::memmove(out.indices + n_rows, out.indices + first, n * sizeof(int32_t));
            std::memmove(out.depths + n_rows, out.depths + first, n * sizeof(T));
            std::memmove(out.records + n_rows * stride, out.records + first * stride, n * stride * sizeof(T));
            std::memmove(out.ellipses + n_rows * kEllipseFields, out.ellipses + first * kEllipseFields,
                         n * kEllipseFields * sizeof(T));
        }
        for (int64_t i = 0; i < n; ++i) {
            const int32_t count = out.hit_offsets[first + i];
            out.hit_offsets[n_rows + i] = int32_t(n_hits);
            n_hits += count;
            if (n_hits > std::numeric_limits<int32_t>::max())
                throw std::length_error("the picture has more than 2^31 - 1 pairs of a "
                                        "Gaussian and a tile; render it "
                                        "smaller, or Gaussians that are.");
        }
        n_rows += n;
    }
    out.hit_offsets[n_rows] = int32_t(n_hits);
    return {n_rows, n_hits};
}

} // namespace

template <class T>
ProjectCounts project_forward(const GaussianArrays<T>& gaussians, const View<T>& view, const ChannelSettings& channels,
                              const ProjectOutputs<T>& out, int n_threads) {
    const int stride = record_stride(channels.count());
    const Chunk<T> chunk{gaussians, view, channels, out, stride};
    const int64_t n_chunks = chunks_of(gaussians.n, kProjectChunk);
    parallel_for(n_chunks, n_threads, [&](int64_t i, int) {
        const int64_t begin = i * kProjectChunk;
        out.chunk_rows[i] = chunk.write_rows(begin, std::min(begin + kProjectChunk, gaussians.n));
    });
    return compact(out, n_chunks, stride);
}

template ProjectCounts project_forward<float>(const GaussianArrays<float>&, const View<float>&, const ChannelSettings&,
                                              const ProjectOutputs<float>&, int);
template ProjectCounts project_forward<double>(const GaussianArrays<double>&, const View<double>&,
                                               const ChannelSettings&, const ProjectOutputs<double>&, int);

} // namespace kinosplat::cpu
