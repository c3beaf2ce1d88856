// Forward: a warp takes 16 or 32 samples at a time through all layers in its registers; the weights are read into
// shared memory once a block, and blocks stay for as long as there are samples.
//
// Backward: a block takes 16 samples a warp. Each layer's inputs lie in a *slot* of shared memory, and the gradient of
// what a slot holds takes its place. The gradients of the weights are sums over all samples of a block: its warps share
// their 16 x 16 pieces, which stay in registers until the block has seen its last sample. Layers whose pieces do not
// fit are left to further launches.
#include <algorithm>

#include "gpu/launch.h"
#include "gpu/layers.cuh"
#include "gpu/mlp.h"

namespace kinosplat::gpu {
namespace {

constexpr int kForwardWarps = 8;

// Groups of 16 rows a warp takes at a time: what fits into registers.
__host__ __device__ constexpr int forward_groups(int n_tiles) { return n_tiles <= 4 ? 2 : 1; }

// The first of the four columns of memory that the calling lane has of a tile.
__device__ inline int memory_start(int tile) { return tile * kMmaSize + lane_id() % 4 * 4; }

// Four neighbours of row-major numbers; zero outside of them.
__device__ inline float4 load_four(const float* from, int64_t row, int column, int64_t n_rows, int n_columns) {
    if (row >= n_rows || column >= n_columns)
        return {0.0f, 0.0f, 0.0f, 0.0f};
    const float* at = from + row * n_columns + column;
    if (n_columns % 4 == 0)
        return *reinterpret_cast<const float4*>(at);
    const int n = n_columns - column;
    return {at[0], n > 1 ? at[1] : 0.0f, n > 2 ? at[2] : 0.0f, n > 3 ? at[3] : 0.0f};
}

// The same, rounded.
__device__ inline uint2 load_pairs(const float* from, int64_t row, int column, int64_t n_rows, int n_columns) {
    const float4 four = load_four(from, row, column, n_rows, n_columns);
    return {round_pair(four.x, four.y), round_pair(four.z, four.w)};
}

__device__ inline uint2 load_pairs(const Half* from, int64_t row, int column, int64_t n_rows, int n_columns) {
    if (row >= n_rows || column >= n_columns)
        return {0, 0};
    const Half* at = from + row * n_columns + column;
    if (n_columns % 4 == 0)
        return *reinterpret_cast<const uint2*>(at);
    const Half zero = __float2half_rn(0.0f);
    const int n = n_columns - column;
    return {as_pair(__halves2half2(at[0], n > 1 ? at[1] : zero)),
            as_pair(__halves2half2(n > 2 ? at[2] : zero, n > 3 ? at[3] : zero))};
}

__device__ inline void store_four(float* to, int64_t row, int column, int64_t n_rows, int n_columns, float4 four) {
    if (row >= n_rows || column >= n_columns)
        return;
    float* at = to + row * n_columns + column;
    if (n_columns % 4 == 0) {
        *reinterpret_cast<float4*>(at) = four;
    } else {
        const int n = n_columns - column;
        at[0] = four.x;
        if (n > 1)
            at[1] = four.y;
        if (n > 2)
            at[2] = four.z;
        if (n > 3)
            at[3] = four.w;
    }
}

// Rows of memory as fragments, in the order of memory_column.
template <int kTiles, class Number>
__device__ __forceinline__ void load_rows(const Number* from, int64_t first_row, int64_t n_rows, int n_columns,
                                          Fragment (&fragments)[kTiles]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
        if (tile < mma_tiles(n_columns))
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                const uint2 pairs =
                    load_pairs(from, first_row + fragment_row(k), memory_start(tile), n_rows, n_columns);
                fragments[tile].pairs[k] = pairs.x;
                fragments[tile].pairs[k + 2] = pairs.y;
            }
}

template <int kTiles>
__device__ __forceinline__ void load_rows(const float* from, int64_t first_row, int64_t n_rows, int n_columns,
                                          Sum (&sums)[2 * kTiles]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
        if (tile < mma_tiles(n_columns))
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                const float4 four = load_four(from, first_row + fragment_row(k), memory_start(tile), n_rows, n_columns);
                float *near = sums[2 * tile].values + 2 * k, *far = sums[2 * tile + 1].values + 2 * k;
                near[0] = four.x;
                near[1] = four.y;
                far[0] = four.z;
                far[1] = four.w;
            }
}

// `scale` takes out what the gradients were multiplied by.
template <int kTiles>
__device__ __forceinline__ void store_rows(float* to, int64_t first_row, int64_t n_rows, int n_columns, float scale,
                                           const Sum (&sums)[2 * kTiles]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
        if (tile < mma_tiles(n_columns))
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                const float *near = sums[2 * tile].values + 2 * k, *far = sums[2 * tile + 1].values + 2 * k;
                store_four(to, first_row + fragment_row(k), memory_start(tile), n_rows, n_columns,
                           {scale * near[0], scale * near[1], scale * far[0], scale * far[1]});
            }
}

template <int kTiles, class Number>
__global__ __launch_bounds__(kForwardWarps* kWarp,
                             kTiles <= 4 ? 2 : 1) void forward_kernel(const __grid_constant__ MlpArrays arrays,
                                                                      float* outputs) {
    extern __shared__ float4 shared[];
    constexpr int kGroups = forward_groups(kTiles), kRows = kGroups * kMmaSize;
    const MlpShape& shape = arrays.shape;
    Half* weights = reinterpret_cast<Half*>(shared);
    load_weights<true>(shape, arrays.weights, weights);
    __syncthreads();
    const int64_t n_samples = rows_in_use(arrays.n_samples, arrays.count);
    const int64_t step = int64_t(gridDim.x) * kForwardWarps * kRows;
    for (int64_t row = (int64_t(blockIdx.x) * kForwardWarps + warp_id()) * kRows; row < n_samples; row += step) {
        Fragment numbers[kGroups][kTiles];
        Sum sums[kGroups][2 * kTiles];
#pragma unroll
        for (int m = 0; m < kGroups; ++m)
            load_rows(static_cast<const Number*>(arrays.inputs), row + m * kMmaSize, n_samples, shape.n_inputs(),
                      numbers[m]);
        multiply_network(shape, weights, numbers, sums);
#pragma unroll
        for (int m = 0; m < kGroups; ++m)
            store_rows<kTiles>(outputs, row + m * kMmaSize, n_samples, shape.n_outputs(), 1.0f, sums[m]);
    }
}

// ---- backward ----

// How the 16 x 16 pieces of one layer's gradient are dealt out to a block's warps, and how many layers a launch takes.
template <int kTiles, int kWarps>
struct Pieces {
    static constexpr int kCount = kTiles * kTiles < kWarps ? 1 : kTiles * kTiles / kWarps; // a warp
    static constexpr int kInRow = kCount < kTiles ? kCount : kTiles;                       // with the same outputs
    static constexpr int kLayers = kCount == 1 ? 4 : kCount == 2 ? 3 : kCount == 4 ? 2 : 1;
};

// Numbers of all layers' weights before `layer`.
__host__ __device__ inline int weights_before(const MlpShape& shape, int layer) {
    int n = 0;
    for (int l = 0; l < layer; ++l)
        n += shape.widths[l] * shape.widths[l + 1];
    return n;
}

// A block's slots, after its weights: one for the inputs of each layer, one for the outputs.
__host__ __device__ inline int slots_before(const MlpShape& shape, int n_rows, int layer) {
    int n = 0;
    for (int l = 0; l < layer; ++l)
        n += n_rows * shared_stride(mma_tiles(shape.widths[l]));
    return n;
}

__device__ inline SharedMatrix slot(const MlpShape& shape, Half* slots, int n_rows, int layer) {
    return {slots + slots_before(shape, n_rows, layer), shared_stride(mma_tiles(shape.widths[layer]))};
}

int backward_bytes(const MlpShape& shape, int n_warps) {
    const int n_slots = slots_before(shape, n_warps * kMmaSize, shape.n_layers + 1);
    return shared_weight_bytes(shape) + n_slots * int(sizeof(Half)) + n_warps * int(sizeof(float));
}

template <int kTiles>
__device__ __forceinline__ void write_slot(const SharedMatrix& to, int row, int n_tiles,
                                           const Fragment (&fragments)[kTiles]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
        if (tile < n_tiles)
#pragma unroll
            for (int k = 0; k < 4; ++k)
                to.pair(row + fragment_row(k), tile * kMmaSize + fragment_column(k)) = fragments[tile].pairs[k];
}

// The power of two that takes `largest` to kLargestGradientExponent; its reciprocal is one as well.
__device__ inline float gradient_scale(float largest) {
    const int exponent = int(__float_as_uint(largest) >> 23);
    const int scale = 127 + 127 + kLargestGradientExponent - exponent;
    return __uint_as_float(uint32_t(min(max(scale, 1), 253)) << 23);
}

// Adds this warp's pieces of gradients^T inputs, sums over the block's rows, to `pieces`.
template <int kTiles, int kWarps>
__device__ __forceinline__ void add_pieces(const SharedMatrix& gradients, const SharedMatrix& inputs, int n_out,
                                           int n_in, float scale, Sum (&pieces)[Pieces<kTiles, kWarps>::kCount][2]) {
    using Deal = Pieces<kTiles, kWarps>;
    const int first = warp_id() * Deal::kCount;
#pragma unroll
    for (int i = 0; i < Deal::kCount; i += Deal::kInRow) {
        const int out = (first + i) / kTiles, in = (first + i) % kTiles;
        if (out >= n_out || in >= n_in)
            continue;
        Sum sums[Deal::kInRow][2] = {};
#pragma unroll
        for (int row = 0; row < kWarps * kMmaSize; row += kMmaSize) {
            const Fragment left = load_matrices_transposed(gradients.columns_first(row, out * kMmaSize));
#pragma unroll
            for (int j = 0; j < Deal::kInRow; ++j)
                if (in + j < n_in) {
                    const Fragment right = load_matrices_transposed(inputs.rows_first(row, (in + j) * kMmaSize));
                    multiply_add(sums[j][0], left, right.pairs[0], right.pairs[1]);
                    multiply_add(sums[j][1], left, right.pairs[2], right.pairs[3]);
                }
        }
#pragma unroll
        for (int j = 0; j < Deal::kInRow; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int k = 0; k < 4; ++k)
                    pieces[i + j][half].values[k] = fmaf(scale, sums[j][half].values[k], pieces[i + j][half].values[k]);
    }
}

template <int kTiles, int kWarps>
__device__ __forceinline__ void write_pieces(float* to, int n_out, int n_in, bool last, bool first,
                                             const Sum (&pieces)[Pieces<kTiles, kWarps>::kCount][2]) {
    using Deal = Pieces<kTiles, kWarps>;
#pragma unroll
    for (int i = 0; i < Deal::kCount; ++i) {
        const int piece = warp_id() * Deal::kCount + i;
        const int out = piece / kTiles * kMmaSize, in = piece % kTiles * kMmaSize;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            int row = out + fragment_row(k >> 1), column = in + fragment_column(k >> 1) + (k & 1);
            row = last ? memory_column(row) : row;
            column = first ? memory_column(column) : column;
            if (row < n_out && column < n_in)
                to[row * n_in + column] = pieces[i][k >> 2].values[k & 3];
        }
    }
}

// Gradients of the weights of the layers from `first_layer` on, as many as Pieces has room for; those of the inputs
// with the launch that has the last layer.
template <int kTiles, int kWarps, class Number>
__global__ __launch_bounds__(kWarps* kWarp, kTiles <= 4 && kWarps == 8 ? 2 : 1) void backward_kernel(
    const __grid_constant__ MlpArrays arrays, const __grid_constant__ MlpGradients gradients, int first_layer) {
    extern __shared__ float4 shared[];
    using Deal = Pieces<kTiles, kWarps>;
    constexpr int kRows = kWarps * kMmaSize;
    const MlpShape& shape = arrays.shape;
    const int last = shape.n_layers;
    Half* weights = reinterpret_cast<Half*>(shared);
    Half* slots = layer_weights(shape, weights, last).data; // after the last layer's
    float* largest_of_warp = reinterpret_cast<float*>(slots + slots_before(shape, kRows, last + 1));
    const bool want_inputs = gradients.dL_dinputs && first_layer + Deal::kLayers >= last;
    load_weights<true>(shape, arrays.weights, weights);
    __syncthreads();

    Sum pieces[Deal::kLayers][Deal::kCount][2] = {};
    const int own = warp_id() * kMmaSize; // this warp's first row of a slot
    const int64_t n_samples = rows_in_use(arrays.n_samples, arrays.count);
    for (int64_t first = int64_t(blockIdx.x) * kRows; first < n_samples; first += int64_t(gridDim.x) * kRows) {
        Fragment numbers[1][kTiles];
        Sum sums[1][2 * kTiles];
        load_rows(static_cast<const Number*>(arrays.inputs), first + own, n_samples, shape.n_inputs(), numbers[0]);
        for (int l = 0; l < last; ++l) {
            if (l > 0) {
                multiply_layer(layer_weights(shape, weights, l - 1), mma_tiles(shape.widths[l - 1]),
                               mma_tiles(shape.widths[l]), numbers, sums);
                activate(sums[0], mma_tiles(shape.widths[l]), numbers[0]);
            }
            write_slot(slot(shape, slots, kRows, l), own, mma_tiles(shape.widths[l]), numbers[0]);
        }

        const int n_outputs = shape.n_outputs();
        load_rows<kTiles>(gradients.dL_doutputs, first + own, n_samples, n_outputs, sums[0]);
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i)
            if (i / 2 < mma_tiles(n_outputs))
#pragma unroll
                for (int k = 0; k < 4; ++k)
                    largest = fmaxf(largest, fabsf(sums[0][i].values[k]));
        const uint32_t largest_bits = warp_max(__float_as_uint(largest)); // not negative, so bits are in order
        if (lane_id() == 0)
            largest_of_warp[warp_id()] = __uint_as_float(largest_bits);
        __syncthreads();
#pragma unroll
        for (int warp = 0; warp < kWarps; ++warp)
            largest = fmaxf(largest, largest_of_warp[warp]);
        const float scale = gradient_scale(largest), inverse_scale = 1.0f / scale;

        for (int l = last; l > 0; --l) {
            // `sums` are the gradients of what slot l holds: of the outputs, or of a layer behind a ReLU.
            const SharedMatrix to = slot(shape, slots, kRows, l);
            const int n_tiles = mma_tiles(shape.widths[l]), n_in = mma_tiles(shape.widths[l - 1]);
            const float factor = l == last ? scale : 1.0f;
#pragma unroll
            for (int tile = 0; tile < kTiles; ++tile)
                if (tile < n_tiles)
#pragma unroll
                    for (int k = 0; k < 4; ++k) {
                        const float* c = sums[0][2 * tile + (k >> 1)].values + 2 * (k & 1);
                        Pair& place = to.pair(own + fragment_row(k), tile * kMmaSize + fragment_column(k));
                        Pair pair = saturated_pair(factor * c[0], factor * c[1]);
                        if (l < last)
                            pair = where_positive(place, pair);
                        place = numbers[0][tile].pairs[k] = pair;
                    }
            __syncthreads();
            const SharedMatrix from = slot(shape, slots, kRows, l - 1);
#pragma unroll
            for (int i = 0; i < Deal::kLayers; ++i)
                if (first_layer + i == l - 1)
                    add_pieces<kTiles, kWarps>(to, from, n_tiles, n_in, inverse_scale, pieces[i]);
            if (l > 1 || want_inputs)
                multiply_back(layer_weights(shape, weights, l - 1), n_in, n_tiles, numbers[0], sums[0]);
            __syncthreads(); // everybody has read both slots
        }
        if (want_inputs)
            store_rows<kTiles>(gradients.dL_dinputs, first + own, n_samples, shape.n_inputs(), inverse_scale, sums[0]);
    }
    float* partial = gradients.partial + int64_t(blockIdx.x) * weights_before(shape, last);
#pragma unroll
    for (int i = 0; i < Deal::kLayers; ++i) {
        const int l = first_layer + i;
        if (l < last)
            write_pieces<kTiles, kWarps>(partial + weights_before(shape, l), shape.widths[l + 1], shape.widths[l],
                                         l + 1 == last, l == 0, pieces[i]);
    }
}

constexpr int kReduceThreads = 256;

// A warp's lanes take neighbouring weights, the warps of a block every eighth of the gradients.
__global__ __launch_bounds__(kReduceThreads) void reduce_kernel(const __grid_constant__ MlpShape shape,
                                                                const __grid_constant__ MlpGradients gradients) {
    __shared__ float sums[kReduceThreads / kWarp][kWarp];
    const int n = weights_before(shape, shape.n_layers), i = blockIdx.x * kWarp + lane_id();
    float sum = 0.0f;
    if (i < n)
        for (int block = warp_id(); block < gradients.n_blocks; block += kReduceThreads / kWarp)
            sum += gradients.partial[int64_t(block) * n + i];
    sums[warp_id()][lane_id()] = sum;
    __syncthreads();
    if (warp_id() > 0 || i >= n)
        return;
    for (int warp = 1; warp < kReduceThreads / kWarp; ++warp)
        sum += sums[warp][lane_id()];
    int layer = 0;
    while (i >= weights_before(shape, layer + 1))
        ++layer;
    gradients.dL_dweights[layer][i - weights_before(shape, layer)] = sum;
}

// ---- launches ----

// Calls function(std::integral_constant) with the smallest number of tiles that all layers fit into.
template <class Function>
void with_tiles(const MlpShape& shape, Function&& function) {
    const int n = mma_tiles(widest(shape));
    if (n <= 1)
        function(std::integral_constant<int, 1>{});
    else if (n <= 2)
        function(std::integral_constant<int, 2>{});
    else if (n <= 4)
        function(std::integral_constant<int, 4>{});
    else
        function(std::integral_constant<int, 8>{});
}

template <int kTiles, class Number>
void launch_forward(const MlpArrays& arrays, float* outputs, cudaStream_t stream) {
    const auto kernel = forward_kernel<kTiles, Number>;
    const int n_bytes = shared_weight_bytes(arrays.shape);
    allow_shared_bytes(kernel, n_bytes, "mlp forward");
    const int64_t rows = kForwardWarps * forward_groups(kTiles) * kMmaSize;
    const int64_t resident =
        int64_t(multiprocessors()) * blocks_at_once(kernel, kForwardWarps * kWarp, n_bytes, "mlp forward");
    const int64_t n_blocks = std::min(divide_up(arrays.n_samples, rows), resident);
    kernel<<<unsigned(n_blocks), kForwardWarps * kWarp, n_bytes, stream>>>(arrays, outputs);
    check_launch("mlp forward");
}

template <int kTiles, int kWarps, class Number>
void launch_backward(const MlpArrays& arrays, const MlpGradients& gradients, cudaStream_t stream) {
    const auto kernel = backward_kernel<kTiles, kWarps, Number>;
    const int n_bytes = backward_bytes(arrays.shape, kWarps);
    allow_shared_bytes(kernel, n_bytes, "mlp backward");
    for (int layer = 0; layer < arrays.shape.n_layers; layer += Pieces<kTiles, kWarps>::kLayers)
        kernel<<<unsigned(gradients.n_blocks), kWarps * kWarp, n_bytes, stream>>>(arrays, gradients, layer);
    check_launch("mlp backward");
}

} // namespace

void mlp_forward(const MlpArrays& arrays, float* outputs, cudaStream_t stream) {
    if (arrays.n_samples == 0)
        return;
    with_tiles(arrays.shape, [&](auto tiles) {
        if (arrays.half_inputs)
            launch_forward<tiles, Half>(arrays, outputs, stream);
        else
            launch_forward<tiles, float>(arrays, outputs, stream);
    });
}

// Two blocks a multiprocessor where there is work for them.
int mlp_gradient_blocks(int64_t n_samples) {
    return int(std::min<int64_t>(divide_up(n_samples, int64_t(8 * kMmaSize)), 2 * multiprocessors()));
}

void mlp_backward(const MlpArrays& arrays, const MlpGradients& gradients, cudaStream_t stream) {
    if (arrays.n_samples > 0)
        with_tiles(arrays.shape, [&](auto tiles) {
            const auto launch = [&](auto number) {
                using Number = std::remove_pointer_t<decltype(number)>;
                // Half as many samples at a time where the layers of more do not fit.
                if (backward_bytes(arrays.shape, 8) <= most_shared_bytes())
                    launch_backward<tiles, 8, Number>(arrays, gradients, stream);
                else
                    launch_backward<tiles, 4, Number>(arrays, gradients, stream);
            };
            if (arrays.half_inputs)
                launch(static_cast<Half*>(nullptr));
            else
                launch(static_cast<float*>(nullptr));
        });
    const int n_weights = weights_before(arrays.shape, arrays.shape.n_layers);
    reduce_kernel<<<unsigned(divide_up(n_weights, kWarp)), kReduceThreads, 0, stream>>>(arrays.shape, gradients);
    check_launch("mlp backward");
}

} // namespace kinosplat::gpu
