#include "cpu/threads.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace kinosplat {
namespace {

struct Job {
    int64_t n_chunks;
    void (*function)(void*, int64_t, int);
    void* context;
    std::atomic<int64_t> next{0};
    std::atomic<int> n_inside{0}; // workers that may still touch this job
};

// Chunks are taken one by one until none is left.
void work(Job& job, int worker) {
    for (int64_t chunk = job.next.fetch_add(1); chunk < job.n_chunks; chunk = job.next.fetch_add(1))
        job.function(job.context, chunk, worker);
}

class Pool {
  public:
    void run(Job& job, int n_threads) {
        const std::lock_guard<std::mutex> turn(callers_);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            while (int(n_workers_) < n_threads - 1)
                start_worker();
            job_ = &job;
            n_wanted_ = n_threads - 1;
            ++generation_;
        }
        wake_.notify_all();
        work(job, 0);
        std::unique_lock<std::mutex> lock(mutex_);
        job_ = nullptr; // a worker that wakes up late finds nothing to do
        done_.wait(lock, [&] { return job.n_inside.load() == 0; });
    }

  private:
    void start_worker() {
        const int worker = ++n_workers_;
        std::thread([this, worker] { serve(worker); }).detach();
    }

    void serve(int worker) {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            wake_.wait(lock, [&] { return generation_ != seen && job_ != nullptr && worker <= n_wanted_; });
            seen = generation_;
            Job& job = *job_;
            ++job.n_inside;
            lock.unlock();
            work(job, worker);
            lock.lock();
            --job.n_inside;
            done_.notify_one();
        }
    }

    std::mutex callers_, mutex_;
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    int n_workers_ = 0, n_wanted_ = 0;
    uint64_t generation_ = 0;
};

// Never destroyed: its detached threads may outlive static destructors. A forked child has none of the threads, so it
// starts with a new pool.
Pool*& pool() {
    static Pool* instance = [] {
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, [] { pool() = new Pool; });
#endif
        return new Pool;
    }();
    return instance;
}

} // namespace

void run_chunks(int64_t n_chunks, int n_threads, void (*function)(void*, int64_t, int), void* context) {
    Job job{n_chunks, function, context};
    if (n_threads > n_chunks)
        n_threads = int(n_chunks);
    if (n_threads <= 1)
        work(job, 0);
    else
        pool()->run(job, n_threads);
}

} // namespace kinosplat
