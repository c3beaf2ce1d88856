#include "cpu/tiles.h"

#include <algorithm>

namespace kinosplat::cpu {

template <class T>
void list_tiles(const RowEllipses<T>& rows, int n, int width, int height, int32_t* counts, int32_t* lists,
                const int32_t* offsets) {
    using L = Lanes<T>;
    const EllipseTiles<L> ellipses({rows.mean_x, rows.mean_y}, {rows.cov_xx, rows.cov_xy, rows.cov_yy}, rows.conic_xx,
                                   rows.cutoff, L(T(width)));
    const int n_columns = tiles_across(width);
    std::fill(counts, counts + n, 0);
    const Span<L> tile_rows = ellipses.rows(L(T(height)));
    // The k-th tile row of every lane at once, until no lane has one left.
    alignas(kVectorBytes) T first_tile[L::kCount], n_tiles[L::kCount];
    L row = tile_rows.begin, n_listed(T(0));
    for (auto active = row < tile_rows.end; any(active); active = row < tile_rows.end) {
        const Span<L> columns = ellipses.columns(row);
        const L n_here = select(active, columns.end - columns.begin, L(T(0)));
        if (lists) {
            (row * L(T(n_columns)) + columns.begin).store(first_tile);
            n_here.store(n_tiles);
            for (int lane = 0; lane < n; ++lane) {
                int32_t* list = lists + offsets[lane] + counts[lane];
                const int32_t first = int32_t(first_tile[lane]), n_lane = int32_t(n_tiles[lane]);
                for (int32_t i = 0; i < n_lane; ++i)
                    list[i] = first + i;
                counts[lane] += n_lane;
            }
        }
        n_listed = n_listed + n_here;
        row = row + L(T(1));
    }
    n_listed.store(n_tiles);
    for (int lane = 0; lane < n; ++lane)
        counts[lane] = int32_t(n_tiles[lane]);
}

template void list_tiles<float>(const RowEllipses<float>&, int, int, int, int32_t*, int32_t*, const int32_t*);
template void list_tiles<double>(const RowEllipses<double>&, int, int, int, int32_t*, int32_t*, const int32_t*);

} // namespace kinosplat::cpu
