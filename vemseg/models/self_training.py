"""Self-training: an encoder learns the classes that it finds in a volume, beside those of synthetic tissue.

The classes found in the volume are clusters of the encoder's own vectors, averaged over planes, where they
are sure. To tell them from single planes, under changes of contrast, noise and hidden squares, the encoder
has to look at shape and surroundings (as in Lee, Pseudo-Label, ICML Workshop 2013, and Xie et al., Noisy
Student, CVPR 2020). Synthetic tissue in the same batch keeps it from forgetting what organelles look like.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vemseg.batch import Batch, Pair
from vemseg.models.averaged import AveragedObjective
from vemseg.models.recognition import class_shares, side_by_side, weighed_entropy
from vemseg.models.unet import PATCH, UNetEncoder
from vemseg.models.views import Viewer
from vemseg.recipe import UNetTable


class SelfTraining(AveragedObjective):
    """Cross-entropy of the classes found in a volume, of the encoder's own there, and of synthetic tissue.

    The running mean begins with the weights that training begins with, so that what is kept lies between
    these and the trained ones (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).

    Parameters
    ----------
    settings : UNetTable
        Settings of the encoder.
    start : UNetEncoder
        The encoder to begin with.
    found : int
        Number of classes found in the volume. They are told by a layer of their own, which is not kept.
    """

    encoder: UNetEncoder
    learner: UNetEncoder

    def __init__(self, settings: UNetTable, start: UNetEncoder, found: int) -> None:
        super().__init__(UNetEncoder(settings), settings.average)
        # both change synthetic tissue only, and a batch here has windows of the volume with labels, too
        plain = settings.model_copy(update={"restain": 0.0, "texture": 0.0})
        self.settings, self.views = settings, Viewer(plain)
        self.window = self.views.window
        self.begin_with(start)
        self.found = found
        self.head = nn.Conv2d(self.learner.width, self.learner.pieces**3 * found, 1)

    def stays(self) -> float:
        """Return how much of the mean stays in each step: no less at first, when it is of good weights."""
        return self.average

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its terms: classes ``found``, own classes ``kept``, and ``recognition``.

        Parameters
        ----------
        batch : Batch
            The first source is the volume, labelled with ``Pair`` of its own classes and those found; the
            others are synthetic tissue.
        generator : torch.Generator
        """
        assert batch.labels is not None and batch.volume is not None
        seen, labels = self.views.seen(batch.images[:, 0], batch.labels, generator)
        middle, real = self.views.middle(labels), batch.volume == 0
        trunk = self.learner.features(seen)
        known, count = self.learner.head(trunk).float(), len(self.settings.classes)
        own, new = Pair.parts(middle[real])
        terms = {
            "found": self._entropy(self.head(trunk[real]).float(), new, self.found),
            "kept": self._entropy(known[real], own, count),
            "recognition": self._entropy(known[~real], middle[~real], count),
        }
        loss = sum(terms.values(), start=known.new_zeros(()))
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def _entropy(self, given: Tensor, labels: Tensor, count: int) -> Tensor:
        """Return the cross-entropy of the ``count`` classes of a last layer, 0 where there are no windows."""
        if not len(given):
            return given.sum()
        logits = side_by_side(self.learner.spread(given)[:, :, :count])
        shares = class_shares(labels, count, PATCH // self.learner.pieces)
        return weighed_entropy(logits, shares, self.settings.balance)
