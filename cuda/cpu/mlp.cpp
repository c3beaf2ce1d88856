// Forward: a block's numbers go through all layers before the next block starts. Backward: forward again up to the last
// hidden layer, then from the end to the beginning, each layer's gradient taking the place of the numbers it belongs
// to.
#include "cpu/mlp.h"

#include <algorithm>
#include <cstring>

#include "cpu/multiply.h"
#include "cpu/threads.h"

namespace kinosplat::cpu {
namespace {

// Widths in whole vectors; what is added is zero and stays zero.
template <class T>
int64_t padded(int width) {
    return chunks_of(width, Lanes<T>::kCount) * Lanes<T>::kCount;
}

// Where a layer's numbers begin in a block: one layer after the other, each (kMlpBlock, padded width).
template <class T>
int64_t layer_offset(const MlpShape& shape, int layer) {
    int64_t offset = 0;
    for (int l = 0; l < layer; ++l)
        offset += kMlpBlock * padded<T>(shape.widths[l]);
    return offset;
}

// Weights transposed, (n_in, padded n_out), for the forward pass; then as they are, (n_out, padded n_in), for the
// backward pass.
template <class T>
struct PackedWeights {
    Rows<const T> transposed[kMaxMlpLayers], straight[kMaxMlpLayers];

    PackedWeights(const MlpShape& shape, const T* packed) {
        for (int l = 0; l < shape.n_layers; ++l) {
            const int64_t n_in = shape.widths[l], n_out = shape.widths[l + 1];
            transposed[l] = {packed, padded<T>(n_out)};
            straight[l] = {packed + n_in * padded<T>(n_out), padded<T>(n_in)};
            packed = straight[l].data + n_out * padded<T>(n_in);
        }
    }
};

// Rows of `width` numbers into rows of whole vectors, and back.
template <class T>
void spread(int64_t n_rows, int width, const T* from, Rows<T> to) {
    for (int64_t row = 0; row < n_rows; ++row) {
        std::memcpy(to.data + row * to.stride, from + row * width, width * sizeof(T));
        std::fill_n(to.data + row * to.stride + width, to.stride - width, T(0));
    }
}

template <class T>
void gather(int64_t n_rows, int width, Rows<T> from, T* to) {
    for (int64_t row = 0; row < n_rows; ++row)
        std::memcpy(to + row * width, from.data + row * from.stride, width * sizeof(T));
}

// One block of samples on its way through the layers.
template <class T>
class Block {
  public:
    Block(const MlpArrays<T>& arrays, const PackedWeights<T>& weights, int64_t first, T* scratch)
        : arrays_(arrays), shape_(arrays.shape), weights_(weights), first_(first),
          n_rows_(std::min(kMlpBlock, arrays.n_samples - first)) {
        for (int l = 0; l <= shape_.n_layers; ++l)
            layers_[l] = {scratch + layer_offset<T>(shape_, l), padded<T>(shape_.widths[l])};
        spread(n_rows_, shape_.n_inputs(), arrays.inputs + first * shape_.n_inputs(), layers_[0]);
    }

    void hidden_layers() {
        for (int l = 0; l + 1 < shape_.n_layers; ++l)
            forward<Finish::kRelu>(l);
    }

    void outputs(T* outputs) {
        forward<Finish::kStore>(shape_.n_layers - 1);
        gather(n_rows_, shape_.n_outputs(), layers_[shape_.n_layers], outputs + first_ * shape_.n_outputs());
    }

    // Adds this block's gradients of the weights to `sums`, (widths[l + 1], padded widths[l]) a layer.
    void gradients(const MlpGradients<T>& g, T* sums) {
        const int last = shape_.n_layers;
        spread(n_rows_, shape_.n_outputs(), g.dL_doutputs + first_ * shape_.n_outputs(), layers_[last]);
        for (int l = last - 1; l >= 0; --l)
            sums += shape_.widths[l + 1] * layers_[l].stride;
        for (int l = last - 1; l >= 0; --l) {
            const Rows<T> inputs = layers_[l], gradients = layers_[l + 1];
            const int64_t n_out = shape_.widths[l + 1];
            sums -= n_out * inputs.stride;
            multiply<Finish::kAdd, T>(n_out, n_rows_, inputs.stride, {gradients.data, 1, gradients.stride},
                                      {inputs.data, inputs.stride}, {sums, inputs.stride});
            if (l > 0)
                backward<Finish::kMask>(l);
            else if (g.dL_dinputs)
                backward<Finish::kStore>(l);
        }
        if (g.dL_dinputs)
            gather(n_rows_, shape_.n_inputs(), layers_[0], g.dL_dinputs + first_ * shape_.n_inputs());
    }

  private:
    template <Finish kFinish>
    void forward(int l) {
        const Rows<T> in = layers_[l], out = layers_[l + 1];
        multiply<kFinish, T>(n_rows_, shape_.widths[l], out.stride, {in.data, in.stride, 1}, weights_.transposed[l],
                             out);
    }

    template <Finish kFinish>
    void backward(int l) {
        const Rows<T> in = layers_[l], out = layers_[l + 1];
        multiply<kFinish, T>(n_rows_, shape_.widths[l + 1], in.stride, {out.data, out.stride, 1}, weights_.straight[l],
                             in);
    }

    const MlpArrays<T>& arrays_;
    const MlpShape& shape_;
    const PackedWeights<T>& weights_;
    int64_t first_, n_rows_;
    Rows<T> layers_[kMaxMlpLayers + 1];
};

// Few enough that their gradients take little memory and adding up, many enough that threads find work.
constexpr int64_t kMostChunks = 64;

int64_t chunk_blocks(int64_t n_samples) {
    return std::max<int64_t>(8, chunks_of(chunks_of(n_samples, kMlpBlock), kMostChunks));
}

} // namespace

template <class T>
int64_t mlp_packed_size(const MlpShape& shape) {
    int64_t size = 0;
    for (int l = 0; l < shape.n_layers; ++l)
        size += shape.widths[l] * padded<T>(shape.widths[l + 1]) + shape.widths[l + 1] * padded<T>(shape.widths[l]);
    return size;
}

template <class T>
int64_t mlp_block_size(const MlpShape& shape) {
    return layer_offset<T>(shape, shape.n_layers + 1);
}

template <class T>
int64_t mlp_gradient_size(const MlpShape& shape) {
    int64_t size = 0;
    for (int l = 0; l < shape.n_layers; ++l)
        size += shape.widths[l + 1] * padded<T>(shape.widths[l]);
    return size;
}

int64_t mlp_chunks(int64_t n_samples) { return chunks_of(chunks_of(n_samples, kMlpBlock), chunk_blocks(n_samples)); }

template <class T>
void mlp_pack(const MlpArrays<T>& arrays) {
    const PackedWeights<T> places(arrays.shape, arrays.packed);
    std::fill_n(arrays.packed, mlp_packed_size<T>(arrays.shape), T(0));
    for (int l = 0; l < arrays.shape.n_layers; ++l) {
        const int64_t n_in = arrays.shape.widths[l], n_out = arrays.shape.widths[l + 1];
        T* transposed = arrays.packed + (places.transposed[l].data - arrays.packed);
        T* straight = arrays.packed + (places.straight[l].data - arrays.packed);
        for (int64_t o = 0; o < n_out; ++o)
            for (int64_t i = 0; i < n_in; ++i)
                transposed[i * places.transposed[l].stride + o] = straight[o * places.straight[l].stride + i] =
                    arrays.weights[l][o * n_in + i];
    }
}

template <class T>
void mlp_forward_packed(const MlpArrays<T>& arrays, T* outputs) {
    const PackedWeights<T> weights(arrays.shape, arrays.packed);
    for (int64_t first = 0; first < arrays.n_samples; first += kMlpBlock) {
        Block<T> block(arrays, weights, first, arrays.scratch);
        block.hidden_layers();
        block.outputs(outputs);
    }
}

template <class T>
void mlp_forward(const MlpArrays<T>& arrays, T* outputs, int n_threads) {
    mlp_pack(arrays);
    const PackedWeights<T> weights(arrays.shape, arrays.packed);
    const int64_t block_size = mlp_block_size<T>(arrays.shape);
    parallel_for(chunks_of(arrays.n_samples, kMlpBlock), n_threads, [&](int64_t i, int worker) {
        Block<T> block(arrays, weights, i * kMlpBlock, arrays.scratch + worker * block_size);
        block.hidden_layers();
        block.outputs(outputs);
    });
}

template <class T>
void mlp_backward(const MlpArrays<T>& arrays, const MlpGradients<T>& gradients, int n_threads) {
    const MlpShape& shape = arrays.shape;
    mlp_pack(arrays);
    const PackedWeights<T> weights(shape, arrays.packed);
    const int64_t block_size = mlp_block_size<T>(shape), gradient_size = mlp_gradient_size<T>(shape);
    const int64_t n_chunks = mlp_chunks(arrays.n_samples), n_blocks = chunks_of(arrays.n_samples, kMlpBlock);
    const int64_t blocks_a_chunk = chunk_blocks(arrays.n_samples);
    parallel_for(n_chunks, n_threads, [&](int64_t chunk, int worker) {
        T* sums = gradients.partial + chunk * gradient_size;
        std::fill_n(sums, gradient_size, T(0));
        for (int64_t i = chunk * blocks_a_chunk; i < std::min(n_blocks, (chunk + 1) * blocks_a_chunk); ++i) {
            Block<T> block(arrays, weights, i * kMlpBlock, arrays.scratch + worker * block_size);
            block.hidden_layers();
            block.gradients(gradients, sums);
        }
    });
    const T* partial = gradients.partial;
    for (int l = 0; l < shape.n_layers; ++l) {
        const int64_t n_in = shape.widths[l], n_out = shape.widths[l + 1], stride = padded<T>(shape.widths[l]);
        T* out = gradients.dL_dweights[l];
        std::fill_n(out, n_out * n_in, T(0));
        for (int64_t chunk = 0; chunk < n_chunks; ++chunk)
            for (int64_t row = 0; row < n_out; ++row)
                for (int64_t i = 0; i < n_in; ++i)
                    out[row * n_in + i] += partial[chunk * gradient_size + row * stride + i];
        partial += n_out * stride;
    }
}

#define KS_INSTANTIATE(T)                                                                                              \
    template int64_t mlp_packed_size<T>(const MlpShape&);                                                              \
    template int64_t mlp_block_size<T>(const MlpShape&);                                                               \
    template int64_t mlp_gradient_size<T>(const MlpShape&);                                                            \
    template void mlp_pack<T>(const MlpArrays<T>&);                                                                    \
    template void mlp_forward_packed<T>(const MlpArrays<T>&, T*);                                                      \
    template void mlp_forward<T>(const MlpArrays<T>&, T*, int);                                                        \
    template void mlp_backward<T>(const MlpArrays<T>&, const MlpGradients<T>&, int);
KS_INSTANTIATE(float)
KS_INSTANTIATE(double)
#undef KS_INSTANTIATE

} // namespace kinosplat::cpu
