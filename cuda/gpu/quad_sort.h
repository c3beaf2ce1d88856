// Entries grouped by quad in one go, for pictures of few enough quads to count all of them in shared memory
// (quad_sort.cu).
#pragma once

#include "gpu/frame.h"

namespace kinosplat::gpu {

// `quads` are those of the entries, of which there are `n_entries` > 0 in order of depth; both buffers end at a
// multiple of 256 bytes. Writes all of the lists.
void sort_by_quad(const uint16_t* quads, const uint32_t* entries, uint32_t n_entries, int n_quads,
                  const QuadSortScratch& scratch, const TileLists& lists, cudaStream_t stream);

} // namespace kinosplat::gpu
