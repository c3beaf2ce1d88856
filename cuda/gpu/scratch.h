// Who lies where in the buffers that Python allocates: the one owner of their layout. With memory == nullptr a function
// only says how many bytes it needs.
#pragma once

#include "gpu/frame.h"

namespace kinosplat::gpu {

// Cuts one buffer into arrays, each at a multiple of 256 bytes, as cudaMalloc would.
class Carver {
  public:
    explicit Carver(void* memory) : base_(reinterpret_cast<uintptr_t>(memory)) {}

    template <class T>
    T* take(size_t n) {
        T* array = reinterpret_cast<T*>(base_ + used_);
        used_ += (n * sizeof(T) + 255) / 256 * 256;
        return array;
    }

    size_t used() const { return used_; }

  private:
    uintptr_t base_;
    size_t used_ = 0;
};

inline RadixScratch radix_scratch(Carver& carver, int n_passes, uint32_t n_items) {
    RadixScratch s{};
    s.n_blocks = radix_blocks(n_items);
    s.histograms = carver.take<uint32_t>(n_passes * kRadixBins);
    s.tickets = carver.take<uint32_t>(n_passes);
    s.status = carver.take<uint32_t>(size_t(n_passes) * s.n_blocks * kRadixBins);
    return s;
}

inline ProjectScratch project_scratch(const Frame& frame, void* memory, size_t* n_bytes) {
    Carver carver(memory);
    const size_t n = frame.n_pairs();
    ProjectScratch s{};
    s.counts = carver.take<DeviceCounts>(1);
    s.compact_ticket = carver.take<uint32_t>(1);
    s.compact_status = carver.take<uint64_t>(compact_blocks(frame));
    s.sort = radix_scratch(carver, kDepthPasses, uint32_t(n));
    s.zeroed_bytes = carver.used();
    s.block_counts = carver.take<uint2>(project_blocks(frame));
    s.spans = carver.take<uint2>(n);
    s.more_spans = carver.take<uint32_t>(n);
    // An odd number of passes ends in the buffer that it did not start from.
    static_assert(kDepthPasses % 2 == 1, "sorted_rows is the other buffer");
    s.sorted_rows = s.by_depth[1].values = carver.take<uint32_t>(n);
    const size_t before = carver.used();
    s.by_depth[0].keys = carver.take<uint32_t>(n);
    s.by_depth[0].values = carver.take<uint32_t>(n);
    s.by_depth[1].keys = carver.take<uint32_t>(n);
    s.free_after_sort = s.by_depth[0].keys;
    s.free_bytes = carver.used() - before;
    *n_bytes = carver.used();
    return s;
}

// Kept for the backward pass; `channels` is separate, because it is not always there.
inline Rows rows(const Frame& frame, void* memory, size_t* n_bytes) {
    Carver carver(memory);
    const size_t n = frame.n_pairs();
    Rows r{};
    r.records = carver.take<float4>(n * kRowFloat4s);
    r.blue_depth = frame.packed ? nullptr : carver.take<float2>(n);
    r.channels = frame.n_channels() > 0 ? carver.take<float>(n * frame.n_channels()) : nullptr;
    *n_bytes = carver.used();
    return r;
}

// Half of it lies where the depths were sorted, if it fits there.
inline BinScratch bin_scratch(const Frame& frame, const FrameCounts& counts, const ProjectScratch& project,
                              void* memory, size_t* n_bytes) {
    Carver carver(memory);
    BinScratch s{};
    const size_t n = counts.n_entries;
    s.sort = radix_scratch(carver, quad_passes(frame), counts.n_entries);
    s.ticket = carver.take<uint32_t>(1);
    s.status = carver.take<uint64_t>(emit_blocks(counts.n_rows));
    s.zeroed_bytes = carver.used();
    s.keys[0] = carver.take<char>(n * quad_key_bytes(frame));
    const auto take_other = [&](Carver& from) {
        s.keys[1] = from.take<char>(n * quad_key_bytes(frame));
        s.other_entries = from.take<uint32_t>(n);
    };
    Carver reused(project.free_after_sort);
    take_other(reused);
    if (reused.used() > project.free_bytes)
        take_other(carver);
    *n_bytes = carver.used();
    return s;
}

// Kept for the backward pass.
inline TileLists tile_lists(const Frame& frame, const FrameCounts& counts, void* memory, size_t* n_bytes) {
    Carver carver(memory);
    TileLists l{};
    l.ranges = carver.take<uint2>(tile_grid(frame).n_all_quads());
    l.entries = carver.take<uint32_t>(counts.n_entries);
    *n_bytes = carver.used();
    return l;
}

// Gradients of the rows where they do not lie in those of the Gaussians.
inline RowGradients row_gradients(const Frame& frame, const GaussianArrays<float>& gradients, void* memory,
                                  size_t* n_bytes) {
    Carver carver(memory);
    const size_t n = frame.n_pairs();
    RowGradients g{gradients.quats, gradients.log_scales, gradients.means, nullptr};
    if (frame.n_cameras > 1) {
        g.moments = carver.take<float>(n * 4);
        g.second_moments = carver.take<float>(n * 3);
        g.rgb = carver.take<float>(n * 3);
    }
    g.channels = frame.n_channels() > 0 ? carver.take<float>(n * frame.n_channels()) : nullptr;
    *n_bytes = carver.used();
    return g;
}

} // namespace kinosplat::gpu
