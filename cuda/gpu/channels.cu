// Depth, normal and features of each row, side by side as the blend passes read them. Their gradients go back in
// project_backward.cu.
#include "gpu/stored.cuh"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void gather_channels_kernel(const __grid_constant__ Frame frame,
                                                                   const __grid_constant__ Rows rows, int n_rows,
                                                                   int n_channels) {
    const int row = blockIdx.x * kThreads + threadIdx.x;
    if (row >= n_rows)
        return;
    const int i = rows.gaussian_of_row[row];
    float* channel = rows.channels + int64_t(row) * n_channels;
    if (frame.depth_channel)
        *channel++ = rows.blue_depth[row].y;
    if (frame.normal_channel) {
        const View<float> view = load_view(frame, rows.camera_of_row ? rows.camera_of_row[row] : 0);
        const StoredGaussian<float> g = load_gaussian(frame.gaussians, i, view.moving);
        const Vec3<float> mean =
            view.moving ? slice_in_time(g.mean, g.displacement, g.time_centre, g.log_duration, view.time).mean : g.mean;
        const Mat3<float> axes = rotation_from_quaternion(g.quat);
        store3(channel, 0, axes * normal_factors(axes, g.log_scale, mean, view.camera.position));
        channel += 3;
    }
    for (int k = 0; k < frame.n_features; ++k)
        *channel++ = frame.gaussians.features[int64_t(i) * frame.n_features + k];
}

} // namespace

void gather_channels(const Frame& frame, const Rows& rows, int n_rows, cudaStream_t stream) {
    if (frame.n_channels() == 0 || n_rows == 0)
        return;
    gather_channels_kernel<<<divide_up(n_rows, kThreads), kThreads, 0, stream>>>(frame, rows, n_rows,
                                                                                 frame.n_channels());
    check_launch("channels");
}

} // namespace kinosplat::gpu
