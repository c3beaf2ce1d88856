// The occupancy grid's upkeep on the CPU.
#include <algorithm>

#include "cpu/field.h"
#include "cpu/field_step.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

constexpr int64_t kTask = 65536; // cells, a multiple of 8

} // namespace

void occupancy_update(int64_t n_cells, float decay, int64_t n_values, const int64_t* cells, const float* values,
                      float* density, int n_threads) {
    parallel_for(chunks_of(n_cells, kTask), n_threads, [&](int64_t task, int) {
        for (int64_t i = task * kTask; i < std::min(n_cells, (task + 1) * kTask); ++i)
            density[i] *= decay;
    });
    // In order on one thread: a cell may be named twice, and a maximum costs no more than finding out.
    for (int64_t i = 0; i < n_values; ++i)
        if (cells[i] >= 0 && cells[i] < n_cells)
            density[cells[i]] = std::max(density[cells[i]], values[i]);
}

void occupancy_pack(int64_t n_cells, const float* density, float threshold, uint8_t* bits, int n_threads) {
    parallel_for(chunks_of(n_cells, kTask), n_threads, [&](int64_t task, int) {
        for (int64_t i = task * kTask; i < std::min(n_cells, (task + 1) * kTask); i += 8) {
            unsigned byte = 0;
            for (int k = 0; k < 8; ++k)
                byte |= unsigned(density[i + k] > threshold) << k;
            bits[i / 8] = uint8_t(byte);
        }
    });
}

void visit_cells(const Marching<float>& marching, const CellVisits& visits, int64_t n_occupied, int64_t first,
                 int64_t n, int64_t* cells, float* positions, int n_threads) {
    parallel_for(chunks_of(n, kTask), n_threads, [&](int64_t task, int) {
        for (int64_t i = task * kTask; i < std::min(n, (task + 1) * kTask); ++i) {
            const CellVisit visit = visit_cell(marching, visits, n_occupied, first + i);
            cells[i] = visit.cell;
            store3(positions, i, visit.position);
        }
    });
}

} // namespace kinosplat::cpu
