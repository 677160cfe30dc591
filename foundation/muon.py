"""Muon: momentum made orthogonal, which reaches a loss in fewer steps than AdamW."""

from typing import Any

import torch
from torch import Tensor


def orthogonalise(matrix: Tensor) -> Tensor:
    """Set the singular values of a matrix to about one by Newton-Schulz (Jordan et al., 2024)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (2.0315 * gram @ gram - 4.7750 * gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.AdamW):
    """Muon for matrices and convolution kernels, AdamW for biases and norms, at one learning rate.

    Updates have the root mean square of AdamW's (Liu et al., 2025), so its learning rates carry
    over. PyTorch's own Muon takes no kernels, and computes in bfloat16, which is 16 times slower on
    a CPU that lacks it.
    """

    momentum = 0.95

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the matrices, then let AdamW update the rest."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2 or parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:  # AdamW wants a step in every state that it loads
                    state |= {"momentum": torch.zeros_like(parameter), "step": torch.zeros(())}
                average = state["momentum"]
                average.lerp_(parameter.grad, 1 - self.momentum)
                ahead = parameter.grad.lerp(average, self.momentum)
                update = orthogonalise(ahead.flatten(1)).view_as(parameter)
                scale = 0.2 * max(len(parameter), parameter[0].numel()) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                    update, alpha=-group["lr"] * scale
                )
                parameter.grad = None  # so that AdamW skips it
        super().step(closure)
