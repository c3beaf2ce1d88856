"""`hashgrid` and `hollownerf`: a radiance field on a hash grid, learned from rays of many pictures.

One class serves both: `hollownerf` adds a mask and its pruner (hollow_nerf.py). A step marches its rays through
occupied cells, finds out with the density alone which samples can be seen, and learns from those (field_step.py). The
number of rays follows from the number of samples a step should have, which is the only thing read back from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.field import reference
from kinosplat.render.field.field import Field, FieldShape
from kinosplat.render.field.layout import GridLayout, Space
from kinosplat.render.field.march import MarchBy
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.paint import painters
from kinosplat.render.field.point_depths import PointDepths
from kinosplat.render.field.render import render_field
from kinosplat.render.field.sight import DeviceCounts, Room, SampleCounts
from kinosplat.render.output import RenderOutput
from kinosplat.scenes import PointCloud, Scene
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.draws import draw_key, generator
from kinosplat.trainers.method import Losses, Measure, MethodState
from kinosplat.trainers.methods.field_config import FieldConfig, FieldTraining, HashGrid, HollowNerf
from kinosplat.trainers.methods.field_loss import LossWeights, cost_of_rays
from kinosplat.trainers.methods.field_space import point_depths, space_of, steps_of
from kinosplat.trainers.methods.field_step import can_do_by_hand, cost_and_gradients
from kinosplat.trainers.methods.hollow_nerf import Hollow
from kinosplat.trainers.optim import Group, exponential_decay
from kinosplat.trainers.ray_batch import RayBatch

FieldMethodConfig = HashGrid | HollowNerf

BETAS = (0.9, 0.99)
"""Adam's decays for fields (Mueller et al. 2022)."""
WARM_UP = 0.01
"""Fraction of the run over which learning rates rise."""
HOLD = 0.7
"""Fraction of the run after which learning rates fall: hash grids learn details as long as these are high."""
FIRST_SAMPLES_A_RAY = 256
"""The first step has so many rays that each may have this many samples."""
FEWEST_RAYS, MOST_RAYS = 64, 1 << 18
"""Limits of the number of rays a step."""
MOST_MET = 4
"""The density is asked for at so many times the samples that are to be learned from, at most."""
ROOM = 1.25
"""Buffers on a GPU hold so many times the samples that are aimed at."""
LARGEST_GROWTH = 1.5
"""The number of rays grows by this factor a step at most."""
VISITED = 0.25
"""Part of the occupancy grid's cells that an update visits after the warm-up."""


def field_shape(config: FieldConfig, space: Space, hollow: bool) -> FieldShape:
    """The shape of the field of a resolved config."""
    assert config.levels is not None
    assert config.features is not None
    assert config.finest_resolution is not None
    assert config.log2_table_size is not None
    assert config.hidden is not None
    layout = GridLayout(
        n_levels=config.levels,
        n_features=config.features,
        base_resolution=config.base_resolution,
        finest_resolution=config.finest_resolution,
        log2_table_size=config.log2_table_size,
    )
    return FieldShape(layout=layout, space=space, n_hidden=config.hidden, hollow=hollow)


class FieldMethod:
    """The method the loop trains."""

    learns_from: Literal["rays"] = "rays"

    def __init__(
        self, config: FieldMethodConfig, first: Field, grid: OccupancyGrid, depths: PointDepths | None, *, seed: int
    ) -> None:
        """`first`, `grid` and `depths` are on one device; `config` is resolved and settled."""
        assert config.training.samples is not None
        assert config.grid.near is not None
        self.name: str = config.name
        self.config = config
        self.grid = grid
        self.depths = depths
        self.near = config.grid.near
        self._shape = first
        self._seed = seed
        self._target = config.training.samples
        self._room = _room_for(self._target)
        self._n_rays = max(self._target // FIRST_SAMPLES_A_RAY, FEWEST_RAYS)
        self._n_samples = 0
        self._counted: SampleCounts | DeviceCounts | None = None
        self.march_by: MarchBy = "rays"
        self._groups = {name: _group(name, tensor, config.training) for name, tensor in first.parameters().items()}
        self.hollow = Hollow(config.hollow, self._groups["saliency"]) if isinstance(config, HollowNerf) else None

    @classmethod
    def create(
        cls, config: FieldMethodConfig, scene: Scene, points: PointCloud, *, seed: int, device: torch.device
    ) -> FieldMethod:
        """A field that knows nothing, for the space that the scene's cameras look at, and what first points say.

        There may be no points.
        """
        options = config.grid
        assert options.occupancy_resolution is not None
        assert options.near is not None
        space = space_of(options, scene)
        shape = field_shape(options, space, isinstance(config, HollowNerf))
        first = Field.create(shape, options.field_backend, generator(seed, 0, "field")).mapped(lambda t: t.to(device))
        grid = OccupancyGrid(space, steps_of(options), options.occupancy_resolution, device)
        grid.learn_only_what_is_seen([view.camera.to(device) for view in scene.train], options.near)
        return cls(config, first, grid, point_depths(scene, points, options.near, device), seed=seed)

    @classmethod
    def restore(
        cls,
        config: FieldMethodConfig,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        *,
        seed: int,
        device: torch.device,
    ) -> FieldMethod:
        """The method as a checkpoint holds it, without the optimiser's moments (the optimiser loads those)."""
        assert config.grid.occupancy_resolution is not None
        known = metadata["space"]
        space = Space(tuple(known["center"]), known["half_extent"], known["n_cascades"], known["contract"])
        shape = field_shape(config.grid, space, isinstance(config, HollowNerf))
        empty = Field.create(shape, config.grid.field_backend, generator(seed, 0, "field"))
        first = empty.with_parameters({name: tensors[name].to(device) for name in empty.parameters()})
        grid = OccupancyGrid(space, steps_of(config.grid), config.grid.occupancy_resolution, device)
        method = cls(config, first, grid, None, seed=seed)
        method.load(tensors, metadata)
        return method

    @property
    def n_rays(self) -> int:
        """Rays of the next step; waits until the device knows the samples of the last one, which is not all of it."""
        self._adapt()
        return self._n_rays

    def halve_samples(self) -> FieldMethodConfig:
        """Learn from half as many samples a step; the config that says so."""
        self._target, self._n_rays = max(self._target // 2, 1), max(self._n_rays // 2, FEWEST_RAYS)
        self._room, self._counted = _room_for(self._target), None
        self.config = replace(self.config, training=replace(self.config.training, samples=self._target))
        return self.config

    @property
    def n_samples(self) -> int:
        """Samples that the last step learned from; waits like `n_rays`."""
        self._adapt()
        return self._n_samples

    @property
    def n_primitives(self) -> int:
        """Entries of the hash grid that are left."""
        return self.parameters_left() // self._shape.shape.layout.n_features

    @property
    def n_bytes(self) -> int:
        """Bytes of the parameters that are left."""
        networks = sum(g.parameter.numel() for name, g in self._groups.items() if name not in ("table", "saliency"))
        n_mask = 0 if self.hollow is None else self.hollow.n_values
        return 4 * (networks + self.parameters_left() + n_mask)

    def parameters_left(self) -> int:
        """Numbers in the hash grid that a sample can still reach."""
        table = self._groups["table"].parameter
        if self.hollow is None or self.hollow.reachable is None:
            return table.numel()
        return int(self.hollow.reachable.sum()) * table.shape[1]

    def groups(self) -> list[Group]:
        """Table, networks, and the mask if there is one."""
        return list(self._groups.values())

    def field(self) -> Field:
        """The field as it is now, without gradients."""
        return self.live_field().mapped(lambda tensor: tensor.detach())

    def loss(self, batch: RayBatch, moment: Moment) -> Losses:
        """See along the rays, compare, and adapt the number of rays of the next step."""
        field, weights = self.live_field(), self._loss_weights(moment)
        bounds = None
        if self.depths is not None and weights.depth > 0.0:
            bounds = self.depths.along(batch.views, batch.places)
        if can_do_by_hand(field, batch):
            cost = cost_and_gradients(field, self.grid, self.near, batch, weights, bounds, self._room)
        else:
            cost = cost_of_rays(field, self.grid, self.near, batch, weights, bounds)
        self._counted = cost.counted
        terms, gradients = dict(cost.terms), dict(cost.gradients)
        if self.hollow is not None:
            penalty, of_mask = self.hollow.penalty(moment)
            terms |= penalty
            if of_mask is not None:
                gradients["saliency"] = of_mask.add_(gradients["saliency"]) if gradients else of_mask
            self.hollow.watch(moment, self.grid, cost)
        known = [(self._groups[name].parameter, gradient) for name, gradient in gradients.items()]
        return Losses(terms, cost.squared_error, known)

    def touched(self) -> Mapping[str, Tensor]:
        """Nothing is named: entries of the grid that no sample reached are known by their gradients."""
        return {}

    def after_step(self, moment: Moment) -> None:
        """Look where something is, now and then; let the mask's pruner step."""
        options = self.config.training
        if self.hollow is not None:
            self.hollow.after_step(moment)
        if (moment.step + 1) % options.occupancy_every == 0:
            field, key = self.live_field(), draw_key(self._seed, moment.step, "occupancy")
            everywhere = moment.step < options.occupancy_warm_up
            n_visits = None if everywhere else int(VISITED * self.grid.n_cells)
            self.grid.update(lambda positions: field.density(positions)[0], key, n_visits)

    def finish(self, measure: Measure) -> dict[str, float]:
        """Harden the mask, if there is one; what a report says of it."""
        numbers = {name: group.parameter.numel() for name, group in self._groups.items()}
        facts: dict[str, float] = {"parameters": sum(numbers.values())}
        if self.hollow is not None:
            facts |= self._harden(self.hollow, measure, facts["parameters"] - numbers["table"] - numbers["saliency"])
        return facts | {"occupied_cells": self.grid.occupied().float().mean().item()}

    def _harden(self, hollow: Hollow, measure: Measure, n_networks: float) -> dict[str, float]:
        """Make the mask binary; what a report says of it."""
        before = measure()
        hollow.harden(self._groups["table"], self._shape.shape.layout, self.grid)
        after = measure()
        facts = hollow.facts()
        facts["parameters_after"] = self.parameters_left() + n_networks + facts["mask_values"]
        if before is not None and after is not None:
            facts |= {"psnr_before_hardening": before, "psnr_after_hardening": after}
        return facts

    def render(self, cameras: Sequence[Camera], background: Tensor, *, geometry: bool = False) -> RenderOutput:
        """The field at all pixels' centres."""
        return render_field(
            self.field(), self.grid, cameras, background, near=self.near, geometry=geometry, march_by=self.march_by
        )

    @property
    def painters(self) -> Mapping[str, Callable[[Camera], Tensor]]:
        """Pictures for the viewer: occupied cells, and the mask."""
        return painters(self.field, self.grid, self.near, hollow=self.hollow is not None)

    def state(self) -> MethodState:
        """Occupancy, number of rays, space, and the mask's pruner."""
        metadata: dict[str, Any] = {"space": asdict(self.grid.space), "n_rays": self.n_rays}
        tensors = self.grid.tensors()
        if self.depths is not None:
            tensors |= self.depths.tensors()
        if self.hollow is not None:
            metadata["hollow"] = self.hollow.metadata()
            tensors |= self.hollow.tensors()
        return MethodState(tensors, metadata)

    def load(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.grid.load(tensors)
        self.depths = PointDepths.from_tensors(tensors, self.grid.bits.device)
        self._n_rays = metadata["n_rays"]
        if self.hollow is not None:
            self.hollow.load(tensors, metadata["hollow"])

    def summary(self) -> dict[str, float]:
        """Rays and samples of the last step, the share of occupied cells, and the mean of the mask."""
        numbers = {
            "rays": float(self.n_rays),
            "samples": float(self.n_samples),
            "occupied": self.grid.occupied().float().mean().item(),
        }
        return numbers if self.hollow is None else numbers | {"mask": self.hollow.mean().item()}

    def live_field(self) -> Field:
        """The field as it is now, with gradients."""
        tensors = {name: group.parameter for name, group in self._groups.items()}
        field = self._shape.with_parameters(tensors)
        return field if self.hollow is None else replace(field, sharpness=self.hollow.sharpness)

    def _density_at(self, points: Tensor) -> Tensor:
        field = self.live_field()
        return field.density(reference.grid_positions(points, self.grid.space))[0]

    def _loss_weights(self, moment: Moment) -> LossWeights:
        options, space = self.config.training, self.grid.space
        assert options.distortion_weight is not None
        return LossWeights(
            huber=options.huber,
            distortion=options.distortion_weight / space.half_extent,
            depth=options.depth_weight * max(1 - moment.progress / options.depth_until, 0.0),
        )

    def _adapt(self) -> None:
        """So many rays next time that about the wanted number of samples is learned from."""
        if self._counted is None:
            return
        counts = self._counted if isinstance(self._counted, SampleCounts) else self._counted.read()
        self._counted = None
        by_kept = self._target / max(counts.kept, 1)
        by_met = MOST_MET * self._target / max(counts.met, 1)
        wanted = int(self._n_rays * min(by_kept, by_met, LARGEST_GROWTH))
        self._n_rays = min(max(wanted, FEWEST_RAYS), MOST_RAYS)
        self._n_samples = int(counts.kept)


def _room_for(n_samples: int) -> Room:
    return Room(met=int(ROOM * MOST_MET * n_samples), kept=int(ROOM * n_samples))


def _group(name: str, tensor: Tensor, options: FieldTraining) -> Group:
    start = options.table_lr if name == "table" else options.networks_lr
    rate = exponential_decay(start, options.rates_end * start, warm_up=WARM_UP, hold=HOLD)
    # Entries that no sample reached would move by their momentum alone.
    return Group(name, tensor, rate, rows=name, betas=BETAS, sparse=name == "table")
