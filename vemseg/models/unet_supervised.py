"""The dense encoder, taught by labels: for a user with a few labelled slices.

It begins with the weights of any dense encoder, such as the bundled ones, but for its last layer, and learns
the classes of the labels under the same changes of contrast, noise and blur by which
:mod:`vemseg.models.recognition` learns from synthetic tissue. A patch of 2 x 2 x 2 voxels counts as far as
its voxels are known.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vemseg.batch import Batch
from vemseg.models.averaged import AveragedObjective
from vemseg.models.encoder import Encoder
from vemseg.models.recognition import classes_and_shares, weighed_entropy
from vemseg.models.supervision import dice, dice_charts, labels_of, overlaps
from vemseg.models.unet import PATCH, UNetEncoder
from vemseg.models.views import Viewer
from vemseg.ranks import divided
from vemseg.recipe import UNetSupervisedTable

LAST = "head."
"""Beginning of the names of the tensors of the last layer."""


class LabelledUNet(AveragedObjective):
    """Cross-entropy of the patches that hold known voxels, rare classes counting more.

    Raises
    ------
    ValueError
        Where the settings name no classes.
    """

    divides = True

    encoder: UNetEncoder
    learner: UNetEncoder

    def __init__(self, settings: UNetSupervisedTable) -> None:
        if not settings.classes:
            raise ValueError("an encoder without classes cannot be taught by labels")
        super().__init__(UNetEncoder(settings), settings.average)
        self.settings, self.views = settings, Viewer(settings)
        self.window = self.views.window
        self.charts = dice_charts(settings.classes)

    def begin_with(self, encoder: Encoder) -> None:
        """Take over the weights of a dense encoder; the last layer only from one of the same classes."""
        given = encoder.state_dict()
        if (encoder.classes, encoder.dim) != (self.learner.classes, self.learner.dim):
            own = self.learner.state_dict()
            given = {name: own[name] if name.startswith(LAST) else value for name, value in given.items()}
        self.take_over(given)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and ``accuracy`` for labelled regions, (b, 1, slices + 2 drift, F, F)."""
        seen, labels = self.views.seen(batch.images[:, 0], labels_of(batch), generator)
        maps = divided(self.learner.maps, seen)[:, :, : len(self.settings.classes)].float()
        logits, shares = classes_and_shares(self.learner, maps, self.views.middle(labels))
        known = shares.sum(dim=1) > 0
        right = ((logits.argmax(dim=1) == shares.argmax(dim=1)) & known).sum() / known.sum().clamp_min(1)
        return {"loss": weighed_entropy(logits, shares, self.settings.balance, known), "accuracy": right}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return the counts of voxels that Dice is made of, in the two middle slices of unchanged regions."""
        whole = torch.zeros(len(batch), 3, dtype=torch.int64)
        whole[:, 0] = self.settings.drift
        seen, labels = (self.views.cut(x, whole) for x in (batch.images[:, 0], labels_of(batch)))
        maps = self.encoder.maps(seen.to(self.encoder.dtype)).float()
        factor = PATCH // self.encoder.pieces
        logits = maps if factor == 1 else _enlarged(maps, factor)
        found = logits.argmax(dim=2).expand(-1, 2, -1, -1)
        return overlaps(found, self.views.middle(labels), self.settings.classes)

    def scores(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return Dice of each class, and its mean over the classes."""
        return dice(means, self.settings.classes)


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    """Enlarge maps (b, p, d, y, x) in the plane, bilinear."""
    flat = interpolate(maps.flatten(0, 1), scale_factor=factor, mode="bilinear")
    return flat.reshape(*maps.shape[:2], *flat.shape[1:])
