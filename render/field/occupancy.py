"""Where a field has anything: a grid of bits a cascade, kept up to date while the field learns.

As in instant-ngp (Mueller et al. 2022, appendix C): cells remember the largest optical thickness met in them, forget it
slowly, and count as empty below a threshold. Cells that too few training cameras see are never learned and stay empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.field import native, native_step, reference
from kinosplat.render.field.layout import Space, StepRule
from kinosplat.render.field.marching import OccupiedCells
from kinosplat.render.field.reach import overlapping, side_of

DECAY = 0.95
"""What is left of a cell's memory after an update."""
THICKNESS = 0.01
"""A cell is occupied when a step through it would absorb this part, or the mean cell's part if that is less."""
LEAST_CAMERAS = 3
"""What fewer cameras have in their pictures may hold anything: floaters that explain one picture and hide others."""
CHUNK = 1 << 19
"""Cells looked at together; bounds memory, changes no value."""


class OccupancyGrid:
    """Cells of all cascades, in one row: cascade after cascade, x fastest."""

    def __init__(self, space: Space, rule: StepRule, resolution: int, device: torch.device) -> None:
        """All cells are occupied until the first update; resolution is a multiple of 8."""
        self.space = space
        self.rule = rule
        self.resolution = resolution
        n_cells = space.n_cascades * resolution**3
        self.thickness = torch.zeros(n_cells, device=device)
        self.learnable = torch.ones(n_cells, dtype=torch.bool, device=device)
        self.bits = torch.full((n_cells // 8,), 255, dtype=torch.uint8, device=device)
        self._blocks: tuple[Tensor, Tensor] | None = None

    @property
    def cells(self) -> OccupiedCells:
        """The grid as marching takes it."""
        return OccupiedCells(self.bits, self.space, self.rule, self.resolution)

    @property
    def blocks(self) -> Tensor:
        """Which blocks of cells have an occupied one (`native.occupied_blocks`); found once after each change."""
        if self._blocks is None or self._blocks[0] is not self.bits:
            self._blocks = self.bits, native.occupied_blocks(self.cells)
        return self._blocks[1]

    @property
    def n_cells(self) -> int:
        """Cells of all cascades."""
        return self.thickness.shape[0]

    def occupied(self) -> Tensor:
        """(n_cells,) bool."""
        return reference.unpack_bits(self.bits)

    @torch.no_grad()
    def learn_only_what_is_seen(self, cameras: Sequence[Camera], near: float) -> None:
        """Rule out cells whose centre fewer than `LEAST_CAMERAS` have in their pictures, at least `near` in front of
        them; of fewer cameras than that, all have to.

        One is enough for cells farther from the space's centre than all cameras: there nothing can be before a camera.
        """
        seen = torch.zeros_like(self.learnable)
        least = min(LEAST_CAMERAS, len(cameras))
        matrices = torch.stack([camera.K @ camera.world_to_camera[:3] for camera in cameras]).to(self.thickness)
        sizes = torch.tensor([[c.width, c.height] for c in cameras]).to(self.thickness)
        centre = matrices.new_tensor(self.space.center)
        farthest = max((camera.position.to(centre) - centre).norm() for camera in cameras)
        for first in range(0, self.n_cells, CHUNK):
            cells = torch.arange(first, min(first + CHUNK, self.n_cells), device=seen.device)
            centres = self.points(cells, torch.full((len(cells), 3), 0.5, device=seen.device))
            n_seeing = torch.zeros_like(cells)
            for matrix, size in zip(matrices, sizes, strict=True):
                x, y, z = (centres @ matrix[:, :3].T + matrix[:, 3]).unbind(-1)
                n_seeing += (z > near) & (x > 0) & (y > 0) & (x < size[0] * z) & (y < size[1] * z)
            is_around = (centres - centre).norm(dim=1) > farthest
            seen[cells] = torch.where(is_around, n_seeing > 0, n_seeing >= least)
        self.learnable = seen
        self.bits = reference.pack_bits(seen)

    def points(self, cells: Tensor, place: Tensor) -> Tensor:
        """(M, 3) world points in (M,) cells, at (M, 3) `place` in [0, 1] within each."""
        n = self.resolution
        cascade, rest = cells // n**3, cells % n**3
        corner = torch.stack([rest % n, rest // n % n, rest // n**2], dim=1)
        u = ((corner + place) * (2.0 / n) - 1) * torch.exp2(cascade.to(place))[:, None]
        return reference.points_from_unit(u, self.space)

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], key: int, n_visits: int | None = None) -> None:
        """Meet `density`, (S,) at (S, 3) grid positions, in all learnable cells, or at about `n_visits` places.

        Half of these are drawn from all cells, half from the occupied ones, a pure function of the `key`. On a GPU
        nothing is read back.
        """
        n_visits = self.n_cells if n_visits is None else n_visits
        occupied = native_step.occupied_cells(self.cells)
        cells, thickness = [], []
        for first in range(0, n_visits, CHUNK):
            part = range(first, min(first + CHUNK, n_visits))
            visited, positions = native_step.visit_cells(
                self.cells, self.learnable, occupied, key, n_visits=n_visits, part=part
            )
            if positions.device.type == "cpu":
                # A GPU looks nowhere as well: it would have to be asked how many visits lead somewhere.
                visited, positions = visited[visited >= 0], positions[visited >= 0]
            cells.append(visited)
            thickness.append(density(positions).float() * self._steps(visited))
        native.occupancy_update(self.thickness, torch.cat(cells), torch.cat(thickness), DECAY)
        self.bits = native.occupancy_pack(self.thickness, self._threshold())

    @torch.no_grad()
    def keep_only(self, cells: Tensor, seen: Tensor | None = None) -> None:
        """Empty every cell that is in no kept cell of the saliency grid, (63^3,) bool; what is empty now stays so.

        So does, in bounded spaces, what is not among the (n_cells,) bool `seen`. In unbounded spaces, whose cascades do
        not lie on the lattice of the saliency grid, what is beside a kept cell stays as it is.
        """
        if not self.space.contract:
            self.learnable &= self.occupied() & overlapping(cells, self.resolution)
            if seen is not None:
                self.learnable &= seen
            self._forget()
            return
        side = side_of(cells)
        near = torch.nn.functional.max_pool3d(cells.view(1, 1, side, side, side).float(), 3, stride=1, padding=1)
        near = near.flatten() > 0
        for first in range(0, self.n_cells, CHUNK):
            part = torch.arange(first, min(first + CHUNK, self.n_cells), device=cells.device)
            centres = self.points(part, torch.full((len(part), 3), 0.5, device=cells.device))
            at = (reference.grid_positions(centres, self.space) * side).long().clamp(0, side - 1)
            self.learnable[part] &= near[at[:, 0] + side * (at[:, 1] + side * at[:, 2])]
        self._forget()

    def _forget(self) -> None:
        """Empty what is not learned."""
        self.thickness *= self.learnable
        self.bits = reference.pack_bits(self.occupied() & self.learnable)

    def _steps(self, cells: Tensor) -> Tensor | float:
        """(M,) world length of a step in the cascade of each cell; one number where there is one cascade."""
        dt_min, dt_max = self.rule.limits(self.space, self.resolution)
        if self.space.n_cascades == 1:
            return dt_min
        return (dt_min * torch.exp2((cells // self.resolution**3).float())).clamp(max=dt_max)

    def _threshold(self) -> Tensor:
        """() optical thickness from which on a cell is occupied."""
        mean = self.thickness.sum() / self.learnable.sum().clamp_min(1)
        return mean.clamp_max(THICKNESS)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the grid."""
        return {
            "occupancy.thickness": self.thickness,
            "occupancy.learnable": reference.pack_bits(self.learnable),
            "occupancy.bits": self.bits,
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; another size is a ValueError."""
        device = self.thickness.device
        if tensors["occupancy.thickness"].shape != self.thickness.shape:
            raise ValueError(f"occupancy.thickness must have {self.n_cells} cells.")
        self.thickness = tensors["occupancy.thickness"].to(device).clone()
        self.learnable = reference.unpack_bits(tensors["occupancy.learnable"].to(device))
        self.bits = tensors["occupancy.bits"].to(device).clone()
