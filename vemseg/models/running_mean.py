"""An encoder whose weights are the running mean of those of another one that is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vemseg.modules import Keeps


class RunningMean(Keeps):
    """An exponential moving average of an encoder's parameters, and an encoder with these parameters.

    The mean is kept in float32 whatever type the encoder has, because steps of 0.004 towards the student
    would vanish in the 8 bits of bfloat16. It takes no gradient, and is never in training mode.

    Attributes
    ----------
    encoder : nn.Module
        The encoder with the averaged parameters.
    mean : Tensor float32 (n,)
        All averaged parameters, one after the other.

    Parameters
    ----------
    encoder : nn.Module
        Where the mean begins.
    """

    exact = ("mean",)

    mean: Tensor

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.register_buffer("mean", _flat(self.encoder))
        self.train(False)

    def train(self, mode: bool = True) -> RunningMean:
        """Stay in inference mode, whatever ``mode`` says."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Average the mean, with weight ``momentum``, and the student, with the rest of 1.

        The statistics of batch normalisation, which are buffers, are averaged in the same way.
        """
        self.mean.lerp_(_flat(student).float(), 1 - momentum)
        parameters = list(self.encoder.parameters())
        parts = torch.split(self.mean, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))
        for buffer, theirs in zip(self.encoder.buffers(), student.buffers(), strict=True):
            if buffer.is_floating_point():
                buffer.lerp_(theirs, 1 - momentum)
            else:
                buffer.copy_(theirs)


def _flat(module: nn.Module) -> Tensor:
    """Return a copy of all parameters, one after the other, whatever their layout in memory."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
