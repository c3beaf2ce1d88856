// A pool of worker threads for loops over chunks. Chunks are handed out in order to whoever is free, so results must
// depend on the chunk and never on the worker that took it. An own pool, because a second OpenMP runtime beside torch's
// would spin against it.
#pragma once

#include <cstdint>

namespace kinosplat {

// Calls function(context, chunk, worker) for every chunk in [0, n_chunks), on the calling thread and at most n_threads
// - 1 others; worker < n_threads. Returns when all are done. Calls from several threads at once take turns.
void run_chunks(int64_t n_chunks, int n_threads, void (*function)(void*, int64_t, int), void* context);

template <class Function>
void parallel_for(int64_t n_chunks, int n_threads, Function&& function) {
    run_chunks(
        n_chunks, n_threads,
        [](void* context, int64_t chunk, int worker) { (*static_cast<Function*>(context))(chunk, worker); }, &function);
}

// Number of chunks of `size` that cover n items.
constexpr int64_t chunks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

} // namespace kinosplat
