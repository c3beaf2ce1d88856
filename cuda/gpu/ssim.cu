// L1 + SSIM of pictures and the gradient, in two kernels of one shape: a block takes a strip of columns and walks down
// it, each thread with one number of the line and the last eleven lines' row-wise sums in registers. The next line is
// on its way while one is worked on. The three interleaved colours need no special care: a neighbour is three numbers
// away. Outside of the picture everything is zero (the common protocol).
#include "gpu/device.cuh"
#include "gpu/launch.h"
#include "gpu/photometric.h"
#include "math/ssim.h"

namespace kinosplat::gpu {
namespace {

constexpr int kThreads = 128; // numbers of a line
constexpr int kColours = 3;
constexpr int kPad = kSsimRadius * kColours;
constexpr int kShared = kThreads + 2 * kPad;
constexpr int kLoads = (kShared + kThreads - 1) / kThreads; // numbers of a line that a thread brings

// Lines of a strip; with the ten above and below that are computed twice, multiples of the window's taps. Tall strips
// do less twice, short ones give a small picture enough blocks.
constexpr int kTall = 34, kShort = 12;
constexpr int kBlocksToFill = 4; // a multiprocessor

// Blocks a multiprocessor that registers are to leave room for: what is on its way must not cost occupancy.
constexpr int kCompareBlocks = 5, kGradientBlocks = 8;

// Sum of the window along a line of shared memory, at this thread's number.
__device__ inline float along(const float* line) {
    const float* centre = line + kPad + threadIdx.x;
    float sum = ssim_window<float>(0) * centre[0];
#pragma unroll
    for (int k = 1; k <= kSsimRadius; ++k)
        sum = fmaf(ssim_window<float>(k), centre[-k * kColours] + centre[k * kColours], sum);
    return sum;
}

// Sum of the window across the lines of a ring whose newest entry is `newest`; all indices known at compile time.
__device__ inline float across(const float (&ring)[kSsimTaps], int newest) {
    const int centre = newest + kSsimTaps - kSsimRadius;
    float sum = ssim_window<float>(0) * ring[centre % kSsimTaps];
#pragma unroll
    for (int k = 1; k <= kSsimRadius; ++k)
        sum = fmaf(ssim_window<float>(k), ring[(centre - k) % kSsimTaps] + ring[(centre + k) % kSsimTaps], sum);
    return sum;
}

// Where a block is: `number` runs along a line.
struct Strip {
    int64_t image;
    int first_line, number, line_length;
    __device__ Strip(const PhotometricArrays& p, int n_lines)
        : image(blockIdx.z), first_line(blockIdx.y * n_lines), number(blockIdx.x * kThreads + threadIdx.x),
          line_length(p.width * kColours) {}
    __device__ bool inside(const PhotometricArrays& p, int line) const {
        return line >= 0 && line < p.height && number < line_length;
    }
    __device__ int64_t at(const PhotometricArrays& p, int line, int n) const {
        return (image * p.height + line) * line_length + n;
    }
};

// Numbers of one line that this thread brings to shared memory.
struct LinePart {
    float number[kLoads];
};

// Calls function(j, k) for the places k of a line in shared memory that this thread fills, from its number j.
template <class Function>
__device__ inline void for_each_load(Function&& function) {
#pragma unroll
    for (int j = 0; j < kLoads; ++j)
        if (j * kThreads + int(threadIdx.x) < kShared)
            function(j, j * kThreads + int(threadIdx.x));
}

// Calls function(j, number, inside) for what this thread brings of a line: the number's place along it, and whether
// that is inside of the picture.
template <class Function>
__device__ inline void read_line(const PhotometricArrays& p, const Strip& strip, int line, Function&& function) {
    for_each_load([&](int j, int k) {
        const int number = int(blockIdx.x) * kThreads + k - kPad;
        const bool inside = line >= 0 && line < p.height && number >= 0 && number < strip.line_length;
        function(j, number, inside);
    });
}

// Calls per_line(line, phase) for the strip's lines with `kSsimRadius` more on both sides; `phase` = position in the
// rings.
template <int kLines, class Function>
__device__ inline void walk(int first_line, Function&& per_line) {
    static_assert((kLines + 2 * kSsimRadius) % kSsimTaps == 0);
#pragma unroll 1
    for (int begin = 0; begin < kLines + 2 * kSsimRadius; begin += kSsimTaps)
#pragma unroll
        for (int phase = 0; phase < kSsimTaps; ++phase)
            per_line(first_line - kSsimRadius + begin + phase, phase, begin + phase >= 2 * kSsimRadius);
}

__device__ inline float mask_at(const PhotometricArrays& p, const Strip& strip, int line, int number) {
    return p.mask ? p.mask[(strip.image * p.height + line) * p.width + number / kColours] : 1.0f;
}

// The sums over all pictures.
__device__ inline PhotometricSums total(const PhotometricArrays& p) {
    PhotometricSums sum{};
    for (int i = 0; i < p.n_images; ++i) {
        sum.difference += p.sums[i].difference;
        sum.similarity += p.sums[i].similarity;
        sum.squared += p.sums[i].squared;
        sum.weight += p.sums[i].weight;
    }
    return sum;
}

// 1 / (3 sum of mask), from the weight that the first kernel summed; nothing counts where the mask hides everything.
__device__ inline double inverse_count(const PhotometricArrays& p, double weight) {
    const double count = p.mask ? weight : double(p.n_numbers());
    return count > 0.0 ? 1.0 / count : 0.0;
}

__device__ inline void write_results(const PhotometricArrays& p) {
    const PhotometricSums sum = total(p);
    const double inverse = inverse_count(p, sum.weight), w = p.ssim_weight;
    const double loss = (1.0 - w) * sum.difference * inverse + w * (1.0 - sum.similarity * inverse);
    *p.loss = inverse > 0.0 ? float(loss) : 0.0f;
    *p.squared_error = float(sum.squared * inverse);
}

__global__ void results_kernel(const __grid_constant__ PhotometricArrays p) { write_results(p); }

// The sums, and the three terms of the gradient of SSIM before their second window.
template <int kLines>
__global__ __launch_bounds__(kThreads,
                             kCompareBlocks) void compare_kernel(const __grid_constant__ PhotometricArrays p) {
    __shared__ float lines[2][4][kShared]; // a, b, a^2 + b^2, a b; two so that one barrier a line is enough
    const Strip strip(p, kLines);
    float ring[4][kSsimTaps];
    float difference = 0.0f, similarity = 0.0f, squared = 0.0f, weight = 0.0f;
    LinePart rendered, target, masks;
    const auto fetch = [&](int line) {
        read_line(p, strip, line, [&](int j, int number, bool inside) {
            rendered.number[j] = inside ? p.rendered[strip.at(p, line, number)] : 0.0f;
            target.number[j] = inside ? p.target[strip.at(p, line, number)] : 0.0f;
            masks.number[j] = inside ? mask_at(p, strip, line, number) : 0.0f;
        });
    };
    fetch(strip.first_line - kSsimRadius);
    walk<kLines>(strip.first_line, [&](int line, int phase, bool complete) {
        float (&shared)[4][kShared] = lines[(line - strip.first_line + kSsimRadius) & 1];
        for_each_load([&](int j, int k) {
            const float a = masks.number[j] * rendered.number[j], b = masks.number[j] * target.number[j];
            shared[0][k] = a;
            shared[1][k] = b;
            shared[2][k] = fmaf(a, a, b * b);
            shared[3][k] = a * b;
        });
        fetch(line + 1);
        __syncthreads();
#pragma unroll
        for (int m = 0; m < 4; ++m)
            ring[m][phase] = along(shared[m]);
        const int since_first = line - strip.first_line;
        if (since_first >= 0 && since_first < kLines && strip.inside(p, line)) {
            const float d = shared[0][kPad + threadIdx.x] - shared[1][kPad + threadIdx.x];
            const float mask = mask_at(p, strip, line, strip.number);
            difference += fabsf(d);
            squared += mask > 0.0f ? d * d / mask : 0.0f; // both pictures carry the mask already
            weight += mask;
        }
        const int centre = line - kSsimRadius;
        if (complete && strip.inside(p, centre)) {
            const SsimPoint<float> point = ssim_point(WindowMoments<float>{
                across(ring[0], phase), across(ring[1], phase), across(ring[2], phase), across(ring[3], phase)});
            const float mask = mask_at(p, strip, centre, strip.number);
            similarity += mask * point.value;
            if (p.terms) {
                const int64_t at = strip.at(p, centre, strip.number);
                p.terms[at] = mask * point.d_mean_a;
                p.terms[at + p.n_numbers()] = mask * point.d_squares;
                p.terms[at + 2 * p.n_numbers()] = mask * point.d_ab;
            }
        }
    });
    difference = warp_sum(difference);
    similarity = warp_sum(similarity);
    squared = warp_sum(squared);
    weight = warp_sum(weight);
    if (lane_id() == 0) {
        PhotometricSums& sums = p.sums[strip.image];
        atomicAdd(&sums.difference, double(difference));
        atomicAdd(&sums.similarity, double(similarity));
        atomicAdd(&sums.squared, double(squared));
        if (p.mask)
            atomicAdd(&sums.weight, double(weight));
    }
}

template <int kLines>
__global__ __launch_bounds__(kThreads,
                             kGradientBlocks) void gradient_kernel(const __grid_constant__ PhotometricArrays p) {
    __shared__ float lines[2][3][kShared];
    const Strip strip(p, kLines);
    float ring[3][kSsimTaps];
    const float inverse = float(inverse_count(p, p.mask ? total(p).weight : 0.0));
    const float l1_scale = (1.0f - p.ssim_weight) * inverse, ssim_scale = -p.ssim_weight * inverse;
    LinePart terms[3];
    const auto fetch = [&](int line) {
        read_line(p, strip, line, [&](int j, int number, bool inside) {
#pragma unroll
            for (int m = 0; m < 3; ++m)
                terms[m].number[j] = inside ? p.terms[strip.at(p, line, number) + m * p.n_numbers()] : 0.0f;
        });
    };
    fetch(strip.first_line - kSsimRadius);
    walk<kLines>(strip.first_line, [&](int line, int phase, bool complete) {
        float (&shared)[3][kShared] = lines[(line - strip.first_line + kSsimRadius) & 1];
        for_each_load([&](int j, int k) {
#pragma unroll
            for (int m = 0; m < 3; ++m)
                shared[m][k] = terms[m].number[j];
        });
        fetch(line + 1);
        __syncthreads();
#pragma unroll
        for (int m = 0; m < 3; ++m)
            ring[m][phase] = along(shared[m]);
        const int centre = line - kSsimRadius;
        if (complete && strip.inside(p, centre)) {
            const int64_t at = strip.at(p, centre, strip.number);
            const float mask = mask_at(p, strip, centre, strip.number);
            const float a = mask * p.rendered[at], b = mask * p.target[at];
            const float ssim_part =
                across(ring[0], phase) + 2.0f * a * across(ring[1], phase) + b * across(ring[2], phase);
            const float sign = a > b ? 1.0f : (a < b ? -1.0f : 0.0f);
            p.dL_drendered[at] = mask * (l1_scale * sign + ssim_scale * ssim_part);
        }
    });
    if (blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0 && threadIdx.x == 0)
        write_results(p);
}

// Launches both kernels where there is something to compare; the last one writes the results.
template <int kLines>
void launch(const PhotometricArrays& p, cudaStream_t stream) {
    const dim3 grid(divide_up(p.width * kColours, kThreads), divide_up(p.height, kLines), p.n_images);
    compare_kernel<kLines><<<grid, kThreads, 0, stream>>>(p);
    check_launch("photometric loss");
    if (p.terms) {
        gradient_kernel<kLines><<<grid, kThreads, 0, stream>>>(p);
        check_launch("photometric gradient");
    } else {
        results_kernel<<<1, 1, 0, stream>>>(p);
        check_launch("photometric results");
    }
}

} // namespace

void photometric(const PhotometricArrays& p, cudaStream_t stream) {
    check(cudaMemsetAsync(p.sums, 0, p.n_images * sizeof(PhotometricSums), stream), "photometric loss");
    if (p.n_numbers() == 0) {
        results_kernel<<<1, 1, 0, stream>>>(p);
        check_launch("photometric results");
        return;
    }
    const int64_t n_tall = int64_t(divide_up(p.width * kColours, kThreads)) * divide_up(p.height, kTall) * p.n_images;
    if (n_tall >= kBlocksToFill * multiprocessors())
        launch<kTall>(p, stream);
    else
        launch<kShort>(p, stream);
}

} // namespace kinosplat::gpu
