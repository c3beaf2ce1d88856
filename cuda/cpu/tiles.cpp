#include "cpu/tiles.h"

namespace kinosplat::cpu {

template <class T>
int list_tiles(const T* record, const T* ellipse, int width, int height, int32_t* tiles) {
    const Sym2<T> covariance{ellipse[kCovXX], ellipse[kCovXY], ellipse[kCovYY]};
    const TileOverlap<T> overlap({record[kMeanX], record[kMeanY]}, covariance, record[kConicXX], ellipse[kCutoff],
                                 width, height);
    const int n_columns = tiles_across(width);
    int n = 0;
    for (int row = overlap.rows.begin; row < overlap.rows.end; ++row) {
        const TileRange columns = overlap.columns(row);
        if (tiles)
            for (int column = columns.begin; column < columns.end; ++column)
                tiles[n + column - columns.begin] = row * n_columns + column;
        n += columns.end - columns.begin;
    }
    return n;
}

template int list_tiles<float>(const float*, const float*, int, int, int32_t*);
template int list_tiles<double>(const double*, const double*, int, int, int32_t*);

} // namespace kinosplat::cpu
