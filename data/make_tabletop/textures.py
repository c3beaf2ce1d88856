"""Patterns of the objects: functions of (u, v) in [0, 1] that return sRGB colours in [0, 1].

They are smooth on purpose (no detail finer than a few pixels of a 256x192 camera) and evaluated with 3x3 samples a
texel. Row 0 of a texture is v = 0. Surfaces that close on themselves in u only use whole numbers of periods in u.
"""

from collections.abc import Callable

import numpy as np

Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(u, v), both of one shape S -> colours of shape S + (3,)."""


def texture(pattern: Pattern, width: int, height: int, oversample: int = 3) -> np.ndarray:
    """The pattern as a float32 picture (height, width, 3), row 0 at v = 0."""
    u = (np.arange(width * oversample) + 0.5) / (width * oversample)
    v = (np.arange(height * oversample) + 0.5) / (height * oversample)
    colours = pattern(*np.meshgrid(u, v))
    blocks = colours.reshape(height, oversample, width, oversample, 3)
    return np.clip(blocks.mean(axis=(1, 3)), 0.0, 1.0).astype(np.float32)


def look_up(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colours (n, 3) of the texels that hold the points `uv` (n, 2)."""
    height, width, _ = picture.shape
    column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip((uv[:, 1] * height).astype(int), 0, height - 1)
    return picture[row, column]


def colour(code: str) -> np.ndarray:
    """'#rrggbb' as an array of three numbers in [0, 1]."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """From `first` to `second` as `weight` goes from 0 to 1; weights have shape S, colours (3,) or S + (3,)."""
    return first + (second - first) * np.clip(weight, 0.0, 1.0)[..., None]


def soft_step(value: np.ndarray, edge: float | np.ndarray, width: float) -> np.ndarray:
    """0 below `edge`, 1 above it, smooth over `width`."""
    x = np.clip((value - edge) / width + 0.5, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def waves(x: np.ndarray, y: np.ndarray, seed: int, frequency: float, n_waves: int = 12) -> np.ndarray:
    """Smooth noise about 0 with unit variance: cosines of random directions and phases."""
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0.0, 2.0 * np.pi, n_waves)
    rate = 2.0 * np.pi * frequency * generator.uniform(0.4, 1.0, n_waves)
    phase = generator.uniform(0.0, 2.0 * np.pi, n_waves)
    total = np.zeros_like(x)
    for a, k, p in zip(angle, rate, phase, strict=True):
        total += np.cos(k * (np.cos(a) * x + np.sin(a) * y) + p)
    return total * np.sqrt(2.0 / n_waves)


def wood(x: np.ndarray, y: np.ndarray, light: np.ndarray, dark: np.ndarray, seed: int) -> np.ndarray:
    """Grain along x; `x` and `y` in metres."""
    wander = waves(x, y, seed, 1.6)
    lines = np.sin(2.0 * np.pi * (y * 16.0 + 0.55 * wander + 0.3 * waves(x * 0.3, y, seed + 1, 9.0)))
    shade = 0.42 + 0.26 * lines + 0.2 * waves(x * 0.25, y, seed + 2, 12.0)
    return mix(light, dark, shade)


def table(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A round table of planks with a dark rim and an inlaid star; (u, v) spans the square around the disk."""
    x, y = 2.0 * u - 1.0, 2.0 * v - 1.0
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    plank = np.floor((y + 1.0) * 4.5)
    tone = np.sin(plank * 12.9898) * 0.5 + 0.5
    shift = 3.7 * plank
    planks = wood(x * 0.8 + shift, y * 0.8, colour("#dcb27c"), colour("#ab7541"), 3) * (0.88 + 0.2 * tone)[..., None]
    joint = np.abs((y + 1.0) * 4.5 - np.round((y + 1.0) * 4.5)) / 4.5
    planks = planks * (0.72 + 0.28 * soft_step(joint, 0.008, 0.012))[..., None]

    sector = np.abs(((angle / (2.0 * np.pi) * 12.0) % 1.0) - 0.5) * 2.0
    star = soft_step(0.34 + 0.30 * sector, radius, 0.02)
    inlay = mix(colour("#5b3420"), colour("#efe0bd"), soft_step(0.16 + 0.24 * sector, radius, 0.02))
    result = mix(planks, inlay, star)
    for centre, half in ((0.70, 0.012), (0.735, 0.006)):
        result = mix(result, colour("#4a2a1a"), soft_step(half - np.abs(radius - centre), 0.0, 0.012))
    along = 0.6 * np.cos(angle) + 0.3 * np.sin(2.0 * angle + 0.5)
    rim = wood(along, radius * 0.8, colour("#7d4b2b"), colour("#4f2d1a"), 11)
    return mix(result, rim, soft_step(radius, 0.86, 0.012))


def floor(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A plain cloth, a little lighter under the table."""
    radius = np.hypot(2.0 * u - 1.0, 2.0 * v - 1.0)
    return mix(colour("#7f97a3"), colour("#5f7885"), soft_step(radius, 0.25, 0.5))


def beach_ball(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Six gores in three colours with white caps."""
    gore = (u * 6.0) % 1.0
    index = np.floor(u * 6.0).astype(int) % 3
    colours = np.stack([colour("#e2432f"), colour("#f6c945"), colour("#2b7fc4")])
    seam = soft_step(0.06 - np.minimum(gore, 1.0 - gore), 0.0, 0.05)
    result = mix(colours[index], colour("#fbf5ea"), seam)
    return mix(result, colour("#fbf5ea"), soft_step(np.abs(v - 0.5), 0.39, 0.02))


def marble(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two wavy belts of green and cream around a ball."""
    height = v + 0.05 * np.sin(2.0 * np.pi * 4.0 * u)
    belts = np.sin(2.0 * np.pi * 2.5 * height)
    result = mix(colour("#1f7a63"), colour("#f2e6c4"), soft_step(belts, 0.0, 0.25))
    return mix(result, colour("#e08a2e"), soft_step(0.06 - np.abs(height - 0.5), 0.0, 0.03))


def vase(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Cobalt glaze with cream bands and a row of leaves; v runs along the profile."""
    result = np.broadcast_to(colour("#1d3f8a"), (*u.shape, 3))
    for centre, half in ((0.16, 0.018), (0.22, 0.008), (0.56, 0.010), (0.62, 0.018)):
        result = mix(result, colour("#f1e8d2"), soft_step(half - np.abs(v - centre), 0.0, 0.012))
    leaf = ((u * 9.0) % 1.0 - 0.5) / 0.36
    up = (v - 0.39) / 0.11
    result = mix(result, colour("#f1e8d2"), soft_step(1.0 - np.abs(leaf) - up**2, 0.0, 0.2))
    return mix(result, colour("#d9a441"), soft_step(0.45 - np.abs(leaf) - up**2, 0.0, 0.2))


def jelly(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Candy stripes that climb around the soft tower."""
    slant = (v * 5.0 + u * 2.0) % 1.0
    result = mix(colour("#f28ba8"), colour("#fff0e0"), soft_step(np.abs(slant - 0.5), 0.27, 0.08))
    dots = np.hypot(((u * 8.0) % 1.0 - 0.5) / 8.0 * 3.0, slant / 5.0 - 0.1)
    return mix(result, colour("#8a2f5e"), soft_step(0.045 - dots, 0.0, 0.03))


def mushroom(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A cream stem below, a red cap with pale spots above; v runs along the profile from foot to top."""
    cap = mix(colour("#c93a22"), colour("#e0542c"), v)
    for row, count, size in ((0.68, 7, 0.05), (0.82, 5, 0.055), (0.94, 1, 0.06)):
        # A lone spot at the top is a cap around the pole.
        across = (((u * count + 0.5 * (row > 0.75)) % 1.0) - 0.5) / count * (1.02 - v) * 4.0
        spot = np.hypot(across if count > 1 else 0.97 - v, v - row)
        cap = mix(cap, colour("#fdf3de"), soft_step(size - spot, 0.0, 0.02))
    gills = mix(colour("#f0dcb8"), colour("#cfae80"), 0.5 + 0.5 * np.cos(2.0 * np.pi * 24.0 * u))
    stem = mix(colour("#f3e6c8"), colour("#d8bd92"), 1.0 - v * 3.0)
    under = mix(stem, gills, soft_step(v, 0.42, 0.02))
    return mix(under, cap, soft_step(v, 0.56, 0.015))


def ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Checks of teal and orange around a torus: u along the ring, v around the tube."""
    check = np.sin(2.0 * np.pi * 9.0 * u) * np.cos(2.0 * np.pi * 2.0 * v)
    return mix(colour("#157f87"), colour("#f0a045"), soft_step(check, 0.0, 0.16))


def dice(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A colour and a pattern for each face; faces lie in an atlas of 3 columns and 2 rows."""
    face = np.minimum(np.floor(u * 3.0), 2.0) + 3.0 * np.floor(np.minimum(v, 0.999) * 2.0)
    x, y = (u * 3.0) % 1.0 - 0.5, (v * 2.0) % 1.0 - 0.5
    grounds = ["#d9483b", "#f4c542", "#3f8f5b", "#2f6db3", "#8a4ea3", "#ef8a3c"]
    pale = colour("#fff6e3")
    marks = [
        0.26 - np.hypot(x, y),
        0.07 - np.abs(np.hypot(x, y) - 0.26),
        0.10 - np.minimum(np.abs(x), np.abs(y)),
        0.06 - np.abs(np.abs(x) + np.abs(y) - 0.28),
        0.11 - np.hypot(np.abs(x) - 0.2, np.abs(y) - 0.2),
        0.085 - np.abs(((x + y + 2.0) % 0.4) - 0.2),
    ]
    result = np.zeros((*u.shape, 3))
    for index, (ground, mark) in enumerate(zip(grounds, marks, strict=True)):
        inside = soft_step(mark, 0.0, 0.03) * soft_step(0.40 - np.maximum(np.abs(x), np.abs(y)), 0.0, 0.03)
        result = np.where((face == index)[..., None], mix(colour(ground), pale, inside), result)
    return result


def book(cover: str, stripe: str) -> Pattern:
    """A cover with a frame on the large faces, pages on the thin ones (atlas as in `dice`)."""

    def pattern(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        face = np.minimum(np.floor(u * 3.0), 2.0) + 3.0 * np.floor(np.minimum(v, 0.999) * 2.0)
        x, y = (u * 3.0) % 1.0 - 0.5, (v * 2.0) % 1.0 - 0.5
        frame = soft_step(0.025 - np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.36), 0.0, 0.03)
        title = soft_step(0.12 - np.hypot(x, y), 0.0, 0.03)
        covers = mix(colour(cover), colour(stripe), np.maximum(frame, title))
        pages = mix(colour("#efe3c6"), colour(cover), soft_step(np.abs(y), 0.34, 0.04))
        spine = mix(colour(cover), colour(stripe), soft_step(0.05 - np.abs(np.abs(x) - 0.3), 0.0, 0.03))
        result = np.where((face >= 4)[..., None], covers, pages)
        return np.where((face == 1)[..., None], spine, result)

    return pattern
