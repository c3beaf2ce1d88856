"""Fields with random parameters for tests of the fused kernels, and the pictures that the reference defines of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.field import native_fused, reference
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.native_fused import FieldPicture, PreparedField
from kinosplat.render.field.sparse_table import sparse_table

RESOLUTION = 32  # of the occupancy grid
SALIENCY = GridLayout(n_levels=1, n_features=1, base_resolution=63, finest_resolution=63, log2_table_size=18)
BACKGROUND = (0.2, 0.5, 0.9)
NEAR = 0.05


@dataclass(frozen=True)
class Case:
    """A field with random parameters and where it has anything."""

    layout: GridLayout
    space: Space
    rule: StepRule
    table: Tensor
    density: list[Tensor]
    colour: list[Tensor]
    saliency: Tensor | None
    bits: Tensor
    sharpness: float = 3.0
    keep: Tensor | None = None
    """(n_entries,) bool, drawn from a sparse table of these where given; the others are zeros."""

    def prepared(self) -> PreparedField:
        return PreparedField(
            self.layout,
            self.table if self.keep is None else sparse_table(self.table, self.keep),
            self.density,
            self.colour,
            direction_degrees=4,
            saliency=self.saliency,
            saliency_layout=None if self.saliency is None else SALIENCY,
            sharpness=self.sharpness,
            density_scale=1.0 / self.space.half_extent,
        )

    def draw(self, camera: Camera, *, as_bytes: bool = False, stages: bool = False) -> FieldPicture:
        return native_fused.draw(
            self.prepared(),
            self.cells,
            camera,
            BACKGROUND,
            near=NEAR,
            as_bytes=as_bytes,
            stages=stages,
        )

    @property
    def cells(self) -> OccupiedCells:
        return OccupiedCells(self.bits, self.space, self.rule, RESOLUTION)

    def double(self) -> Case:
        """The same field in float64."""
        return replace(
            self,
            table=self.table.double(),
            density=[weight.double() for weight in self.density],
            colour=[weight.double() for weight in self.colour],
            saliency=None if self.saliency is None else self.saliency.double(),
        )

    def evaluated(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Densities and colours, piece by piece, in the precision of the parameters."""
        features = reference.encode(positions, self.table, self.layout)
        gate = torch.ones_like(positions[:, 0])
        if self.saliency is not None:
            features = features * torch.sigmoid(reference.encode(positions, self.saliency, SALIENCY))
            gate = torch.tanh(self.sharpness * features.norm(dim=1))
        outputs = reference.mlp(features, self.density)
        density = outputs[:, 0].clamp(max=15.0).exp() * gate / self.space.half_extent
        seen_from = reference.encode_directions(directions, 4)
        return density, torch.sigmoid(reference.mlp(torch.cat([outputs, seen_from], dim=1), self.colour))


def field(
    device: torch.device, *, gated: bool = False, unbounded: bool = False, n_features: int = 2, n_hidden: int = 64
) -> Case:
    """The same on every device; n_features a level, n_hidden numbers a hidden layer."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int, scale: float) -> Tensor:
        return (torch.randn(*size, generator=generator) * scale).to(device)

    def network(*widths: int) -> list[Tensor]:
        return [normal(n_out, n_in, scale=(2 / n_in) ** 0.5) for n_in, n_out in pairwise(widths)]

    layout = GridLayout(16 if n_features == 2 else 5, n_features, 4, 128, 14)
    space = Space((0.1, 0.2, 0.3), 1.5, 3 if unbounded else 1, unbounded)
    rule = StepRule(256, 1 / 64 if unbounded else 0.0)
    cells = torch.arange(space.n_cascades * RESOLUTION**3, device=device)
    x, y, z = cells % RESOLUTION, cells // RESOLUTION % RESOLUTION, cells // RESOLUTION**2 % RESOLUTION
    from_centre = (torch.stack([x, y, z], dim=1) - 15.5).norm(dim=1)
    return Case(
        layout=layout,
        space=space,
        rule=rule,
        table=normal(layout.n_entries, n_features, scale=0.5),
        density=network(layout.width, n_hidden, 16),
        colour=network(32, n_hidden, n_hidden, 3),
        saliency=normal(SALIENCY.n_entries, 1, scale=2.0) if gated else None,
        bits=reference.pack_bits((from_centre > 8) & (from_centre < 14)),
    )


def camera(width: int, height: int) -> Camera:
    K = torch.tensor([[1.1 * width, 0.0, 0.52 * width], [0.0, 1.1 * width, 0.47 * height], [0.0, 0.0, 1.0]])
    position, target = torch.tensor([3.0, 1.5, -2.5]), torch.tensor([0.1, 0.2, 0.3])
    return look_at(position, target, torch.tensor([0.0, -1.0, 0.0]), K=K, width=width, height=height)


def defined(case: Case, view: Camera) -> tuple[Tensor, Tensor, Tensor, int]:
    """Picture, alpha, depth and number of samples as the reference has them."""
    device = case.table.device
    view = view.to(device, case.table.dtype)
    y, x = torch.meshgrid(
        torch.arange(view.height, device=device).to(view.K) + 0.5,
        torch.arange(view.width, device=device).to(view.K) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()], dim=1)
    along = pixels @ torch.linalg.inv(view.K).T @ view.world_to_camera[:3, :3]
    directions = torch.nn.functional.normalize(along, dim=1)
    origins = view.position.expand_as(directions)
    half = case.space.half_extent * case.space.reach
    a, b = ((side * half + origins.new_tensor(case.space.center) - origins) / directions for side in (-1.0, 1.0))
    near = torch.minimum(a, b).amax(dim=1).clamp_min(NEAR)
    far = torch.maximum(torch.maximum(a, b).amin(dim=1), near)
    jitter = torch.zeros_like(near)
    samples = reference.march(RayParts(origins, directions, near, far, jitter), case.cells)
    positions, sample_directions = reference.sample_points(origins, directions, samples, case.space)
    density, rgb = case.evaluated(positions, sample_directions)
    seen = reference.composite(density, rgb, samples.t, samples.dt, samples.offsets)
    colours = seen.rgb + (1 - seen.alpha)[:, None] * seen.rgb.new_tensor(BACKGROUND)
    shape = (view.height, view.width)
    return colours.view(*shape, 3), seen.alpha.view(shape), seen.depth.view(shape), int(seen.n_used.sum())
