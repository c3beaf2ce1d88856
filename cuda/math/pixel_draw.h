// A pixel drawn at random from many pictures, the ray through it, and what should be seen along it: a pure function of
// a key and the ray's number.
#pragma once

#include "math/pixel_ray.h"
#include "math/random.h"

namespace kinosplat {

constexpr int kPoolBytes = 5; // a pixel: red, green, blue, alpha, weight

struct PixelPool {
    int64_t n_slots, slot_pixels;             // pictures held, and room in each place for one
    const uint8_t* data;                      // (n_slots, slot_pixels, kPoolBytes), line after line
    const int64_t *view_of_slot, *sizes;      // (n_slots,); (V, 2) width and height of each view
    const float *inverse_K, *world_to_camera; // (V, 3, 3), (V, 4, 4)
    const float* background;                  // (3,) behind all rays; null: a random colour behind each
};

struct DrawnRay {
    int64_t view;
    float x, y; // of the pixel's centre
    Vec3<float> origin, direction, target, background;
    float weight;
    float jitter; // in [0, 1)
};

KS_HOST_DEVICE DrawnRay draw_ray(const PixelPool& pool, uint64_t key, uint64_t number) {
    const Random4 a = philox(key, 2 * number), b = philox(key, 2 * number + 1);
    const int64_t slot = random_below(a.x, pool.n_slots), view = pool.view_of_slot[slot];
    const int64_t width = pool.sizes[2 * view];
    const int64_t x = random_below(a.y, width), y = random_below(a.z, pool.sizes[2 * view + 1]);
    const uint8_t* bytes = pool.data + kPoolBytes * (slot * pool.slot_pixels + y * width + x);
    const float* pose = pool.world_to_camera + 16 * view;

    DrawnRay ray;
    ray.view = view;
    ray.x = float(x) + 0.5f;
    ray.y = float(y) + 0.5f;
    ray.direction = pixel_direction(pool.inverse_K + 9 * view, pose, 4, ray.x, ray.y);
    ray.origin = {-(pose[0] * pose[3] + pose[4] * pose[7] + pose[8] * pose[11]),
                  -(pose[1] * pose[3] + pose[5] * pose[7] + pose[9] * pose[11]),
                  -(pose[2] * pose[3] + pose[6] * pose[7] + pose[10] * pose[11])};
    ray.background =
        pool.background ? load3(pool.background, 0) : Vec3<float>{random_unit(b.x), random_unit(b.y), random_unit(b.z)};
    const float alpha = float(bytes[3]) / 255.0f;
    const Vec3<float> rgb{float(bytes[0]) / 255.0f, float(bytes[1]) / 255.0f, float(bytes[2]) / 255.0f};
    ray.target = alpha * rgb + (1.0f - alpha) * ray.background;
    ray.weight = float(bytes[4]) / 255.0f;
    ray.jitter = random_unit(a.w);
    return ray;
}

// Where the rays of a step go, one row each.
struct DrawnRays {
    int64_t n_rays;
    float *origins, *directions, *target, *background; // (R, 3)
    int64_t* views;                                    // (R,)
    float* places;                                     // (R, 2)
    float* jitter;                                     // (R,)
    float* weight;                                     // (R,), null where not wanted
};

KS_HOST_DEVICE void store_ray(const DrawnRays& to, int64_t i, const DrawnRay& ray) {
    store3(to.origins, i, ray.origin);
    store3(to.directions, i, ray.direction);
    store3(to.target, i, ray.target);
    store3(to.background, i, ray.background);
    to.views[i] = ray.view;
    to.places[2 * i] = ray.x;
    to.places[2 * i + 1] = ray.y;
    to.jitter[i] = ray.jitter;
    if (to.weight)
        to.weight[i] = ray.weight;
}

} // namespace kinosplat
