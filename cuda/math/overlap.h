// Which tiles a Gaussian can contribute to. It contributes where alpha = opacity * exp(-q / 2) >= 1/255, q = d^T conic
// d: inside the ellipse q <= 2 ln(255 opacity). Per row of tiles the exact interval of columns is found from the extent
// of the ellipse between the first and the last line of pixel centres of that row (the idea of AccuTile, Speedy-Splat,
// Hanson et al. 2025), so no tile is listed that the ellipse only passes by.
#pragma once

#include "constants.h"
#include "math/vec.h"

namespace kinosplat {

// Squared Mahalanobis distance of the ellipse's border; negative when the opacity is too small to be drawn at all.
template <class T>
KS_HOST_DEVICE T ellipse_cutoff(T opacity) {
    return T(2) * log(opacity * T(1.0 / kMinAlpha));
}

template <class T>
struct Interval {
    T low, high;
};

// Extent along x of the ellipse q(d) <= cutoff where its y lies in [low, high] (relative to the centre); swap x and y
// in the arguments for the other axis. Empty (low > high) when the band misses the ellipse.
//   cov_xx, cov_xy, cov_yy: screen covariance; conic_xx: its inverse's xx = cov_yy / det.
template <class T>
KS_HOST_DEVICE Interval<T> ellipse_extent(T cov_xx, T cov_xy, T cov_yy, T conic_xx, T cutoff, Interval<T> y) {
    // On the line y the border is at x = y cov_xy / cov_yy +- sqrt((cutoff - y^2 / cov_yy) / conic_xx): the right
    // border is concave in y with its peak at y = cov_xy sqrt(cutoff / cov_xx), the left one mirrored through the
    // centre.
    const T reach = sqrt(cutoff * cov_yy);
    const T low = maximum(y.low, -reach), high = minimum(y.high, reach);
    const T slope = cov_xy / cov_yy;
    const T peak = cov_xy * sqrt(cutoff / cov_xx);
    const T right_y = clamp(peak, low, high), left_y = clamp(-peak, low, high);
    const T inverse = T(1) / cov_yy, spread = T(1) / conic_xx, zero = T(0);
    const T right = slope * right_y + sqrt(maximum(cutoff - right_y * right_y * inverse, zero) * spread);
    const T left = slope * left_y - sqrt(maximum(cutoff - left_y * left_y * inverse, zero) * spread);
    const auto misses = low > high;
    return {select(misses, T(1), left), select(misses, T(-1), right)};
}

// Whole numbers [begin, end) in the number type, so that Lanes work like scalars; empty when begin >= end.
template <class T>
struct Span {
    T begin, end;
};

// Pixels of a line of `n_pixels` whose centres lie in `interval` around `centre`. A huge Gaussian's border does not fit
// an int, hence clamped while still floating point.
template <class T>
KS_HOST_DEVICE Span<T> pixel_span(Interval<T> interval, T centre, T n_pixels) {
    const T half = T(0.5);
    return {clamp(T(ceil(centre + interval.low - half)), T(0), n_pixels),
            clamp(T(floor(centre + interval.high - half)) + T(1), T(0), n_pixels)};
}

// Tiles that hold pixels of the span.
template <class T>
KS_HOST_DEVICE Span<T> tile_span(Span<T> pixels) {
    const T inverse = T(1.0 / kTileSize), zero = T(0);
    const auto some = pixels.begin < pixels.end;
    return {select(some, T(floor(pixels.begin * inverse)), zero),
            select(some, T(floor((pixels.end - T(1)) * inverse)) + T(1), zero)};
}

// The ellipse of one Gaussian over the grid of tiles of an image. Both the counting and the listing of a Gaussian's
// tiles must come from one compiled copy of this code, since contraction to FMA may round two copies differently.
template <class T>
struct EllipseTiles {
    Vec2<T> centre;
    Sym2<T> covariance;
    T conic_xx, cutoff, width;

    // `cutoff` from ellipse_cutoff, at least 0; `width` in pixels.
    KS_HOST_DEVICE EllipseTiles(Vec2<T> mean2d, Sym2<T> cov, T conic_xx_, T cutoff_, T width_)
        : centre(mean2d), covariance(cov), conic_xx(conic_xx_), cutoff(cutoff_ + T(kOverlapSlack)), width(width_) {}

    // Tile rows it can touch in an image of `height` pixels.
    KS_HOST_DEVICE Span<T> rows(T height) const {
        const T reach = sqrt(cutoff * covariance.yy);
        return tile_span(pixel_span(Interval<T>{-reach, reach}, centre.y, height));
    }

    // Tile columns it can touch in any row.
    KS_HOST_DEVICE Span<T> columns() const {
        const T reach = sqrt(cutoff * covariance.xx);
        return tile_span(pixel_span(Interval<T>{-reach, reach}, centre.x, width));
    }

    // Tile columns touched in one tile row.
    KS_HOST_DEVICE Span<T> columns(T row) const {
        const T first = row * T(kTileSize) + T(0.5) - centre.y;
        const Interval<T> lines{first, first + T(kTileSize - 1)};
        const Interval<T> x = ellipse_extent(covariance.xx, covariance.xy, covariance.yy, conic_xx, cutoff, lines);
        const Span<T> pixels = pixel_span(x, centre.x, width);
        const auto touched = x.low <= x.high;
        return tile_span(Span<T>{select(touched, pixels.begin, T(0)), select(touched, pixels.end, T(0))});
    }
};

struct TileRange {
    int begin, end; // [begin, end)
};

template <class T>
KS_HOST_DEVICE TileRange to_range(Span<T> span) {
    return {int(span.begin), int(span.end)};
}

// The same in plain integers, for one Gaussian at a time.
template <class T>
struct TileOverlap {
    EllipseTiles<T> tiles;
    TileRange rows;

    KS_HOST_DEVICE TileOverlap(Vec2<T> mean2d, Sym2<T> cov, T conic_xx, T cutoff, int width, int height)
        : tiles(mean2d, cov, conic_xx, cutoff, T(width)), rows(to_range(tiles.rows(T(height)))) {}

    KS_HOST_DEVICE TileRange columns() const { return to_range(tiles.columns()); }
    KS_HOST_DEVICE TileRange columns(int row) const { return to_range(tiles.columns(T(row))); }

    KS_HOST_DEVICE int count() const {
        int n = 0;
        for (int row = rows.begin; row < rows.end; ++row) {
            const TileRange range = columns(row);
            n += range.end - range.begin;
        }
        return n;
    }
};

} // namespace kinosplat
