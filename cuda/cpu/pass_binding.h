// How a pass of the CPU backend becomes a function of the Python module.
#pragma once

#include <algorithm>

#include "arguments.h"

namespace kinosplat::cpu {

// For passes whose scratch depends on it; the others leave it to PassCall.
inline int threads(Arguments& a) { return int(std::max<int64_t>(1, a.integer("n_threads"))); }

// From the last argument to the end of a pass: `n_threads` is taken, arguments nobody asked for are refused, and then
// Python's lock is given up for as long as the call lives. What touches Python comes before it or after its block.
class PassCall {
  public:
    explicit PassCall(Arguments& a) : n_threads(finish(a)) {}

    const int n_threads;

  private:
    static int finish(Arguments& a) {
        const int n = threads(a);
        a.finish();
        return n;
    }

    nb::gil_scoped_release release_; // after n_threads, whose errors need the lock
};

} // namespace kinosplat::cpu

// Defines `name` in `module`; runs the float or the double version of run_name, as `decisive` is.
#define KS_PASS(name, decisive, doc)                                                                                   \
    module.def(                                                                                                        \
        #name,                                                                                                         \
        [](nb::kwargs values) {                                                                                        \
            Arguments a(std::move(values), nb::device::cpu::value);                                                    \
            return a.is_double(decisive) ? run_##name<double>(a) : run_##name<float>(a);                               \
        },                                                                                                             \
        doc)

// The same for a pass that has only one version.
#define KS_SINGLE_PASS(name, doc)                                                                                      \
    module.def(                                                                                                        \
        #name,                                                                                                         \
        [](nb::kwargs values) {                                                                                        \
            Arguments a(std::move(values), nb::device::cpu::value);                                                    \
            return run_##name(a);                                                                                      \
        },                                                                                                             \
        doc)
