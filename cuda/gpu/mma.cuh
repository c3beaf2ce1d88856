// Tensor cores by the warp: products of 16-bit matrices with sums in float, and how their operands lie in registers.
//
// A lane's share of a 16 x 16 left factor (Fragment) are four pairs of neighbours in a row: with g = lane / 4 and
// t = lane % 4, pairs {0, 1} stand in rows g and g + 8 at columns 2t, pairs {2, 3} in the same rows at columns 2t + 8.
// Its share of a 16 x 8 sum (Sum) are the pairs of rows g and g + 8 at columns 2t. So two sums side by side, rounded,
// are a left factor: a layer's outputs become the next one's inputs without leaving the registers (PTX ISA, "Matrix
// Fragments for mma.m16n8k16").
#pragma once

#include <cstdint>
#include <cuda_fp16.h>

namespace kinosplat::gpu {

// Two numbers of 16 bits, the lower half first.
using Pair = uint32_t;
using Half = __half;

struct Fragment {
    Pair pairs[4];
};

struct Sum {
    float values[4]; // (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
};

__device__ inline Pair as_pair(__half2 x) {
    Pair pair;
    memcpy(&pair, &x, sizeof(pair));
    return pair;
}

__device__ inline __half2 as_half2(Pair pair) {
    __half2 x;
    memcpy(&x, &pair, sizeof(x));
    return x;
}

__device__ inline Pair round_pair(float low, float high) { return as_pair(__floats2half2_rn(low, high)); }

__device__ inline float2 unpack(Pair pair) { return __half22float2(as_half2(pair)); }

// max(x, 0), and no larger than the largest number there is.
__device__ inline Pair relu_pair(float low, float high) {
    const __half2 zero = __float2half2_rn(0.0f), most = __float2half2_rn(65504.0f);
    return as_pair(__hmin2(__hmax2(__floats2half2_rn(low, high), zero), most));
}

// Infinities become the largest numbers there are; NaN stays where the hardware can keep it.
__device__ inline Pair saturated_pair(float low, float high) {
    const __half2 x = __floats2half2_rn(low, high);
#if __CUDA_ARCH__ >= 800
    return as_pair(__hmax2_nan(__hmin2_nan(x, __float2half2_rn(65504.0f)), __float2half2_rn(-65504.0f)));
#else
    return as_pair(__hmax2(__hmin2(x, __float2half2_rn(65504.0f)), __float2half2_rn(-65504.0f)));
#endif
}

// `x` where `where` is positive, else 0; `where` is a result of relu_pair.
__device__ inline Pair where_positive(Pair where, Pair x) {
    const Pair low = (where & 0x7fffu) ? 0xffffu : 0u, high = (where & 0x7fff0000u) ? 0xffff0000u : 0u;
    return x & (low | high);
}

// sum += a b, where b is a 16 x 8 right factor: rows 2t, 2t + 1 of column g in `low`, rows 2t + 8, 2t + 9 in `high`.
__device__ inline void multiply_add(Sum& sum, const Fragment& a, Pair low, Pair high) {
    float* c = sum.values;
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(low), "r"(high));
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(low));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(high));
#endif
}

// Four 8 x 8 matrices from shared memory; lane i gives the address of row i % 8 of matrix i / 8, at a multiple of 16
// bytes. A lane receives row g, columns 2t and 2t + 1 of each; transposed, rows 2t and 2t + 1 of column g.
__device__ inline Fragment load_matrices(const Half* row) {
    Fragment f;
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.pairs[0]), "=r"(f.pairs[1]), "=r"(f.pairs[2]), "=r"(f.pairs[3])
                 : "r"(address)
                 : "memory");
    return f;
}

__device__ inline Fragment load_matrices_transposed(const Half* row) {
    Fragment f;
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.pairs[0]), "=r"(f.pairs[1]), "=r"(f.pairs[2]), "=r"(f.pairs[3])
                 : "r"(address)
                 : "memory");
    return f;
}

} // namespace kinosplat::gpu
