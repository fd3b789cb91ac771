"""Self-training: an encoder learns the classes that it finds in a volume, beside those of synthetic tissue.

The classes found in the volume are clusters of the encoder's own vectors, averaged over planes, where they
are sure. To tell them from single planes, under changes of contrast, noise and hidden squares, the encoder
has to look at shape and surroundings (as in Lee, Pseudo-Label, ICML Workshop 2013, and Xie et al., Noisy
Student, CVPR 2020). Synthetic tissue in the same batch keeps it from forgetting what organelles look like.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vemseg.batch import Batch, Pair
from vemseg.models.objective import Objective
from vemseg.models.recognition import class_shares, weighed_entropy
from vemseg.models.unet import UNetEncoder
from vemseg.models.views import Viewer
from vemseg.recipe import UNetTable


class SelfTraining(Objective):
    """Cross-entropy of the classes found in a volume and of the classes of synthetic tissue.

    Parameters
    ----------
    settings : UNetTable
        Settings of the encoder, whose vectors hold logits of ``classes``, then of the classes found.
    start : UNetEncoder
        The encoder to begin with, without the classes found.
    """

    encoder: UNetEncoder

    def __init__(self, settings: UNetTable, start: UNetEncoder) -> None:
        super().__init__()
        self.settings, self.views = settings, Viewer(settings)
        self.window = self.views.window
        self.encoder = UNetEncoder(settings)
        self.encoder.begin_with(start)

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
        logits, middle = self.encoder.maps(seen).float(), self.views.middle(labels)
        n = len(self.settings.classes)
        known, found = logits[:, :n], logits[:, n:]
        real = batch.volume == 0
        own, new = Pair.parts(middle[real])
        terms = {
            "found": self._entropy(found[real], new),
            "kept": self._entropy(known[real], own),
            "recognition": self._entropy(known[~real], middle[~real]),
        }
        loss = sum(terms.values(), start=logits.new_zeros(()))
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def _entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of some windows, 0 where there are none."""
        if not len(logits):
            return logits.sum()
        return weighed_entropy(logits, class_shares(labels, logits.shape[1]), self.settings.balance)
