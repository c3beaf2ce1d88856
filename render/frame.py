"""What goes into the passes of a frame and comes out of them, the same for every backend.

`rasterize` checks what a user gives and makes these; backends (native_cpu, native_cuda) take them as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class FrameInputs(NamedTuple):
    """Everything the pictures of C cameras depend on, as the backends read it, without building a history."""

    gaussians: dict[str, Tensor]
    """Parameter name to tensor, without the time parameters of a static set."""
    features: Tensor | None
    """(N, F), None when there are none."""
    world_to_camera: Tensor
    """(C, 4, 4)."""
    K: Tensor
    """(C, 3, 3)."""
    background: Tensor | None
    """(C, 3), black when None."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    times: tuple[float | None, ...]
    """Seconds, one a camera; None in a static set."""
    sh_degree: int
    """Used degree, at most what is stored."""
    antialiased: bool
    """Opacity compensation on or off."""
    near: float
    """World units."""
    far: float
    """World units."""
    depth: bool
    """Whether depth is a channel."""
    normal: bool
    """Whether the normal is three channels."""
    median_depth: bool
    """Whether the median depth is wanted."""
    camera_gradient: bool
    """Whether the backward pass has to give gradients of world_to_camera and K."""
    background_gradient: bool
    """Whether the backward pass has to give the gradient of the background."""
    visible: Tensor | None
    """(N,) bool that the forward pass sets to true for what is visible and to false for the rest, None when nobody
    asks."""
    checked: Any = None
    """What the backend's `check_gaussians` said of these very tensors before; None lets it look at them again."""

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Everything that pictures can be differentiated by: the Gaussians in their order, world_to_camera, K,
        background and features.
        """
        return (*self.gaussians.values(), self.world_to_camera, self.K, self.background, self.features)

    @property
    def n_cameras(self) -> int:
        """C."""
        return len(self.times)

    @property
    def n_features(self) -> int:
        """Number of feature channels."""
        return 0 if self.features is None else self.features.shape[1]

    @property
    def n_channels(self) -> int:
        """All blended channels: rgb, depth, normal, features."""
        return 3 + int(self.depth) + 3 * int(self.normal) + self.n_features


class Frame(NamedTuple):
    """Pictures of C cameras, written by a backend."""

    rgb: Tensor
    """(C, H, W, 3)."""
    alpha: Tensor
    """(C, H, W)."""
    depth_sum: Tensor | None
    """(C, H, W), blended depth, not yet divided by alpha."""
    normal: Tensor | None
    """(C, H, W, 3)."""
    features: Tensor | None
    """(C, H, W, F)."""
    median_depth: Tensor | None
    """(C, H, W)."""


class FrameGradients(NamedTuple):
    """Gradients of the loss by the pictures of C cameras, shaped like them; None where a picture was not used."""

    rgb: Tensor | None
    alpha: Tensor | None
    depth_sum: Tensor | None
    normal: Tensor | None
    features: Tensor | None


class InputGradients(NamedTuple):
    """Gradients by what went in, shaped like it; of cameras and background they may be None where not wanted."""

    gaussians: dict[str, Tensor]
    features: Tensor | None
    world_to_camera: Tensor | None
    K: Tensor | None
    background: Tensor | None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """In the order of `FrameInputs.tensors`."""
        return (*self.gaussians.values(), self.world_to_camera, self.K, self.background, self.features)
