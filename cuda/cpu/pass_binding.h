// How a pass of the CPU backend becomes a function of the Python module.
#pragma once

#include <algorithm>

#include "arguments.h"

namespace kinosplat::cpu {

inline int threads(Arguments& a) { return int(std::max<int64_t>(1, a.integer("n_threads"))); }

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
