// One tile of pixels after the other; within a tile all rays march in step, so that encoding and networks see hundreds
// of samples at a time.
#include "cpu/fused_field.h"

#include <algorithm>

#include "cpu/field.h"
#include "cpu/threads.h"
#include "math/spherical_harmonics.h"

namespace kinosplat::cpu {
namespace {

constexpr int kRays = kFieldTile * kFieldTile;

// A ray on its way.
template <class T>
struct Ray {
    int64_t pixel;
    Vec3<T> direction;
    MarchedRay<T> marched;
    Member<T> member;
    T transmittance, depth;
    Vec3<T> rgb;
};

// What a tile's samples need, one row a sample; the harmonics are the rays'.
template <class T>
struct TileScratch {
    T *positions, *features, *saliency, *outputs, *colour_inputs, *colours, *harmonics;

    TileScratch(const FusedField<T>& field, T* memory) {
        const auto take = [&](int64_t numbers) {
            T* place = memory;
            memory += numbers * kRays;
            return place;
        };
        positions = take(3);
        features = take(field.density.shape.n_inputs());
        saliency = take(1);
        outputs = take(field.density.shape.n_outputs());
        colour_inputs = take(field.colour.shape.n_inputs());
        colours = take(3);
        harmonics = take(field.n_degrees * field.n_degrees);
    }
};

template <class T>
class Tile {
  public:
    Tile(const FusedField<T>& field, const Marching<T>& marching, Occupancy occupancy, const FieldView<T>& view,
         const FieldPicture<T>& picture, int worker)
        : field_(field), marching_(marching), occupancy_(occupancy), view_(view), picture_(picture),
          scratch_(field, picture.scratch + worker * field_tile_size(field.density.shape.n_inputs(),
                                                                     field.density.shape.n_outputs(), field.n_degrees)),
          density_(field.density), colour_(field.colour) {
        density_.inputs = scratch_.features;
        density_.scratch += worker * mlp_block_size<T>(density_.shape);
        colour_.inputs = scratch_.colour_inputs;
        colour_.scratch += worker * mlp_block_size<T>(colour_.shape);
    }

    // Counts the rays that met an occupied cell and the samples evaluated.
    void draw(int first_x, int first_y, int64_t* counters) {
        start(first_x, first_y);
        counters[0] = n_alive_;
        counters[1] = 0;
        while (n_alive_ > 0) {
            counters[1] += n_alive_;
            evaluate();
            advance();
        }
    }

  private:
    void start(int first_x, int first_y) {
        n_alive_ = 0;
        for (int y = first_y; y < std::min(first_y + kFieldTile, view_.height); ++y)
            for (int x = first_x; x < std::min(first_x + kFieldTile, view_.width); ++x) {
                const PixelRay<T> pixel = pixel_ray(view_, marching_, x, y);
                Ray<T> ray{int64_t(y) * view_.width + x,
                           pixel.direction,
                           pixel.marched,
                           first_sample(marching_, occupancy_, pixel),
                           T(1),
                           T(0),
                           {T(0), T(0), T(0)}};
                if (!(ray.member.mid < ray.marched.last)) {
                    finish(ray);
                    continue;
                }
                T basis[sh_basis_size(3)];
                sh_basis<3>(ray.direction, basis);
                std::copy_n(basis, n_harmonics(), scratch_.harmonics + n_alive_ * n_harmonics());
                rays_[n_alive_++] = ray;
            }
    }

    // Outputs of the density network and colours of the alive rays' samples.
    void evaluate() {
        for (int i = 0; i < n_alive_; ++i) {
            const Ray<T>& ray = rays_[i];
            const Vec3<T> p = grid_position(marching_.space, view_.position + ray.member.mid * ray.direction);
            const T position[3] = {p.x, p.y, p.z};
            std::copy_n(position, 3, scratch_.positions + 3 * i);
        }
        encode_forward<T>({field_.grid, n_alive_, scratch_.positions, field_.table, field_.sparse}, scratch_.features,
                          1);
        if (field_.saliency)
            gate_features();
        density_.n_samples = colour_.n_samples = n_alive_;
        mlp_forward_packed(density_, scratch_.outputs);
        const int n_outputs = density_.shape.n_outputs();
        for (int i = 0; i < n_alive_; ++i) {
            T* row = scratch_.colour_inputs + int64_t(i) * colour_.shape.n_inputs();
            std::copy_n(scratch_.outputs + int64_t(i) * n_outputs, n_outputs, row);
            std::copy_n(scratch_.harmonics + int64_t(i) * n_harmonics(), n_harmonics(), row + n_outputs);
        }
        mlp_forward_packed(colour_, scratch_.colours);
    }

    // Leaves the factor of the density in the place of the saliency.
    void gate_features() {
        const int width = density_.shape.n_inputs();
        encode_forward<T>({field_.saliency_grid, n_alive_, scratch_.positions, field_.saliency}, scratch_.saliency, 1);
        for (int i = 0; i < n_alive_; ++i) {
            T* features = scratch_.features + int64_t(i) * width;
            const T saliency = sigmoid(scratch_.saliency[i]);
            T square = T(0);
            for (int k = 0; k < width; ++k) {
                features[k] *= saliency;
                square += features[k] * features[k];
            }
            scratch_.saliency[i] = std::tanh(field_.sharpness * sqrt(square));
        }
    }

    // Composites the samples and takes every ray to its next one; those that go on close ranks.
    void advance() {
        int n_left = 0;
        for (int i = 0; i < n_alive_; ++i) {
            Ray<T>& ray = rays_[i];
            const T log_density = scratch_.outputs[int64_t(i) * density_.shape.n_outputs()];
            const T density = exp(minimum(log_density, T(kLargestLogDensity))) * field_.density_scale *
                              (field_.saliency ? scratch_.saliency[i] : T(1));
            const T left = exp(-density * ray.member.dt), weight = ray.transmittance * (T(1) - left);
            const T* c = scratch_.colours + 3 * i;
            ray.rgb = ray.rgb + weight * Vec3<T>{sigmoid(c[0]), sigmoid(c[1]), sigmoid(c[2])};
            ray.depth += weight * ray.member.mid;
            ray.transmittance *= left;
            if (ray.transmittance >= view_.stop)
                ray.member = next_sample(marching_, occupancy_, ray.marched, ray.member);
            if (!(ray.transmittance >= view_.stop && ray.member.mid < ray.marched.last)) {
                finish(ray);
                continue;
            }
            if (n_left < i) {
                rays_[n_left] = ray;
                std::copy_n(scratch_.harmonics + int64_t(i) * n_harmonics(), n_harmonics(),
                            scratch_.harmonics + int64_t(n_left) * n_harmonics());
            }
            ++n_left;
        }
        n_alive_ = n_left;
    }

    void finish(const Ray<T>& ray) {
        const T premultiplied[3] = {ray.rgb.x, ray.rgb.y, ray.rgb.z};
        for (int c = 0; c < 3; ++c) {
            const T colour = premultiplied[c] + ray.transmittance * view_.background[c];
            if (picture_.rgb)
                picture_.rgb[3 * ray.pixel + c] = colour;
            if (picture_.bytes)
                picture_.bytes[3 * ray.pixel + c] = uint8_t(clamp(colour, T(0), T(1)) * T(255) + T(0.5));
        }
        if (picture_.alpha)
            picture_.alpha[ray.pixel] = T(1) - ray.transmittance;
        if (picture_.depth)
            picture_.depth[ray.pixel] = ray.depth;
    }

    int n_harmonics() const { return field_.n_degrees * field_.n_degrees; }

    const FusedField<T>& field_;
    const Marching<T>& marching_;
    Occupancy occupancy_;
    const FieldView<T>& view_;
    const FieldPicture<T>& picture_;
    TileScratch<T> scratch_;
    MlpArrays<T> density_, colour_;
    int n_alive_ = 0;
    Ray<T> rays_[kRays];
};

} // namespace

int64_t field_tile_size(int n_features, int n_outputs, int n_degrees) {
    const int n_harmonics = n_degrees * n_degrees;
    return kRays * int64_t(7 + n_features + n_outputs + (n_outputs + n_harmonics) + n_harmonics);
}

int64_t field_tiles(int width, int height) {
    return chunks_of(width, int64_t(kFieldTile)) * chunks_of(height, int64_t(kFieldTile));
}

template <class T>
void draw_field(const FusedField<T>& field, const Marching<T>& marching, Occupancy occupancy, const FieldView<T>& view,
                const FieldPicture<T>& picture, int n_threads) {
    mlp_pack(field.density);
    mlp_pack(field.colour);
    const int64_t n_across = chunks_of(view.width, kFieldTile);
    parallel_for(field_tiles(view.width, view.height), n_threads, [&](int64_t i, int worker) {
        Tile<T>(field, marching, occupancy, view, picture, worker)
            .draw(int(i % n_across) * kFieldTile, int(i / n_across) * kFieldTile, picture.counters + 2 * i);
    });
}

#define KS_INSTANTIATE(T)                                                                                              \
    template void draw_field<T>(const FusedField<T>&, const Marching<T>&, Occupancy, const FieldView<T>&,              \
                                const FieldPicture<T>&, int);
KS_INSTANTIATE(float)
KS_INSTANTIATE(double)
#undef KS_INSTANTIATE

} // namespace kinosplat::cpu
