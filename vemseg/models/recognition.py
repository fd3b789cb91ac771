"""The objective of an encoder that knows organelles: tell the class of every place, in synthetic tissue.

Where a vector stands for 2 x 2 pixels in two slices, its target is the share of each class among these eight
voxels. Its first numbers are the logits of the classes. Volumes without labels may be learned from in the
same batch, in three ways: by the objective of :mod:`vemseg.models.invariance`; as texture, which is laid over
synthetic tissue so that it looks more like what microscopes give; and by agreement, in which the classes that
the running mean of the encoder sees in a region are learned from a turned and disturbed view of it (mean
teacher: Tarvainen, Valpola, NIPS 2017; with sure places only: Sohn et al., FixMatch, NeurIPS 2020).
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
from vemseg.models.views import Turn, Viewer
from vemseg.ranks import divided
from vemseg.recipe import UNetTable

SURE = 0.6
"""Places count for the agreement where the mean of the encoder gives a class at least this probability."""
RAMP = 2000
"""The weight of the agreement rises over the first so many steps, in which there is little to agree on."""
RARE = 2e-3
"""Added to the share of a class in a batch before the classes are weighed by it."""


class Recognition(AveragedObjective):
    """Cross-entropy of classes on windows with labels; ``Invariance`` and agreement on all others.

    Raises
    ------
    ValueError
        Where the settings name no classes.
    """

    divides = True

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
        others = batch.images[~known]
        terms: dict[str, Tensor] = {}
        loss = torch.zeros((), device=batch.images.device)
        if known.any():
            terms = self._recognise(batch.images[known, 0], batch.labels[known], others[:, 0], generator)
            loss = self.settings.recognition * terms["recognition"]
            if "agreement" in terms:
                loss = loss + self._ramp() * terms["agreement"]
        if len(others) and self._invariant:
            more = self.invariance(Batch(others), generator)
            loss = loss + more.pop("loss")
            terms |= more
        if not terms:  # nothing in the batch counts, so the step changes nothing
            loss = 0.0 * self.learner.head.weight.sum()
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    @property
    def _invariant(self) -> bool:
        """Whether any term of ``Invariance`` counts."""
        s = self.settings
        return any((s.invariance, s.variance, s.covariance, s.reconstruction))

    def _ramp(self) -> Tensor:
        """Return the weight of the agreement in this step."""
        return self.settings.agreement * (self.steps / RAMP).clamp(max=1.0)

    def _recognise(
        self, images: Tensor, labels: Tensor, others: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the cross-entropy, the accuracy, and the agreement where it counts.

        Views of synthetic tissue and of volumes without labels go through the encoder together, so that its
        batch normalisation has the statistics of both.
        """
        seen, known = self.views.seen(images, labels, generator, others)
        agreeing = self.settings.agreement > 0 and len(others) > 0
        if agreeing:
            turn = Turn.draw(generator)
            clean = self.views.cut(others, self.views.corners(len(others), generator)[0])
            seen = torch.cat([seen, self.views.shown(turn.apply(clean), generator)])
        maps = self._classes(self.learner, seen)
        logits, shares = classes_and_shares(self.learner, maps[: len(images)], self.views.middle(known))
        right = (logits.argmax(dim=1) == shares.argmax(dim=1)).float().mean()
        terms = {"recognition": weighed_entropy(logits, shares, self.settings.balance), "accuracy": right}
        if agreeing:
            theirs = turn.undo(maps[len(images) :].mean(dim=1))
            terms["agreement"] = weighed_entropy(theirs, self._sure(clean), self.settings.balance)
        return terms

    def _classes(self, encoder: UNetEncoder, seen: Tensor) -> Tensor:
        """Return the logits of classes alone: (b, p, classes, y, x), float32."""
        return divided(encoder.maps, seen)[:, :, : len(self.settings.classes)].float()

    @torch.no_grad()
    def _sure(self, clean: Tensor) -> Tensor:
        """Return the probabilities (b, classes, y, x) that the mean of the encoder gives; 0 where unsure."""
        found = self._classes(self.encoder, clean).mean(dim=1).softmax(dim=1)
        return found * (found.amax(dim=1, keepdim=True) >= SURE)

    def preview(self, batch: Batch, generator: torch.Generator) -> Preview | None:
        """Return reconstructions as ``Invariance`` makes them, where they are learned."""
        return self.invariance.preview(batch, generator) if self.settings.reconstruction else None


def labelled(labels: Tensor) -> Tensor:
    """Return which samples have a known voxel, bool (b,) on the CPU: labels (b, d, h, w)."""
    return (labels != UNKNOWN).flatten(1).any(dim=1).cpu()


def classes_and_shares(encoder: UNetEncoder, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of classes and the shares of these, laid out alike.

    Parameters
    ----------
    encoder : UNetEncoder
        Says of how many voxels a patch is.
    maps : Tensor float32 (b, p, classes, y', x')
        The logits that it gave.
    labels : Tensor (b, 2, y, x)
        Classes in the two middle slices.

    Returns
    -------
    logits, shares : Tensor float32 (b, classes, y', x')
        One number for each patch, laid out as :func:`class_shares` does.
    """
    return side_by_side(maps), class_shares(labels, maps.shape[2], PATCH // encoder.pieces)


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

    Counting alone would let the logits overstate rare classes. So the logarithms of the weights are added to
    the logits here, and the logits themselves are those of the classes as often as they come (logit
    adjustment: Menon et al., ICLR 2021).

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
    weights = (weights / (weights * share).sum().clamp_min(1e-6))[:, None, None]
    return -(shares * log_softmax(logits + weights.log(), dim=1) * weights).sum(dim=1).mean() / part


def teaching(settings: UNetTable) -> Objective:
    """Return the objective of a dense encoder: to recognise classes where it has some, else invariance."""
    return Recognition(settings) if settings.classes else Invariance(settings)
