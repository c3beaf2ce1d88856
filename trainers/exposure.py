"""An affine colour correction for each camera (exposure, white balance, gamma in first order).

The correction of camera i is I + D_i - mean(D): the mean over the training cameras is the identity at every step, so
the scene's own colours cannot drift away from what an uncorrected, held-out camera sees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.trainers.optim import Group, exponential_decay


class Exposure:
    """The corrections of all physical cameras of a scene; a camera no picture was learned from keeps the identity.

    Corrections are handed out as leaves, and `collect` brings their gradient to the parameters: a sum each way, for
    which torch's history, and products of matrices this small, cost the host four times as much.
    """

    def __init__(self, training_cameras: list[int], n_cameras: int, lr: float, device: torch.device) -> None:
        """`training_cameras` are the indices that pictures are learned from, of `n_cameras` in all."""
        zeros = torch.zeros(n_cameras, 3, 4, device=device)
        self.group = Group("exposures", zeros, exponential_decay(lr, 0.01 * lr), rows="exposures", eps=1e-8)
        learned = torch.zeros(n_cameras)
        learned[training_cameras] = 1.0
        # The correction is linear in the parameters: row i says how those of all cameras make that of camera i.
        free = torch.diag(learned) - torch.outer(learned, learned) / learned.sum()
        self._rows = list(free.to(device)[:, :, None, None].split(1))
        self._identity = torch.eye(3, 4, device=device)
        self._given: tuple[Tensor, Tensor] | None = None

    def corrections(self) -> Tensor:
        """(n_cameras, 3, 4) corrections of all cameras."""
        return self.of(list(range(len(self._rows))))

    def of(self, cameras: list[int]) -> Tensor:
        """(C, 3, 4) corrections of the cameras with these indices: a leaf that wants its gradient, where gradients are
        wanted at all.
        """
        wants_gradient = torch.is_grad_enabled()
        with torch.no_grad():
            # Rows picked one by one: a list as the index would be copied to the device, which Python would wait for.
            rows = self._rows[cameras[0]] if len(cameras) == 1 else torch.cat([self._rows[i] for i in cameras])
            corrections = (rows * self.group.parameter).sum(dim=1).add_(self._identity)
        if wants_gradient:
            self._given = rows, corrections.requires_grad_()
        return corrections

    @torch.no_grad()
    def collect(self) -> None:
        """Give the parameters the gradient of what was handed out last, after the backward pass."""
        given, self._given = self._given, None
        if given is None or given[1].grad is None:
            return
        rows, gradient = given[0], given[1].grad
        # With one camera there is nothing to sum.
        self.group.parameter.grad = rows[0] * gradient if len(rows) == 1 else (rows * gradient[:, None]).sum(dim=0)
