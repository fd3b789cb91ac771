"""The objective of an encoder that knows organelles: tell the class of every place, in synthetic tissue.

Where a vector stands for 2 x 2 pixels in two slices, its target is the share of each class among these eight
voxels. Its first numbers are the logits of the classes. Volumes without labels may be learned from in the
same batch, by the objective of :mod:`vemseg.models.invariance`, which then acts on the rest of the vector.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, log_softmax

from vemseg.batch import UNKNOWN, Batch
from vemseg.models.averaged import AveragedObjective
from vemseg.models.invariance import Invariance
from vemseg.models.objective import Objective, Preview
from vemseg.models.unet import PATCH, UNetEncoder
from vemseg.models.views import Viewer
from vemseg.recipe import UNetTable

RARE = 2e-3
"""Added to the share of a class in a batch before the classes are weighed by it."""


class Recognition(AveragedObjective):
    """Cross-entropy of classes on windows with labels, and the terms of ``Invariance`` on all others.

    Raises
    ------
    ValueError
        Where the settings name no classes.
    """

    encoder: UNetEncoder
    learner: UNetEncoder

    def __init__(self, settings: UNetTable) -> None:
        if not settings.classes:
            raise ValueError("an encoder without classes cannot be taught to recognise them")
        invariance = Invariance(settings)
        super().__init__(invariance.encoder, settings.average)
        self.settings, self.views = settings, Viewer(settings)
        self.invariance, self.window = invariance, invariance.window

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss``, ``recognition``, ``accuracy`` and the terms of ``Invariance`` where they count."""
        if batch.labels is None:
            alone: dict[str, Tensor] = self.invariance(batch, generator)
            return alone
        known = labelled(batch.labels) if batch.labelled is None else batch.labelled
        terms: dict[str, Tensor] = {}
        loss = torch.zeros((), device=batch.images.device)
        if known.any():
            terms = self._recognise(batch.images[known, 0], batch.labels[known], generator)
            loss = self.settings.recognition * terms["recognition"]
        if not known.all():
            others = self.invariance(Batch(batch.images[~known]), generator)
            loss = loss + others.pop("loss")
            terms |= others
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def _recognise(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        seen, known = self.views.seen(images, labels, generator)
        logits, shares = seen_classes(
            self.learner, seen, self.views.middle(known), len(self.settings.classes)
        )
        right = (logits.argmax(dim=1) == shares.argmax(dim=1)).float().mean()
        return {"recognition": weighed_entropy(logits, shares, self.settings.balance), "accuracy": right}

    def preview(self, batch: Batch, generator: torch.Generator) -> Preview | None:
        """Return reconstructions as ``Invariance`` makes them, where they are learned."""
        return self.invariance.preview(batch, generator) if self.settings.reconstruction else None


def labelled(labels: Tensor) -> Tensor:
    """Return which samples have a known voxel, bool (b,) on the CPU: labels (b, d, h, w)."""
    return (labels != UNKNOWN).flatten(1).any(dim=1).cpu()


def seen_classes(encoder: UNetEncoder, seen: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return what an encoder takes for the classes of patches, and their shares there.

    Parameters
    ----------
    encoder : UNetEncoder
    seen : Tensor float32 (b, slices, y, x)
        Views of regions.
    labels : Tensor (b, 2, y, x)
        Classes in the two middle slices.
    count : int
        Number of classes; a vector begins with their logits.

    Returns
    -------
    logits, shares : Tensor float32 (b, classes, y', x')
        One number for each patch, laid out as :func:`class_shares` does.
    """
    logits = side_by_side(encoder.maps(seen)[:, :, :count].float())
    return logits, class_shares(labels, count, PATCH // encoder.pieces)


def side_by_side(maps: Tensor) -> Tensor:
    """Put the planes of maps of vectors below each other: (b, p, d, y, x) -> (b, d, p * y, x)."""
    return maps.transpose(1, 2).flatten(2, 3)


def class_shares(labels: Tensor, count: int, patch: int) -> Tensor:
    """Return the share of each class among the voxels of each patch.

    Parameters
    ----------
    labels : Tensor uint8 (b, 2, y, x)
        Classes in the two middle slices; those from ``count`` on, and unknown ones, count as none.
    count : int
    patch : int
        Edge of a patch: 2 voxels, or a single one.

    Returns
    -------
    Tensor float32 (b, count, y / 2, x / 2), or (b, count, 2 * y, x) for patches of a voxel
        In the second case the slices lie below each other.
    """
    if patch == 1:
        labels = labels.flatten(1, 2)
        return torch.stack([labels == k for k in range(count)], dim=1).float()
    found = [avg_pool2d((labels == k).float().mean(dim=1, keepdim=True), patch) for k in range(count)]
    return torch.cat(found, dim=1)


def weighed_entropy(logits: Tensor, shares: Tensor, balance: float, known: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of logits and shares (b, classes, y, x), rare classes counting more.

    Parameters
    ----------
    balance : float
        A class weighs as its share in the batch to the power of minus this: 0 for equal weights of voxels,
        1 for equal weights of classes. The weights average to 1 over the batch.
    known : Tensor bool (b, y, x), optional
        The places that count; the shares are 0 at all others. By default all count.
    """
    part = 1.0 if known is None else known.double().mean().clamp_min(1 / known.numel()).float()
    share = shares.mean(dim=(0, 2, 3)) / part
    weights = (share + RARE) ** -balance
    weights = weights / (weights * share).sum().clamp_min(1e-6)
    return -(shares * log_softmax(logits, dim=1) * weights[:, None, None]).sum(dim=1).mean() / part


def teaching(settings: UNetTable) -> Objective:
    """Return the objective of a dense encoder: to recognise classes where it has some, else invariance."""
    return Recognition(settings) if settings.classes else Invariance(settings)
