// From a number of features known when the program runs to one known when it is compiled.
#pragma once

#include <type_traits>

#include "math/hash_grid.h"

namespace kinosplat {

// Calls function(std::integral_constant<int, n_features>) for 1, 2, 4 or 8 features.
template <class Function>
void with_grid_features(int n_features, Function&& function) {
    static_assert(kMaxGridFeatures == 8);
    switch (n_features) {
    case 1:
        return function(std::integral_constant<int, 1>{});
    case 2:
        return function(std::integral_constant<int, 2>{});
    case 4:
        return function(std::integral_constant<int, 4>{});
    default:
        return function(std::integral_constant<int, 8>{});
    }
}

} // namespace kinosplat
