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

inline ProjectScratch project_scratch(const Frame& frame, void* memory, size_t* n_bytes) {
    Carver carver(memory);
    const size_t n = frame.n_pairs();
    ProjectScratch s{};
    s.depth_limits = carver.take<uint32_t>(2);
    s.ticket = carver.take<uint32_t>(1);
    s.status = carver.take<uint64_t>(project_blocks(frame));
    s.emit_ticket = carver.take<uint32_t>(1);
    s.emit_status = carver.take<uint64_t>(emit_blocks(uint32_t(n)));
    s.zeroed_bytes = carver.used();
    s.spans = carver.take<uint2>(n);
    s.depth_keys = carver.take<uint32_t>(n);
    s.row_numbers = carver.take<uint32_t>(n);
    *n_bytes = carver.used();
    return s;
}

// Kept for the backward pass; `channels` is separate, because the number of rows is known by then.
inline Rows rows(const Frame& frame, bool keep, void* memory, size_t* n_bytes) {
    Carver carver(memory);
    const size_t n = frame.n_pairs();
    Rows r{};
    r.records = carver.take<float4>(n * kRowFloat4s);
    r.blue_depth = frame.packed ? nullptr : carver.take<float2>(n);
    r.gaussian_of_row = carver.take<int>(n);
    r.camera_of_row = frame.n_cameras > 1 ? carver.take<int>(n) : nullptr;
    r.row_of_pair = keep ? carver.take<int>(n) : nullptr;
    *n_bytes = carver.used();
    return r;
}

inline BinScratch bin_scratch(const Frame& frame, const FrameCounts& counts, size_t sort_space_bytes, void* memory,
                              size_t* n_bytes) {
    Carver carver(memory);
    BinScratch s{};
    s.other_depth_keys = carver.take<uint32_t>(counts.n_rows);
    s.other_row_numbers = carver.take<uint32_t>(counts.n_rows);
    for (void*& keys : s.tile_keys)
        keys = carver.take<char>(size_t(counts.n_hits) * tile_key_bytes(frame));
    s.other_hits = carver.take<uint32_t>(counts.n_hits);
    s.sort_space_bytes = sort_space_bytes;
    s.sort_space = carver.take<char>(s.sort_space_bytes);
    *n_bytes = carver.used();
    return s;
}

// Kept for the backward pass: the lists, and the channels of the rows where there are any.
struct Lists {
    TileLists tiles;
    float* channels;
};

inline Lists lists(const Frame& frame, const FrameCounts& counts, void* memory, size_t* n_bytes) {
    Carver carver(memory);
    Lists l{};
    l.tiles.ranges = carver.take<uint2>(tile_grid(frame).n_all());
    l.tiles.hits = carver.take<uint32_t>(counts.n_hits);
    l.channels = frame.n_channels() > 0 ? carver.take<float>(size_t(counts.n_rows) * frame.n_channels()) : nullptr;
    *n_bytes = carver.used();
    return l;
}

// Gradients of the rows, zeroed before they are added to.
inline RowGradients row_gradients(const Frame& frame, const FrameCounts& counts, void* memory, size_t* n_bytes) {
    Carver carver(memory);
    RowGradients g{};
    g.moments = carver.take<float>(size_t(counts.n_rows) * kRowGradientFloats);
    g.blue = carver.take<float>(counts.n_rows);
    g.channels = frame.n_channels() > 0 ? carver.take<float>(size_t(counts.n_rows) * frame.n_channels()) : nullptr;
    *n_bytes = carver.used();
    return g;
}

} // namespace kinosplat::gpu
