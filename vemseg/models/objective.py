"""The contract of objectives, which training minimises: between a method and the training loop.

Everything random about step ``t`` comes from the generator that the loop makes from (seed, t), so that a
resumed run repeats an uninterrupted one exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from vemseg.batch import Batch
from vemseg.geometry import ZYX
from vemseg.models.encoder import Encoder


@dataclass(frozen=True)
class Preview:
    """The contents of a picture of reconstructions: images, the visible part of them, and predictions.

    Attributes
    ----------
    images, masked, predictions : Tensor float32 (b, h, w)
        Intensities in [0, 1]; masked pixels are NaN in ``masked``.
    """

    images: Tensor
    masked: Tensor
    predictions: Tensor


class Objective(nn.Module):
    """A loss, the encoder that it trains, and all other modules that the loss needs.

    Checkpoints hold the trained parameters of an objective and everything else in it (buffers, the parameters
    of a teacher), so that training can be resumed.

    Attributes
    ----------
    window : (int, int, int)
        Planes, rows and columns of the windows that it is trained on, in voxels.
    encoder : Encoder
        The part that a run keeps as its model.
    charts : mapping of str to tuple of str
        For each chart that is drawn during training, by its name, the scalars that it shows; those of
        held-out data begin with ``held_``.
    divides : bool
        Whether :meth:`forward` calls its networks by ``ranks.divided``, so that several processes may train
        together. Each gets the whole batch and returns the loss of the whole batch.
    shortens : bool
        Whether its weights may be brought to bfloat16 for training.
    """

    charts: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    divides: ClassVar[bool] = False
    shortens: ClassVar[bool] = True

    window: ZYX
    encoder: Encoder

    def begin_with(self, encoder: Encoder) -> None:
        """Take over the weights of an encoder of the same sizes."""
        self.encoder.load_state_dict(encoder.state_dict())

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the ``loss``, which is minimised, and other scalars to report, by name.

        Parameters
        ----------
        batch : Batch
            Windows of the shape of ``window``.
        generator : torch.Generator
            On the CPU; the only source of random numbers in this step.
        """
        raise NotImplementedError

    def after_step(self, fraction: float, generator: torch.Generator) -> None:
        """Update what the optimiser does not update.

        Parameters
        ----------
        fraction : float
            The part of the run that was done when the step began, 0 to 1.
        generator : torch.Generator
            The generator of the step, in the state that :meth:`forward` left it in.
        """

    def preview(self, batch: Batch, generator: torch.Generator) -> Preview | None:
        """Return reconstructions of a batch for a picture, or None if the method has none."""
        return None

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return scores of a held-out batch by name; an empty dict if the method has no such scores."""
        return {}

    def scores(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """Return what is reported of held-out data, given the means of :meth:`validate` over its batches.

        By default these are the scores. A score that is not a mean over batches, such as a ratio of counts,
        is computed here from those that are.
        """
        return means

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are saved beside the encoder's weights, by name."""
        return {}


def device_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return random numbers on a device that follow from those of a step; ``generator`` moves on by one."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def both_generators(
    generator: torch.Generator, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """Return random numbers on the host and on a device that follow from those of a step.

    On the CPU both are the same. What the host needs to know, such as places in a volume, is drawn on the
    host, so that it does not wait for the device.
    """
    host = device_generator(generator, generator.device)
    return host, host if device.type == "cpu" else device_generator(host, device)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the random numbers an objective may use in one step."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)
