"""Options of the field methods, `hashgrid` and `hollownerf`.

Learning rates are those of the run at its start; unlike those of Gaussians they do not depend on the length of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class FieldConfig:
    """The hash grid, its networks, the space it covers, and how it is drawn."""

    levels: int | None = None
    """Levels of the hash grid; by default what the preset says."""
    features: int | None = None
    """Features an entry of the hash grid: 1, 2, 4 or 8; by default what the preset says."""
    base_resolution: int = 16
    """Cells along an axis of the coarsest level."""
    finest_resolution: int | None = None
    """Cells along an axis of the finest level; by default what the preset says, around objects at most one a pixel."""
    log2_table_size: int | None = None
    """Log 2 of the most entries a level may have; by default what the preset says."""
    hidden: int | None = None
    """Width of the networks' hidden layers: 16, 32, 64 or 128; by default what the preset says."""
    bounds: Literal["auto", "object", "unbounded"] = "auto"
    """What the field covers: a cube around what the cameras look at, or everything, contracted; auto is object where
    pictures have alpha or masks that cut an object out, else unbounded."""
    extent: float | None = None
    """Half the side of the cube that is not contracted, in scene units; by default as far as the cameras see around the
    point they look at: to the nearer edges of their pictures, or where an object leaves most of them 1.3 times as far
    as to the corners."""
    cascades: int = 5
    """Cubes with an occupancy grid each, twice as large as the one before; of an unbounded scene, which ends there."""
    occupancy_resolution: int | None = None
    """Cells along an axis of the occupancy grid, a multiple of 8; by default what the preset says."""
    ray_steps: int | None = None
    """Steps along the diagonal of the inner cube; by default what the preset says."""
    near: float | None = None
    """Nothing is seen nearer to a camera than this, in scene units; by default what the format of the scene says, else
    0.05."""
    n_first_points: int | None = None
    """First points at most, which say where surfaces are (see --depth-weight); 0 does without. By default what the
    preset says in unbounded scenes and around objects that leave the pictures, and 0 around others."""
    field_backend: Literal["native", "reference", "tcnn"] = "native"
    """What evaluates the field: this project's own code, its slow definition in torch, or tiny-cuda-nn."""


@dataclass(frozen=True)
class FieldTraining:
    """How a field is learned."""

    samples: int | None = None
    """Samples a step: the number of rays follows from it; by default what the preset says."""
    table_lr: float = 1e-2
    """Learning rate of the hash grid."""
    networks_lr: float = 1e-2
    """Learning rate of the networks."""
    rates_end: float = 0.03
    """Factor that the rates have reached at the end; they decay exponentially over the last third of the run."""
    huber: float = 0.1
    """Colour errors above this count by their size instead of by its square; 0 squares all."""
    distortion_weight: float | None = None
    """Weight of the distortion loss (Mip-NeRF 360), which draws samples together along rays; 0 leaves it out. By
    default what the preset says in unbounded scenes and 0 around objects."""
    depth_weight: float = 0.1
    """Weight at the start of what rays see elsewhere than where first points say that the surface is; 0 leaves it
    out."""
    depth_until: float = 0.5
    """Fraction of the run over which that weight falls to 0: things without points of their own come back after it."""
    occupancy_every: int = 16
    """Steps between updates of the occupancy grid."""
    occupancy_warm_up: int = 256
    """Steps during which an update visits all cells; later ones visit a quarter, half of it among the occupied
    ones."""


@dataclass(frozen=True)
class HashGrid:
    """A hash-grid radiance field (Instant-NGP); of a moving scene it takes one frame."""

    grid: FieldConfig = field(default_factory=FieldConfig)
    """The field and how it is drawn."""
    training: FieldTraining = field(default_factory=FieldTraining)
    """How it is learned."""
    name: Literal["hashgrid"] = "hashgrid"
    """Name of the method."""


@dataclass(frozen=True)
class HollowConfig:
    """The saliency mask of HollowNeRF and the pruner that makes it sparse."""

    mask_target: float = 0.04
    """Mean of the mask that the pruner aims at."""
    mask_lr: float = 1e-1
    """Learning rate of the mask's logits."""
    mask_first: float = 0.5
    """Value of the mask at the start."""
    pruning_start: float = 0.1
    """Fraction of the run after which the pruner starts."""
    pruning_strength: float = 0.05
    """What the pruner's dual variable would grow by over a whole run in which the mask exceeded its target by 1."""
    sharpness_first: float = 1e4
    """Sharpness of the gate at the start."""
    sharpness_last: float = 1e5
    """Sharpness of the gate at the end; grows exponentially."""
    harden_below: float = 1e-2
    """When training is over, mask values below this become zero for good."""


@dataclass(frozen=True)
class HollowNerf:
    """A hash-grid field with a trainable, sparse mask that keeps features where there is something (HollowNeRF)."""

    grid: FieldConfig = field(default_factory=FieldConfig)
    """The field and how it is drawn."""
    training: FieldTraining = field(default_factory=FieldTraining)
    """How it is learned."""
    hollow: HollowConfig = field(default_factory=HollowConfig)
    """The mask."""
    name: Literal["hollownerf"] = "hollownerf"
    """Name of the method."""
