// The backward pass of project_forward: sums each row's hits in the order of their slots, turns the moments into
// gradients of the projected ellipse, and carries those on to the stored parameters and the camera; several rows at
// once, one a lane.
#include <algorithm>

#include "cpu/load.h"
#include "cpu/threads.h"
#include "math/blending.h"

namespace kinosplat::cpu {
namespace {

template <class T>
KS_HOST_DEVICE void add_to(T* data, const int32_t* index, int n, int stride, int offset, Lanes<T> values) {
    for (int lane = 0; lane < n; ++lane)
        data[int64_t(index[lane]) * stride + offset] += values[lane];
}

template <class T>
KS_HOST_DEVICE void add_to3(T* data, const int32_t* index, int n, int stride, int offset, Vec3<Lanes<T>> values) {
    for (int lane = 0; lane < n; ++lane) {
        T* at = data + int64_t(index[lane]) * stride + offset;
        at[0] += values.x[lane];
        at[1] += values.y[lane];
        at[2] += values.z[lane];
    }
}

template <class T>
Vec3<T> sum_lanes(Vec3<Lanes<T>> a) {
    return {horizontal_sum(a.x), horizontal_sum(a.y), horizontal_sum(a.z)};
}

template <class T>
CameraGradient<T> sum_lanes(const CameraGradient<Lanes<T>>& a) {
    return {{sum_lanes(a.rotation.x), sum_lanes(a.rotation.y), sum_lanes(a.rotation.z)},
            sum_lanes(a.translation),
            sum_lanes(a.position),
            horizontal_sum(a.fx),
            horizontal_sum(a.fy),
            horizontal_sum(a.cx),
            horizontal_sum(a.cy)};
}

template <class T>
CameraGradient<T> operator+(const CameraGradient<T>& a, const CameraGradient<T>& b) {
    return {a.rotation + b.rotation,
            a.translation + b.translation,
            a.position + b.position,
            a.fx + b.fx,
            a.fy + b.fy,
            a.cx + b.cx,
            a.cy + b.cy};
}

template <class T>
struct Chunk {
    using L = Lanes<T>;

    const GaussianArrays<T>& gaussians;
    const View<T>& view;
    const ChannelSettings& channels;
    const ProjectGradients<T>& out;

    CameraGradient<T> run(int64_t begin, int64_t end) const {
        if (out.clear)
            clear(begin == 0 ? 0 : out.indices[begin], end == out.n_rows ? gaussians.n : out.indices[end]);
        CameraGradient<L> camera_gradient = zero_camera_gradient();
        const View<L> wide_view = widen(view);
        for (int64_t first = begin; first < end; first += L::kCount)
            run_rows(first, int(std::min<int64_t>(L::kCount, end - first)), wide_view, camera_gradient);
        return sum_lanes(camera_gradient);
    }

  private:
    // Zeros to the gradients of Gaussians [begin, end): the chunk's rows and all that nobody saw up to the next chunk.
    void clear(int64_t begin, int64_t end) const {
        const auto fill = [&](T* data, int64_t row_size) {
            if (data)
                std::fill(data + begin * row_size, data + end * row_size, T(0));
        };
        fill(out.means, 3);
        fill(out.quats, 4);
        fill(out.log_scales, 3);
        fill(out.opacity_logits, 1);
        fill(out.sh_dc, 3);
        fill(out.sh_rest, 3 * gaussians.n_sh_rest);
        fill(out.displacements, 3);
        fill(out.time_centres, 1);
        fill(out.log_durations, 1);
        fill(out.features, gaussians.n_features);
    }

    static CameraGradient<L> zero_camera_gradient() {
        const L zero(T(0));
        const Vec3<L> zeros{zero, zero, zero};
        return {{zeros, zeros, zeros}, zeros, zeros, zero, zero, zero, zero};
    }

    void run_rows(int64_t first, int n, const View<L>& wide_view, CameraGradient<L>& camera_gradient) const {
        const int n_sums = kNumMoments + channels.count();
        int32_t index[L::kCount];
        alignas(kVectorBytes) T head[kNumMoments + 7][L::kCount]; // moments, colour, depth, normal
        for (int lane = 0; lane < L::kCount; ++lane)
            index[lane] = out.indices[first + std::min(lane, n - 1)];
        sum_hits(first, n, n_sums, index, head);

        const StoredGaussian<L> g = gather_gaussians(gaussians, index, view.moving);
        const ScreenGaussian<L> s = to_screen(g, wide_view);
        const auto sum = [&](int i) { return L::load(head[i]); };
        const auto sum3 = [&](int i) { return Vec3<L>{sum(i), sum(i + 1), sum(i + 2)}; };

        const FalloffGradient<L> falloff = falloff_vjp(
            FalloffMoments<L>{sum(0), sum(1), sum(2), sum(3), sum(4), sum(5)}, s.projection.conic, s.opacity);
        if (out.screen_gradient) {
            const L x = falloff.mean2d.x * L(T(0.5) * view.camera.width);
            const L y = falloff.mean2d.y * L(T(0.5) * view.camera.height);
            const L norm = sqrt(x * x + y * y);
            for (int lane = 0; lane < n; ++lane)
                out.screen_gradient[index[lane]] += float(norm[lane]);
        }

        ScreenGradient<L> dL;
        dL.mean2d = falloff.mean2d;
        dL.conic = falloff.conic;
        dL.opacity = falloff.opacity;
        dL.depth = sum(kNumMoments + 3);
        const Vec3<L> direction = view_direction(s.mean, wide_view.camera.position);
        with_sh_degree(channels.sh_degree, [&](auto degree) {
            dL.direction = colour_backward<degree()>(first, n, index, direction, sum3(kNumMoments));
        });
        const Vec3<L> factors = normal_factors(s.projection.axes, g.log_scale, s.mean, wide_view.camera.position);
        dL.axes = outer(sum3(kNumMoments + 4), factors);

        // Lanes past the end hold a copy of the last row with gradients of zero.
        const StoredGradient<L> stored = to_screen_vjp(g, wide_view, s, direction, dL, camera_gradient);
        add_to3(out.means, index, n, 3, 0, stored.mean);
        add_to(out.quats, index, n, 4, 0, stored.quat.w);
        add_to(out.quats, index, n, 4, 1, stored.quat.x);
        add_to(out.quats, index, n, 4, 2, stored.quat.y);
        add_to(out.quats, index, n, 4, 3, stored.quat.z);
        add_to3(out.log_scales, index, n, 3, 0, stored.log_scale);
        add_to(out.opacity_logits, index, n, 1, 0, stored.opacity_logit);
        if (view.moving) {
            add_to3(out.displacements, index, n, 3, 0, stored.time.displacement);
            add_to(out.time_centres, index, n, 1, 0, stored.time.time_centre);
            add_to(out.log_durations, index, n, 1, 0, stored.time.log_duration);
        }
    }

    // Sums over the hits of each row; features go straight to their gradients.
    void sum_hits(int64_t first, int n, int n_sums, const int32_t* index, T (*head)[Lanes<T>::kCount]) const {
        const int depth_at = kNumMoments + 3, normal_at = depth_at + int(channels.depth);
        const int features_at = normal_at + 3 * int(channels.normal);
        for (int lane = 0; lane < L::kCount; ++lane) {
            T sums[kNumMoments + 7] = {};
            const int32_t begin = lane < n ? out.hit_offsets[first + lane] : 0;
            const int32_t end = lane < n ? out.hit_offsets[first + lane + 1] : 0;
            for (int32_t slot = begin; slot < end; ++slot) {
                const T* hit = out.hits + int64_t(slot) * n_sums;
                for (int i = 0; i < kNumMoments + 3; ++i)
                    sums[i] += hit[i];
                if (channels.depth)
                    sums[kNumMoments + 3] += hit[depth_at];
                if (channels.normal)
                    for (int i = 0; i < 3; ++i)
                        sums[kNumMoments + 4 + i] += hit[normal_at + i];
                if (out.features)
                    for (int i = 0; i < channels.n_features; ++i)
                        out.features[int64_t(index[lane]) * channels.n_features + i] += hit[features_at + i];
            }
            for (int i = 0; i < kNumMoments + 7; ++i)
                head[i][lane] = sums[i];
        }
    }

    // Gradients of the coefficients; returns that of the viewing direction. A colour clamped at 0 passes nothing on.
    template <int kDegree>
    Vec3<L> colour_backward(int64_t first, int n, const int32_t* index, Vec3<L> direction, Vec3<L> dL_dcolour) const {
        const L zero(T(0));
        const auto where_positive = [&](int channel, L gradient) {
            const L colour = make_lanes<T>([&](int lane) {
                return out
                    .records[(first + std::min(lane, n - 1)) * record_stride(channels.count()) + kRecordHead + channel];
            });
            return select(colour > zero, gradient, zero);
        };
        const Vec3<L> g{where_positive(0, dL_dcolour.x), where_positive(1, dL_dcolour.y),
                        where_positive(2, dL_dcolour.z)};
        constexpr int kBasis = sh_basis_size(kDegree);
        L basis[kBasis], dL_dbasis[kBasis];
        sh_basis<kDegree>(direction, basis);
        for (int k = 0; k < kBasis; ++k) {
            dL_dbasis[k] = dot(gather_coefficient(gaussians, index, k), g);
            if (k == 0)
                add_to3(out.sh_dc, index, n, 3, 0, basis[k] * g);
            else
                add_to3(out.sh_rest, index, n, 3 * gaussians.n_sh_rest, 3 * (k - 1), basis[k] * g);
        }
        return sh_basis_vjp<kDegree>(direction, dL_dbasis);
    }
};

template <class T>
void write_camera_gradient(const View<T>& view, CameraGradient<T> g, T* world_to_camera, T* K) {
    camera_position_vjp(view.camera.rotation, view.camera.translation, g);
    const Vec3<T> rows[3] = {g.rotation.x, g.rotation.y, g.rotation.z};
    const T translation[3] = {g.translation.x, g.translation.y, g.translation.z};
    for (int i = 0; i < 3; ++i) {
        world_to_camera[4 * i] += rows[i].x;
        world_to_camera[4 * i + 1] += rows[i].y;
        world_to_camera[4 * i + 2] += rows[i].z;
        world_to_camera[4 * i + 3] += translation[i];
    }
    K[0] += g.fx;
    K[2] += g.cx;
    K[4] += g.fy;
    K[5] += g.cy;
}

} // namespace

template <class T>
void project_backward(const GaussianArrays<T>& gaussians, const View<T>& view, const ChannelSettings& channels,
                      const ProjectGradients<T>& gradients, int n_threads) {
    const Chunk<T> chunk{gaussians, view, channels, gradients};
    const int64_t n_chunks = std::max<int64_t>(1, chunks_of(gradients.n_rows, kProjectChunk));
    parallel_for(n_chunks, n_threads, [&](int64_t i, int) {
        const int64_t begin = i * kProjectChunk;
        gradients.partial[i] = chunk.run(begin, std::min(begin + kProjectChunk, gradients.n_rows));
    });
    CameraGradient<T> total{};
    for (int64_t i = 0; i < n_chunks; ++i)
        total = total + gradients.partial[i];
    write_camera_gradient(view, total, gradients.world_to_camera, gradients.K);
}

template void project_backward<float>(const GaussianArrays<float>&, const View<float>&, const ChannelSettings&,
                                      const ProjectGradients<float>&, int);
template void project_backward<double>(const GaussianArrays<double>&, const View<double>&, const ChannelSettings&,
                                       const ProjectGradients<double>&, int);

} // namespace kinosplat::cpu
