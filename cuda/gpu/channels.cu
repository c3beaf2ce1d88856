// Depth, normal and features of each visible row, side by side as the blend passes read them. Their gradients go back
// in project_backward.cu.
#include "gpu/stored.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void gather_channels_kernel(const __grid_constant__ Frame frame,
                                                                   const __grid_constant__ Rows rows,
                                                                   const uint32_t* visible_rows, int n_rows,
                                                                   int n_channels) {
    const int k = blockIdx.x * kThreads + threadIdx.x;
    if (k >= n_rows)
        return;
    const uint32_t row = visible_rows[k];
    const int camera = row / frame.n_gaussians, i = row - camera * frame.n_gaussians;
    float* channel = rows.channels + int64_t(row) * n_channels;
    if (frame.depth_channel)
        *channel++ = rows.blue_depth[row].y;
    if (frame.normal_channel) {
        const View<float> view = load_view(frame, camera);
        const StoredGaussian<float> g = load_gaussian(frame.gaussians, i, view.moving);
        const Vec3<float> mean =
            view.moving ? slice_in_time(g.mean, g.displacement, g.time_centre, g.log_duration, view.time).mean : g.mean;
        const Mat3<float> axes = rotation_from_quaternion(g.quat);
        store3(channel, 0, axes * normal_factors(axes, g.log_scale, mean, view.camera.position));
        channel += 3;
    }
    for (int c = 0; c < frame.n_features; ++c)
        *channel++ = frame.gaussians.features[int64_t(i) * frame.n_features + c];
}

} // namespace

void gather_channels(const Frame& frame, const Rows& rows, const uint32_t* visible_rows, int n_rows,
                     cudaStream_t stream) {
    if (frame.n_channels() == 0 || n_rows == 0)
        return;
    gather_channels_kernel<<<divide_up(n_rows, kThreads), kThreads, 0, stream>>>(frame, rows, visible_rows, n_rows,
                                                                                 frame.n_channels());
    check_launch("channels");
}

} // namespace kinosplat::gpu
