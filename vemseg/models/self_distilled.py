"""Self-distilled masked autoencoders: their teacher is the running mean of the student."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from vemseg.models.layers import KeepsExact
from vemseg.models.mae import MaskedAutoencoder
from vemseg.models.vit import ViTEncoder
from vemseg.recipe import SelfDistilledTable, ViTTable


class MeanTeacher(KeepsExact):
    """An exponential moving average of an encoder's parameters, and an encoder with these parameters.

    The mean is kept in float32 whatever type the encoder has, because steps of 0.004 towards the student
    would vanish in the 8 bits of bfloat16. It takes no gradient, and is never in training mode.

    Attributes
    ----------
    encoder : ViTEncoder
        The encoder with the averaged parameters.
    mean : Tensor float32 (n,)
        All averaged parameters, one after the other.
    """

    exact = ("mean",)

    mean: Tensor

    def __init__(self, settings: ViTTable) -> None:
        super().__init__()
        self.encoder = ViTEncoder(settings).requires_grad_(False)
        self.register_buffer("mean", parameters_to_vector(self.encoder.parameters()).clone())
        self.train(False)

    def train(self, mode: bool = True) -> MeanTeacher:
        """Stay in inference mode, whatever ``mode`` says."""
        return super().train(False)

    @torch.no_grad()
    def tokens(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens of all patches of images (b, 1, F, F), or of some: float32 (b, v, dim)."""
        return self.encoder.latent(images, visible)[:, 1:].float()

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Average the mean, with weight ``momentum``, and the student, with the rest of 1."""
        self.mean.lerp_(parameters_to_vector(student.parameters()).float(), 1 - momentum)
        parameters = list(self.encoder.parameters())
        parts = torch.split(self.mean, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))


def momentum_at(settings: SelfDistilledTable, fraction: float) -> float:
    """Return the momentum when a fraction of the training is done: half a cosine between two values."""
    start, end = settings.momentum
    return end - (end - start) * 0.5 * (1 + math.cos(math.pi * fraction))


class SelfDistilled(MaskedAutoencoder):
    """A masked autoencoder with a teacher, which also counts epochs.

    Attributes
    ----------
    teacher : MeanTeacher
        Equals the student when training begins.
    seen : Tensor int64 ()
        Number of samples in this epoch so far.
    begun : Tensor bool ()
        Whether the first batch has been seen.
    """

    settings: SelfDistilledTable
    seen: Tensor
    begun: Tensor

    def __init__(self, settings: SelfDistilledTable, drop_path: float = 0.0) -> None:
        super().__init__(settings, drop_path)
        self.settings = settings
        self.teacher = MeanTeacher(settings)
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("begun", torch.tensor(False))

    def meet(self, images: Tensor) -> bool:
        """Count the samples of a batch; at the first one, copy the student to the teacher and return True."""
        first = not self.begun
        if first:
            self.teacher.follow(self.encoder, 0.0)
            self.begun.fill_(True)
        self.seen += len(images)
        return first

    def after_step(self, fraction: float, generator: torch.Generator) -> None:
        """Let the teacher follow the student, and end the epoch when it is due."""
        ended = bool(self.seen >= self.settings.epoch)
        if ended or self.settings.ema == "step":
            self.teacher.follow(self.encoder, momentum_at(self.settings, fraction))
        if ended:
            self.seen.zero_()
            self.end_epoch(generator)

    def end_epoch(self, generator: torch.Generator) -> None:
        """Do what a method does at the end of an epoch; by default nothing."""
