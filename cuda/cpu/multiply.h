// Sums of products of small matrices in registers: the one loop that the multilayer perceptron's forward and backward
// passes consist of. A tile of kRows x kVectors registers is summed over all terms before it is written, so a term
// costs kVectors loads and kRows broadcasts for kRows * kVectors multiply-adds.
#pragma once

#include <cstdint>

#include "cpu/lanes.h"

namespace kinosplat::cpu {

// What becomes of a sum.
enum class Finish {
    kStore, // c = sum
    kRelu,  // c = max(sum, 0)
    kMask,  // c = sum where c was positive, else 0: the derivative of kRelu, in the place of its result
    kAdd    // c += sum
};

// Left factor: number (row, term) is at data[row * row_stride + term * term_stride].
template <class T>
struct Factor {
    const T* data;
    int64_t row_stride, term_stride;
};

// Right factor and result: rows of whole vectors.
template <class T>
struct Rows {
    T* data;
    int64_t stride;
};

template <int kRows_, int kVectors_>
struct Tile {
    static constexpr int kRows = kRows_, kVectors = kVectors_;
};

template <Finish kFinish, int kRows, int kVectors, class T>
inline void multiply_tile(int64_t n_terms, Factor<T> a, Rows<const T> b, Rows<T> c) {
    constexpr int kCount = Lanes<T>::kCount;
    Lanes<T> sum[kRows][kVectors];
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
            sum[row][v] = Lanes<T>(T(0));
    for (int64_t term = 0; term < n_terms; ++term) {
        Lanes<T> right[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
            right[v] = Lanes<T>::load(b.data + term * b.stride + v * kCount);
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            const Lanes<T> left(a.data[row * a.row_stride + term * a.term_stride]);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v)
                sum[row][v] = sum[row][v] + left * right[v];
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            T* at = c.data + row * c.stride + v * kCount;
            const Lanes<T> zero(T(0));
            if constexpr (kFinish == Finish::kStore)
                sum[row][v].store(at);
            else if constexpr (kFinish == Finish::kRelu)
                maximum(sum[row][v], zero).store(at);
            else if constexpr (kFinish == Finish::kMask)
                select(Lanes<T>::load(at) > zero, sum[row][v], zero).store(at);
            else
                (Lanes<T>::load(at) + sum[row][v]).store(at);
        }
}

// As many rows as there are, in tiles of kRows and, at the end, smaller ones.
template <Finish kFinish, int kRows, int kVectors, class T>
inline void multiply_columns(int64_t n_rows, int64_t n_terms, Factor<T> a, Rows<const T> b, Rows<T> c) {
    int64_t row = 0;
    for (; row + kRows <= n_rows; row += kRows)
        multiply_tile<kFinish, kRows, kVectors>(n_terms, {a.data + row * a.row_stride, a.row_stride, a.term_stride}, b,
                                                {c.data + row * c.stride, c.stride});
    if constexpr (kRows > 1)
        if (row < n_rows)
            multiply_columns<kFinish, kRows / 2, kVectors>(n_rows - row, n_terms,
                                                           {a.data + row * a.row_stride, a.row_stride, a.term_stride},
                                                           b, {c.data + row * c.stride, c.stride});
}

// c = a b over `n_columns` columns, a multiple of a vector's numbers; tiles fill the target's vector registers (32 with
// AVX-512, else 16) with sums, one row of b and a broadcast.
template <Finish kFinish, class T>
void multiply(int64_t n_rows, int64_t n_terms, int64_t n_columns, Factor<T> a, Rows<const T> b, Rows<T> c) {
    constexpr int kCount = Lanes<T>::kCount;
    int64_t column = 0;
    const auto columns = [&](auto tile) {
        constexpr int kVectors = decltype(tile)::kVectors;
        for (; column + kVectors * kCount <= n_columns; column += kVectors * kCount)
            multiply_columns<kFinish, decltype(tile)::kRows, kVectors>(n_rows, n_terms, a, {b.data + column, b.stride},
                                                                       {c.data + column, c.stride});
    };
    if constexpr (KS_AVX512)
        columns(Tile<6, 4>{});
    columns(Tile<KS_AVX512 ? 12 : 6, 2>{});
    columns(Tile<12, 1>{});
}

} // namespace kinosplat::cpu
