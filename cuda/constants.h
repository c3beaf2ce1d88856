// Every number the rasterizer's behaviour depends on, with its unit and its reason; both backends read them here.
#pragma once

namespace kinosplat {

// ---- blending (the common one, so that scenes of other tools look the same here) ----

// Opacity a single contribution cannot exceed: keeps 1 - alpha above zero, which the backward pass divides by.
constexpr double kMaxAlpha = 0.999;

// Contributions below one 8-bit step are skipped; also the edge of the ellipse that tile overlap is counted for.
constexpr double kMinAlpha = 1.0 / 255.0;

// A contribution that would take the transmittance below this is not blended, and the pixel is finished.
constexpr double kMinTransmittance = 1e-4;

// Transmittance at which the median depth is read.
constexpr double kMedianTransmittance = 0.5;

// Square pixels added to the screen covariance: low-pass filter of about one pixel.
constexpr double kDilation = 0.3;

// ---- projection ----

// The Jacobian is taken no further out than this share of the image beyond each border: with the principal point in the
// middle that is 1.3 times the tangent of the half field of view, as in the INRIA code; off-centre as in gsplat.
constexpr double kJacobianMargin = 0.15;

// Opacity compensation below which its square root is no longer differentiated (edge-on Gaussians have a zero there).
constexpr double kMinCompensation = 1e-6;

// Added to the squared Mahalanobis cutoff when tiles are counted, so that rounding cannot lose a contribution that the
// blending test would let through.
constexpr double kOverlapSlack = 1e-3;

// ---- tiles ----

// Pixels along one side of a tile: 256 threads a block on the GPU, one 16-float vector a row on the CPU.
constexpr int kTileSize = 16;

// ---- spherical harmonics ----

constexpr int kMaxShDegree = 3;

// Added to the SH colour so that zero coefficients mean mid grey.
constexpr double kShOffset = 0.5;

// Real SH constants, in the order and with the signs of the INRIA code; the second number counts within the
// degree. Plain scalars, because device code cannot read a host array.
constexpr double kSh0 = 0.28209479177387814;
constexpr double kSh1 = 0.4886025119029199;
constexpr double kSh2_0 = 1.0925484305920792;
constexpr double kSh2_1 = -1.0925484305920792;
constexpr double kSh2_2 = 0.31539156525252005;
constexpr double kSh2_3 = -1.0925484305920792;
constexpr double kSh2_4 = 0.5462742152960396;
constexpr double kSh3_0 = -0.5900435899266435;
constexpr double kSh3_1 = 2.890611442640554;
constexpr double kSh3_2 = -0.4570457994644658;
constexpr double kSh3_3 = 0.3731763325901154;
constexpr double kSh3_4 = -0.4570457994644658;
constexpr double kSh3_5 = 1.445305721320277;
constexpr double kSh3_6 = -0.5900435899266435;

// ---- hash-grid fields ----

// Log densities are cut off here, so that densities stay finite.
constexpr double kLargestLogDensity = 15.0;

// ---- structural similarity (Wang et al. 2004, the constants every benchmark uses) ----

// Taps of the Gaussian window, sigma 1.5 pixels.
constexpr int kSsimTaps = 11;
constexpr int kSsimRadius = kSsimTaps / 2;

// (0.01)^2 and (0.03)^2 for a value range of one.
constexpr double kSsimC1 = 0.0001;
constexpr double kSsimC2 = 0.0009;

} // namespace kinosplat
