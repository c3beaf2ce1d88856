// A table of which only some rows are kept, read without unpacking (the two codings of RT-NeRF, Li et al. 2022, chosen
// for each block). Rows kept stand one behind the other; for every kSparseBlock rows of the whole table a header says
// where its kept ones begin and where its index does. What an index is follows from the number n of rows kept:
//
//     0 or all of them   nothing
//     up to 28           coordinates: the kept rows' places in the block, a byte each, four to a word, in order; the
//     last
//                        one is repeated to the end of its word
//     more               a bitmap of 8 words; the rows before a place are counted in it
#pragma once

#include <cstdint>

#include "math/scalar.h"

namespace kinosplat {

constexpr uint32_t kSparseBlock = 256;
constexpr uint32_t kBitmapWords = kSparseBlock / 32;
constexpr uint32_t kNoRow = 0xffffffffu;

struct SparseHeader {
    uint32_t first_row;  // of the kept ones
    uint32_t first_word; // of the index
};

struct SparseIndex {
    const SparseHeader* headers; // (blocks + 1,), null for a table that is whole
    const uint32_t* words;
};

KS_HOST_DEVICE uint32_t count_bits(uint32_t x) {
#if defined(__CUDA_ARCH__)
    return uint32_t(__popc(x));
#else
    return uint32_t(__builtin_popcount(x));
#endif
}

KS_HOST_DEVICE uint32_t lowest_bit(uint32_t x) {
#if defined(__CUDA_ARCH__)
    return uint32_t(__ffs(x) - 1);
#else
    return uint32_t(__builtin_ctz(x));
#endif
}

// Row among those kept, or kNoRow.
KS_HOST_DEVICE uint32_t sparse_row(const SparseIndex& sparse, uint32_t entry) {
    const SparseHeader header = sparse.headers[entry / kSparseBlock];
    const uint32_t n = sparse.headers[entry / kSparseBlock + 1].first_row - header.first_row;
    const uint32_t place = entry % kSparseBlock;
    const uint32_t* words = sparse.words + header.first_word;
    if (n == 0)
        return kNoRow;
    if (n == kSparseBlock)
        return header.first_row + place;
    const uint32_t n_words = (n + 3) / 4;
    if (n_words < kBitmapWords) {
        for (uint32_t k = 0; k < n_words; ++k) {
            // The lowest zero byte of `x` is the lowest one marked (Mycroft 1987).
            const uint32_t x = words[k] ^ (place * 0x01010101u);
            const uint32_t zeros = (x - 0x01010101u) & ~x & 0x80808080u;
            if (zeros)
                return header.first_row + 4 * k + lowest_bit(zeros) / 8;
        }
        return kNoRow;
    }
    const uint32_t word = words[place / 32], bit = 1u << (place % 32);
    if (!(word & bit))
        return kNoRow;
    uint32_t before = count_bits(word & (bit - 1));
    for (uint32_t k = 0; k < place / 32; ++k)
        before += count_bits(words[k]);
    return header.first_row + before;
}

} // namespace kinosplat
