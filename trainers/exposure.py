"""An affine colour correction for each camera (exposure, white balance, gamma in first order).

The correction of camera i is I + D_i - mean(D): the mean over the training cameras is the identity at every step, so
the scene's own colours cannot drift away from what an uncorrected, held-out camera sees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.trainers.optim import Group, exponential_decay


class Exposure:
    """The corrections of all physical cameras of a scene; a camera no picture was learned from keeps the identity."""

    def __init__(self, training_cameras: list[int], n_cameras: int, lr: float, device: torch.device) -> None:
        """`training_cameras` are the indices that pictures are learned from, of `n_cameras` in all."""
        zeros = torch.zeros(n_cameras, 3, 4, device=device)
        self.group = Group("exposures", zeros, exponential_decay(lr, 0.01 * lr), rows="exposures", eps=1e-8)
        learned = torch.zeros(n_cameras)
        learned[training_cameras] = 1.0
        # The correction is linear in the parameters: row i says how those of all cameras make that of camera i.
        free = torch.diag(learned) - torch.outer(learned, learned) / learned.sum()
        self._rows = list(free.to(device).split(1))
        self._identity = torch.eye(3, 4, device=device).reshape(12)

    def corrections(self) -> Tensor:
        """(n_cameras, 3, 4) corrections of all cameras, with a gradient."""
        return self.of(list(range(len(self._rows))))

    def of(self, cameras: list[int]) -> Tensor:
        """(C, 3, 4) corrections of the cameras with these indices, with a gradient."""
        # Rows picked one by one: a list as the index would be copied to the device, which Python would wait for.
        rows = self._rows[cameras[0]] if len(cameras) == 1 else torch.cat([self._rows[i] for i in cameras])
        return torch.addmm(self._identity, rows, self.group.parameter.reshape(-1, 12)).reshape(-1, 3, 4)
