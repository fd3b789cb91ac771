"""Self-distilled masked autoencoders: their teacher is the running mean of the student."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vemseg.models.mae import MaskedAutoencoder
from vemseg.models.running_mean import RunningMean
from vemseg.models.vit import ViTEncoder
from vemseg.modules import Keeps
from vemseg.recipe import SelfDistilledTable, ViTTable


class MeanTeacher(RunningMean):
    """The running mean of a vision transformer, which gives tokens of patches."""

    encoder: ViTEncoder

    def __init__(self, settings: ViTTable) -> None:
        super().__init__(ViTEncoder(settings))

    @torch.no_grad()
    def tokens(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens of all patches of images (b, 1, F, F), or of some: float32 (b, v, dim)."""
        return self.encoder.latent(images, visible)[:, 1:].float()


def momentum_at(settings: SelfDistilledTable, fraction: float) -> float:
    """Return the momentum when a fraction of the training is done: half a cosine between two values."""
    start, end = settings.momentum
    return end - (end - start) * 0.5 * (1 + math.cos(math.pi * fraction))


class SelfDistilled(Keeps, MaskedAutoencoder):
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

    on_host = ("seen", "begun")

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
        first = not bool(self.begun)
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
