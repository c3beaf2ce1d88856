"""Depth maps from pictures with known poses, by sweeping planes through space.

For every pixel of every view, planes facing the camera at depths evenly spaced in 1/depth are tried: neighbouring views
are warped onto the reference by the plane's homography (Collins 1996) and compared with it by zero-mean normalised
cross-correlation on small patches. The best half of the neighbours counts, so that one may be occluded. Costs are
aggregated along scanlines (semi-global matching, Hirschmueller 2008), the lowest wins, is refined between planes by a
parabola, and must agree with other views' depth maps to be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from kinosplat.scenes.points.fusion import agreement
from kinosplat.scenes.points.parallel import each_group, each_view
from kinosplat.scenes.points.random_frusta import typical_depths
from kinosplat.scenes.points.rig import Rig, choose_neighbours, near_depths

NOISE = 2.0 / 255
"""Standard deviation of grey values below which a patch counts as having no texture."""
LONE_COST = 0.3
"""By how much worse than the best the second best is taken to be where one neighbour alone sees the place."""
OUTSIDE_COST = 0.5
"""Added to the cost where all neighbours see the place outside the foreground."""
PROBES = 6
"""Views in which the range of depths is searched."""
GOOD_COST, GOOD_MARGIN = 0.35, 0.1
"""A probe's pixel counts when it matches this well and stands out this much."""
RANGE_SHARE = 0.01
"""Share of the probes' points on either side that may lie outside the range of depths."""
RANGE_SLACK = 1.25
"""The range is this much wider than the probes' points."""
CPU_CHUNK, GPU_CHUNK = 2**17, 2**25
"""Pixels times planes times neighbours that are compared at once: what stays in a core's cache, and what keeps a GPU
busy.
"""
VOLUME_BYTES = 2**31
"""Memory at most for the cost volumes that are aggregated together on a GPU, where a scanline of one view is far too
little work for a kernel.
"""
VOLUME_SHARE = 0.25
"""And at most this part of what the GPU has free."""
VOLUME_COPIES = 6
"""Volumes of a view that exist at once while it is aggregated."""


@dataclass(frozen=True)
class SweepSettings:
    """How finely planes are swept."""

    n_planes: int = 56
    """Planes between the nearest and the farthest depth."""
    n_probe_planes: int = 96
    """Planes between the nearest depth cameras allow and infinity, to find where things are."""
    n_neighbours: int = 4
    """Views compared with each reference."""
    n_witnesses: int = 6
    """Views whose depth maps are asked whether they agree."""
    patch_radius: int = 2
    """Patches are 2 * radius + 1 pixels wide."""
    small_step: float = 0.06
    """Cost of a step of one plane between pixels."""
    large_step: float = 0.6
    """Cost of a larger step."""
    n_around: int = 4
    """Half steps tried to either side of the coarser depth map at each finer level."""
    tolerance: float = 2.0
    """Steps of the finest level by which the depths of two views may differ and still agree."""


@dataclass(frozen=True)
class DepthMaps:
    """What the sweep found, for all views of a rig."""

    inverse_depth: Tensor
    """(V, H, W) float32, 1 / distance along the camera's axis."""
    cost: Tensor
    """(V, H, W) float32 matching cost of the winner: 0 is a perfect match, 1 none."""
    n_agreeing: Tensor
    """(V, H, W) int32, how many other views agree."""
    n_seeing: Tensor
    """(V, H, W) int32, how many could: the place is in their picture."""
    step: Tensor
    """(V,) inverse depth between the planes of the finest level."""
    views: list[int]
    """Those that have a depth map."""


Range = tuple[Tensor, Tensor]
"""(V,) least and (V,) largest inverse depth of each view."""


def depth_maps(
    pyramid: list[Rig],
    settings: SweepSettings,
    within: Range,
    views: list[int] | None = None,
    outlines: list[Tensor] | None = None,
) -> DepthMaps:
    """Depth maps at the size of the last rig of `pyramid`, which holds the same pictures from small to large.

    Only `views` get one, all by default; the other views are still compared with. With `outlines`, foregrounds (V, H,
    W) float at each size, places outside them are unlikely.
    """
    coarse = pyramid[0]
    views = list(range(len(coarse.images))) if views is None else views
    outline = [None] * len(pyramid) if outlines is None else outlines
    low, high = within
    neighbours = choose_neighbours(coarse, settings.n_neighbours, 2 / (low + high)).to(low.device)
    share = torch.linspace(0, 1, settings.n_planes, device=low.device)
    planes = low[:, None] + (high - low)[:, None] * share
    step = planes[:, 1] - planes[:, 0]
    inverse, cost, _ = sweep(coarse, planes, neighbours, settings, outline[0], views)
    for rig, mask in zip(pyramid[1:], outline[1:], strict=True):
        step = step / 2
        inverse, cost = sharpen(rig, inverse, step, neighbours, settings, mask, views)
    witnesses = choose_neighbours(coarse, settings.n_witnesses, 2 / (low + high), among=views)
    n_agreeing, n_seeing = agreement(pyramid[-1], inverse, settings.tolerance * step, witnesses, views)
    return DepthMaps(inverse, cost, n_agreeing, n_seeing, step, views)


def depth_range(rig: Rig, settings: SweepSettings, outline: Tensor | None = None) -> Range:
    """(V,) least and largest inverse depth of what a few probing views see, between infinity and `near_depths`."""
    n_views = len(rig.images)
    nearest = 1 / near_depths(rig)
    probes = torch.linspace(0, n_views - 1, min(PROBES, n_views)).round().long().tolist()
    neighbours = choose_neighbours(rig, settings.n_neighbours, typical_depths(rig)).to(nearest.device)
    planes = nearest[:, None] * torch.linspace(0, 1, settings.n_probe_planes, device=nearest.device)
    inverse, cost, margin = sweep(rig, planes, neighbours, settings, outline, probes)
    points = []
    for view in probes:
        good = (cost[view] < GOOD_COST) & (margin[view] > GOOD_MARGIN) & (inverse[view] > 0)
        if outline is not None:
            good &= outline[view] > 0
        points.append(rig.unproject(view, 1 / inverse[view].clamp(min=1e-9))[good])
    found = torch.cat(points)
    low, high = torch.zeros_like(nearest), nearest.clone()
    for view in range(n_views):
        pixels, depth = rig.project(found, view)
        size = torch.tensor([rig.size[1], rig.size[0]], device=pixels.device)
        seen = 1 / depth[((pixels >= 0) & (pixels <= size)).all(dim=-1) & (depth > 0)]
        if len(seen) >= 1 / RANGE_SHARE:
            ends = seen.sort().values
            skipped = int(len(ends) * RANGE_SHARE)
            low[view] = ends[skipped] / RANGE_SLACK
            high[view] = torch.minimum(ends[-1 - skipped] * RANGE_SLACK, nearest[view])
    return low, high


def sweep(
    rig: Rig,
    planes: Tensor,
    neighbours: Tensor,
    settings: SweepSettings,
    outline: Tensor | None,
    views: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse depth, cost and uniqueness (V, H, W); views other than `views` get cost 1.

    `planes` (V, K) inverse depths in increasing order, `neighbours` (V, n).
    """
    matcher = Matcher(rig, settings.patch_radius, outline)
    inverse = planes.mean(dim=1)[:, None, None].repeat(1, *rig.size)
    cost, margin = torch.ones_like(inverse), torch.zeros_like(inverse)

    def search(group: list[int]) -> None:
        window = matcher.window(group)
        if window is None:
            return
        costs = torch.stack(
            [matcher.costs(view, neighbours[view], planes[view][:, None, None], window) for view in group], dim=1
        )
        aggregated = semi_global(costs, settings.small_step, settings.large_step)
        winner = aggregated.argmin(dim=0)
        best, offset, unique = (
            costs.gather(0, winner[None])[0],
            parabola(aggregated, winner),
            uniqueness(aggregated, winner),
        )
        for i, view in enumerate(group):
            spacing = planes[view, 1] - planes[view, 0]
            inverse[view][window] = planes[view][winner[i]] + offset[i] * spacing
            cost[view][window], margin[view][window] = best[i], unique[i]

    n_bytes = 4 * VOLUME_COPIES * planes.shape[1] * rig.size[0] * rig.size[1]
    room = VOLUME_BYTES
    if planes.device.type == "cuda":
        room = min(room, int(VOLUME_SHARE * torch.cuda.mem_get_info(planes.device)[0]))
    each_group(search, views, room // n_bytes, planes.device)
    return inverse, cost, margin


def sharpen(
    rig: Rig,
    coarse: Tensor,
    step: Tensor,
    neighbours: Tensor,
    settings: SweepSettings,
    outline: Tensor | None,
    views: list[int],
) -> tuple[Tensor, Tensor]:
    """Inverse depth and cost (V, H, W) at the size of `rig`, by trying steps (V,) to either side of `coarse` (V, h, w).

    A patch is compared along the surface that the coarse map describes, so slanted surfaces match as well as those that
    face the camera.
    """
    matcher = Matcher(rig, settings.patch_radius, outline)
    inverse = interpolate(coarse[:, None], rig.size, mode="bilinear")[:, 0]
    cost = torch.ones_like(inverse)

    def refine(view: int) -> None:
        window = matcher.window([view])
        if window is None:
            return
        offsets = torch.arange(-settings.n_around, settings.n_around + 1, device=step.device) * step[view]
        tried = (inverse[view][window] + offsets[:, None, None]).clamp(min=1e-9)
        costs = matcher.costs(view, neighbours[view], tried, window)
        winner = costs.argmin(dim=0)
        best = tried.gather(0, winner[None])[0] + parabola(costs, winner) * step[view]
        inverse[view][window] = best.clamp(min=1e-9)
        cost[view][window] = costs.gather(0, winner[None])[0]

    each_view(refine, views, step.device)
    return inverse, cost


Window = tuple[slice, slice]
"""Rows and columns of a picture."""


class Matcher:
    """Compares a view with its neighbours when its pixels are put at given depths."""

    def __init__(self, rig: Rig, patch_radius: int, outline: Tensor | None = None) -> None:
        self._rig = rig
        self._radius = patch_radius
        self._outline = outline
        self._grey = rig.images.mean(dim=-1)
        self._layers = self._grey[:, None] if outline is None else torch.stack([self._grey, outline], dim=1)
        self._rays = rig.rays().reshape(-1, 3, *rig.size)
        self._camera_to_world = rig.camera_to_world
        self._mean_grey = self._mean(self._grey)
        self._deviation = self._standard_deviation(self._grey, self._mean_grey)

    def window(self, views: list[int]) -> Window | None:
        """The part of the views in which there is something to find; None when there is nothing."""
        if self._outline is None:
            return slice(None), slice(None)
        places = (self._outline[views].amax(dim=0) > 0).nonzero()
        if len(places) == 0:
            return None
        low = (places.amin(dim=0) - self._radius).clamp(min=0).tolist()
        high = (places.amax(dim=0) + self._radius + 1).tolist()
        return slice(low[0], high[0]), slice(low[1], high[1])

    def costs(self, view: int, neighbours: Tensor, inverse_depths: Tensor, window: Window) -> Tensor:
        """(K, h, w) in [0, 1]: 1 - ZNCC in the window, averaged over the two best neighbours, the second of which
        LONE_COST stands for where one alone sees the place; 1 where none does.

        `inverse_depths` is (K, 1, 1) or (K, h, w). Places outside the neighbours' outlines cost up to OUTSIDE_COST
        more.
        """
        n_pixels = self._grey[view][window].numel() * len(neighbours)
        n_at_once = max((CPU_CHUNK if self._grey.device.type == "cpu" else GPU_CHUNK) // n_pixels, 1)
        return torch.cat([self._costs(view, neighbours, part, window) for part in inverse_depths.split(n_at_once)])

    def _costs(self, view: int, neighbours: Tensor, inverse_depths: Tensor, window: Window) -> Tensor:
        reference = self._grey[view][window]
        layers, inside = self._warp(view, neighbours, inverse_depths, window)
        warped = layers[:, 0]
        mean_warped = self._mean(warped)
        deviation = self._standard_deviation(warped, mean_warped).mul_(self._deviation[view][window])
        zncc = self._mean(warped * reference).sub_(mean_warped.mul_(self._mean_grey[view][window])).div_(deviation)
        zncc.masked_fill_(~inside, -1.0)
        best, second = zncc[0], torch.full_like(zncc[0], -1.0)
        for other in zncc[1:]:
            second = torch.maximum(second, torch.minimum(best, other))
            best = torch.maximum(best, other)
        # Near the edges of what a rig looks at, one neighbour often is all there is.
        second = torch.where(inside.sum(dim=0) == 1, best - LONE_COST, second)
        cost = (1 - 0.5 * (best + second)).clamp_(0, 1)
        return cost if self._outline is None else cost.add_((1 - layers[:, 1]).mean(dim=0), alpha=OUTSIDE_COST)

    def _warp(self, view: int, neighbours: Tensor, inverse_depths: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """Layers (N, C, K, h, w) of the neighbours (grey, maybe outline) where `view` puts its pixels; (N, K, h, w)
        whether they see them.
        """
        rig = self._rig
        height, width = rig.size
        relative = rig.world_to_camera[neighbours] @ self._camera_to_world[view]
        # From pixels to the [-1, 1] of grid_sample, divided by depth: only the translation depends on it.
        to_grid = rig.K[neighbours] * torch.tensor([2 / width, 2 / height, 1], device=rig.K.device)[:, None]
        to_grid[:, :2] -= to_grid[:, 2:]
        rays = self._rays[view][:, window[0], window[1]]
        far = ((to_grid @ relative[:, :3, :3]) @ rays.reshape(3, -1)).reshape(-1, 3, 1, *rays.shape[1:])
        near = (to_grid @ relative[:, :3, 3:])[..., None, None]
        n, n_planes = len(neighbours), len(inverse_depths)
        grid = torch.empty(n, n_planes, *rays.shape[1:], 2, device=rig.K.device)
        z = (far[:, 2] + near[:, 2] * inverse_depths).clamp_(min=1e-6)
        torch.div(far[:, 0] + near[:, 0] * inverse_depths, z, out=grid[..., 0])
        torch.div(far[:, 1] + near[:, 1] * inverse_depths, z, out=grid[..., 1])
        inside = (grid.abs() <= 1).all(dim=-1)
        warped = grid_sample(
            self._layers[neighbours], grid.reshape(n, -1, grid.shape[3], 2), align_corners=False, padding_mode="border"
        )
        return warped.reshape(n, -1, *inside.shape[1:]), inside

    def _standard_deviation(self, values: Tensor, mean: Tensor) -> Tensor:
        variance = self._mean(values * values).addcmul_(mean, mean, value=-1)
        return variance.clamp_(min=0).add_(NOISE**2).sqrt_()

    def _mean(self, values: Tensor) -> Tensor:
        """Mean of the patch around each pixel of (..., h, w): on a CPU by shifted sums, twenty times as fast as
        avg_pool2d there.
        """
        if values.device.type != "cpu":
            size, radius = 2 * self._radius + 1, self._radius
            planes = values.reshape(-1, 1, *values.shape[-2:])
            return avg_pool2d(planes, size, stride=1, padding=radius, count_include_pad=False).reshape(values.shape)
        for dim in (-1, -2):
            size = values.shape[dim]
            total = values.clone()
            count = torch.ones(size, device=values.device)
            for shift in range(1, self._radius + 1):
                total.narrow(dim, shift, size - shift).add_(values.narrow(dim, 0, size - shift))
                total.narrow(dim, 0, size - shift).add_(values.narrow(dim, shift, size - shift))
                count[shift:] += 1
                count[: size - shift] += 1
            values = total.div_(count if dim == -1 else count[:, None])
        return values


def semi_global(costs: Tensor, small_step: float, large_step: float) -> Tensor:
    """Sum of the minimal path costs from four sides, (K, ..., H, W) like `costs`; steps of one plane and of more are
    penalised.
    """
    total = torch.zeros_like(costs)
    for dim in (-2, -1):
        lines = costs.movedim(dim, 0)
        # There and back in one pass: (L, K, 2, ..., n).
        both = torch.stack([lines, lines.flip(0)], dim=2)
        paths = [both[0]]
        for line in both[1:]:
            paths.append(_next_on_path(paths[-1], line, small_step, large_step))
        there, back = torch.stack(paths).unbind(dim=2)
        total += (there + back.flip(0)).movedim(0, dim)
    return total


def _next_on_path(path: Tensor, costs: Tensor, small_step: float, large_step: float) -> Tensor:
    """Path costs (K, ...) of the next line of pixels: its own, plus the cheapest way there, less the least to stay
    bounded.
    """
    floor = path.amin(dim=0, keepdim=True)
    cheapest = torch.minimum(path, floor + large_step)
    stepped = path + small_step
    torch.minimum(cheapest[1:], stepped[:-1], out=cheapest[1:])
    torch.minimum(cheapest[:-1], stepped[1:], out=cheapest[:-1])
    return cheapest.sub_(floor).add_(costs)


def parabola(costs: Tensor, winner: Tensor) -> Tensor:
    """In [-0.5, 0.5] like `winner`: vertex of the parabola through the winner's cost and its neighbours', of costs
    (K, ...).
    """
    last = len(costs) - 1
    middle = winner.clamp(1, last - 1)
    before, here, after = (costs.gather(0, (middle + step)[None])[0] for step in (-1, 0, 1))
    curvature = before - 2 * here + after
    offset = torch.where(curvature > 1e-6, 0.5 * (before - after) / curvature.clamp(min=1e-6), 0.0).clamp(-0.5, 0.5)
    return torch.where(winner == middle, offset, 0.0)


def uniqueness(costs: Tensor, winner: Tensor) -> Tensor:
    """Relative excess of the best cost (K, ...) away from the `winner` (...)."""
    planes = torch.arange(len(costs), device=costs.device).reshape(-1, *[1] * winner.ndim)
    away = (planes - winner[None]).abs() > 2
    second = torch.where(away, costs, torch.inf).amin(dim=0)
    best = costs.gather(0, winner[None])[0]
    return (second - best) / best.clamp(min=1e-3)
