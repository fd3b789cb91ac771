"""Objectives that keep a running mean of the encoder they train."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from vemseg.models.encoder import Encoder
from vemseg.models.objective import Objective
from vemseg.models.running_mean import RunningMean
from vemseg.modules import Keeps


class AveragedObjective(Keeps, Objective):
    """An objective that trains ``learner`` and keeps ``encoder``, the running mean of its weights.

    What single steps learn of synthetic tissue carries over to real tissue less well than their mean
    (Tarvainen, Valpola, NIPS 2017; Izmailov et al., UAI 2018).

    Attributes
    ----------
    learner : Encoder
        Another module than ``encoder`` where there is a mean, else the same.

    Parameters
    ----------
    learner : Encoder
    average : float
        How much of the mean stays in a step; 0 for no mean.
    """

    on_host = ("steps",)

    learner: Encoder
    steps: Tensor

    def __init__(self, learner: Encoder, average: float) -> None:
        super().__init__()
        self.learner, self.average = learner, average
        self.encoder = copy.deepcopy(learner) if average else learner
        self.mean = RunningMean(self.encoder) if average else None
        self.register_buffer("steps", torch.tensor(0))

    def begin_with(self, encoder: Encoder) -> None:
        """Take over the weights of an encoder of the same sizes."""
        self.take_over(encoder.state_dict())

    def take_over(self, weights: Mapping[str, Tensor]) -> None:
        """Let the trained encoder and its mean begin with these weights."""
        self.learner.load_state_dict(weights)
        if self.mean is not None:
            self.mean.follow(self.learner, 0.0)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts but the running mean, which is always in inference mode."""
        super().train(mode)
        if self.mean is not None:
            self.mean.train(False)
        return self

    def stays(self) -> float:
        """Return how much of the mean stays in this step: little at first, when the weights are new."""
        return min(self.average, float((self.steps + 1) / (self.steps + 10)))

    def after_step(self, fraction: float, generator: torch.Generator) -> None:
        """Let the encoder that is kept follow the one that is trained."""
        if self.mean is not None:
            self.mean.follow(self.learner, self.stays())
            self.steps += 1
