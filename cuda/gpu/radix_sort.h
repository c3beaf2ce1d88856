// A stable sort of pairs by one digit of at most 8 bits, and what its histograms need (radix_sort.cu).
#pragma once

#include "gpu/frame.h"

namespace kinosplat::gpu {

struct RadixDigit {
    int begin, bits;
    template <class Key>
    __host__ __device__ uint32_t of(Key key) const {
        return uint32_t(key) >> begin & ((1u << bits) - 1);
    }
};

// Digit `pass` of `n_passes`, which share `n_bits` evenly.
__host__ __device__ inline RadixDigit radix_digit(int pass, int n_passes, int n_bits) {
    const int begin = n_bits * pass / n_passes;
    return {begin, n_bits * (pass + 1) / n_passes - begin};
}

// From one buffer to the other, whose keys may be null where they are not wanted any more. There are `n_items` pairs,
// or as many of them as `n_on_device` says where it is not null; at most 2^30 - 1. Row `pass` of the histograms counts
// the values of this digit.
template <class Key>
void radix_pass(const SortBuffer<Key>& from, const SortBuffer<Key>& to, uint32_t n_items, const uint32_t* n_on_device,
                RadixDigit digit, const RadixScratch& scratch, int pass, cudaStream_t stream);

} // namespace kinosplat::gpu
