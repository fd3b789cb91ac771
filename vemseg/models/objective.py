"""What training minimises: the contract between a method and the training loop.

Everything random about step ``t`` comes from the generator that the loop makes from (seed, t), so that a
resumed run repeats an uninterrupted one exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vemseg.batch import Batch
from vemseg.geometry import ZYX
from vemseg.models.encoder import Encoder


@dataclass(frozen=True)
class Preview:
    """What a reconstruction picture shows: images, what the encoder saw of them, what came out.

    Attributes
    ----------
    images, masked, predictions : Tensor float32 (b, h, w)
        Intensities in [0, 1]; masked pixels are NaN in ``masked``.
    """

    images: Tensor
    masked: Tensor
    predictions: Tensor


class Objective(nn.Module):
    """A loss over batches, the encoder it trains, and what it needs besides.

    What an objective holds besides its trained parameters (buffers, a teacher's parameters) is saved with
    them in checkpoints, so that training can go on.

    Attributes
    ----------
    window : (int, int, int)
        Planes, rows and columns of the windows it wants, in voxels.
    encoder : Encoder
        The part that a run keeps.
    charts : dict of str to tuple of str
        Pictures of the course of training, by name: the scalars that each of them shows.
    """

    charts: ClassVar[dict[str, tuple[str, ...]]] = {}

    window: ZYX
    encoder: Encoder

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss``, which is minimised, and other scalars to be reported, by name.

        Parameters
        ----------
        batch : Batch
            Windows of the shape of ``window``.
        generator : torch.Generator
            On the CPU; all that may decide on this step.
        """
        raise NotImplementedError

    def after_step(self, fraction: float, generator: torch.Generator) -> None:
        """Update what the optimiser does not.

        Parameters
        ----------
        fraction : float
            Part of the run that was done when the step began, 0 to 1.
        generator : torch.Generator
            Goes on where the step left it.
        """

    def preview(self, batch: Batch, generator: torch.Generator) -> Preview | None:
        """Return reconstructions of a batch to be drawn, or None where there are none."""
        return None

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return scores of a batch that is not learnt from, by name; none where nothing is examined."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved beside the encoder's weights, by name."""
        return {}


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the random numbers an objective may use in one step."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)
