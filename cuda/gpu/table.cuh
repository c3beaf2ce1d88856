// Rows of a hash grid's table in one load each, whatever they hold.
#pragma once

#include <cstdint>
#include <cuda_fp16.h>

#include "math/sparse_table.h"

namespace kinosplat::gpu {

// A row of kFeatures numbers as it lies in memory: 2 to 32 bytes.
template <int kFeatures, class Stored>
struct alignas(kFeatures * sizeof(Stored) < 16 ? kFeatures * sizeof(Stored) : 16) TableRow {
    Stored values[kFeatures];
};

template <int kFeatures, class Stored>
__device__ inline TableRow<kFeatures, Stored> load_row(const TableRow<kFeatures, Stored>* row) {
    using Row = TableRow<kFeatures, Stored>;
    Row out;
    if constexpr (sizeof(Row) == 2)
        reinterpret_cast<unsigned short&>(out) = __ldg(reinterpret_cast<const unsigned short*>(row));
    else if constexpr (sizeof(Row) == 4)
        reinterpret_cast<uint32_t&>(out) = __ldg(reinterpret_cast<const uint32_t*>(row));
    else if constexpr (sizeof(Row) == 8)
        reinterpret_cast<uint2&>(out) = __ldg(reinterpret_cast<const uint2*>(row));
    else {
        static_assert(sizeof(Row) % 16 == 0);
#pragma unroll
        for (int k = 0; k < int(sizeof(Row) / 16); ++k)
            reinterpret_cast<uint4*>(&out)[k] = __ldg(reinterpret_cast<const uint4*>(row) + k);
    }
    return out;
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }

template <class Stored>
__device__ inline Stored from_float(float x) {
    if constexpr (sizeof(Stored) == 2)
        return __float2half_rn(x);
    else
        return x;
}

// What grid_interpolate (math/hash_grid.h) reads a table through.
template <int kFeatures, class Stored>
struct TableReader {
    using Number = Stored;
    const Stored* table;

    __device__ void operator()(uint32_t entry, float (&values)[kFeatures]) const {
        const TableRow<kFeatures, Stored> row =
            load_row(reinterpret_cast<const TableRow<kFeatures, Stored>*>(table) + entry);
#pragma unroll
        for (int f = 0; f < kFeatures; ++f)
            values[f] = to_float(row.values[f]);
    }
};

// The same of a table of which only some rows are kept; the others are zeros.
template <int kFeatures, class Stored>
struct SparseReader {
    TableReader<kFeatures, Stored> kept;
    SparseIndex sparse;

    __device__ void operator()(uint32_t entry, float (&values)[kFeatures]) const {
        const uint32_t row = sparse_row(sparse, entry);
        if (row != kNoRow)
            return kept(row, values);
#pragma unroll
        for (int f = 0; f < kFeatures; ++f)
            values[f] = 0.0f;
    }
};

} // namespace kinosplat::gpu
