"""HiS4MAE (ICLR submission, section 3.2): a masked autoencoder, self-distilled through a codebook."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss

from vemseg.batch import Batch
from vemseg.models.codebook import CODES, Codebook, perplexity
from vemseg.models.layers import take_tokens
from vemseg.models.mae import Masking
from vemseg.models.self_distilled import SelfDistilled
from vemseg.ranks import divided
from vemseg.recipe import His4maeTable


class His4mae(SelfDistilled):
    """The loss of equation 5: reconstruction + alpha MSE(teacher, code) + beta (1 - cosine(code, student)).

    The codes are those nearest to the teacher's tokens at the places that the student sees. The second term
    changes only the codebook, the third only the student; the decoder gets the student's tokens, not the
    codes. The paper leaves all of this open, and also when a code counts as isolated (see ``His4maeTable``).
    """

    charts: Mapping[str, tuple[str, ...]] = {"codes": ("codes_used", "codes_perplexity", "codes_isolated")}

    settings: His4maeTable

    def __init__(self, settings: His4maeTable) -> None:
        super().__init__(settings)
        self.codebook = Codebook(settings.codes, settings.dim)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its terms for a batch of fields of view, (b, 1, 1, F, F).

        Returns
        -------
        dict of str to Tensor ()
            ``loss`` and its unweighted terms ``reconstruction`` (equation 2), ``codebook`` (3) and
            ``student`` (4); ``codes_used`` and ``codes_perplexity`` of this batch; ``codes_isolated`` at the
            end of the last epoch.
        """
        images = batch.images[:, :, 0]
        first = self.meet(images)
        masking = self.hide(images, generator)
        latent = divided(self.encoder.latent, images, masking.visible)
        pixels = divided(lambda x, *hidden: self.pixels(x, Masking(*hidden)), latent, *masking)
        where = masking.mask if self.settings.loss_on == "masked" else torch.ones_like(masking.mask)
        reconstruction = self.pixel_error(images, pixels, where)
        target = divided(self._targets, images, masking.visible).flatten(0, 1)
        if first:
            self.codebook.begin(target, generator)
        usage, codes = self.codebook(target)
        codebook = mse_loss(codes, target)
        own = latent[:, 1:].flatten(0, 1).float()
        student = 1 - cosine_similarity(codes.detach(), own, dim=-1).mean()
        return {
            "loss": reconstruction + self.settings.codebook * codebook + self.settings.student * student,
            "reconstruction": reconstruction.detach(),
            "codebook": codebook.detach(),
            "student": student.detach(),
            "codes_used": (usage > 0).sum(),
            "codes_perplexity": perplexity(usage),
            "codes_isolated": self.codebook.isolated.clone(),
        }

    def _targets(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return the teacher's tokens at the visible places: float32 (b, v, dim)."""
        if self.settings.teacher_sees == "visible":
            return self.teacher.tokens(images, visible)
        return take_tokens(self.teacher.tokens(images), visible)

    def tensors(self) -> dict[str, Tensor]:
        """Return the codebook, float32 (codes, dim)."""
        return {CODES: self.codebook.codes}

    def end_epoch(self, generator: torch.Generator) -> None:
        """Revive isolated codes."""
        self.codebook.revive(self.settings.pull, self.settings.isolated, generator)
