"""SdAE (Chen et al., ECCV 2022) and SdAE-recon: they predict the teacher's tokens of masked patches.

SdAE-recon, the baseline of HiS4MAE (section 3.2), adds a second decoder, for the pixels of masked patches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, layer_norm

from vemseg.batch import Batch
from vemseg.models.layers import take_tokens
from vemseg.models.mae import Decoder, Masking
from vemseg.models.objective import Preview
from vemseg.models.self_distilled import SelfDistilled
from vemseg.ranks import divided, here
from vemseg.recipe import SdaeTable


class Sdae(SelfDistilled):
    """1 - cosine(teacher, prediction) at the masked patches, plus the error of their pixels.

    The teacher sees only masked patches, one of ``folds`` random parts of them at a time; its tokens are
    standardised one by one. The weight ``pixels`` of the pixel error is not published.

    The cosine is that of two tokens, as in the paper. This deviates deliberately from the released code,
    which takes the cosine across the tokens of a part, for each channel (the default axis for a batch of
    sequences).
    """

    settings: SdaeTable

    def __init__(self, settings: SdaeTable) -> None:
        super().__init__(settings, settings.drop_path)
        self.predictor = Decoder(settings, settings.dim)
        if not settings.pixels:
            del self.decoder

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its unweighted terms: ``distillation`` and, for SdAE-recon, ``reconstruction``.

        Parameters
        ----------
        batch : Batch
            Fields of view, (b, 1, 1, F, F).
        generator : torch.Generator
            On the CPU; decides what is masked, which parts the teacher sees, and which blocks are skipped.
        """
        images = batch.images[:, :, 0]
        self.meet(images)
        masking = self.hide(images, generator)
        # for stochastic depth, whose draws are the only ones that depend on the number of processes
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)) + here().index)
        latent = divided(self.encoder.latent, images, masking.visible)
        predicted = divided(self.predictor, latent, masking.restore).float()
        theirs = take_tokens(predicted, masking.hidden)
        distillation = 1 - cosine_similarity(theirs, self._told(images, masking), dim=-1).mean()
        if not self.settings.pixels:
            return {"loss": distillation, "distillation": distillation.detach()}
        pixels = divided(lambda x, *hidden: self.pixels(x, Masking(*hidden)), latent, *masking)
        reconstruction = self.pixel_error(images, pixels, masking.mask)
        return {
            "loss": distillation + self.settings.pixels * reconstruction,
            "distillation": distillation.detach(),
            "reconstruction": reconstruction.detach(),
        }

    def _told(self, images: Tensor, masking: Masking) -> Tensor:
        """Return what :meth:`targets` does, each process for a part of the batch."""
        return divided(lambda x, *hidden: self.targets(x, Masking(*hidden)), images, *masking)

    def targets(self, images: Tensor, masking: Masking) -> Tensor:
        """Return the teacher's standardised tokens of the masked patches: float32 (b, n - v, dim)."""
        parts = masking.hidden.tensor_split(self.settings.folds, dim=1)
        tokens = torch.cat([self.teacher.tokens(images, part) for part in parts], dim=1)
        return layer_norm(tokens, tokens.shape[-1:])

    def preview(self, batch: Batch, generator: torch.Generator) -> Preview | None:
        """Return reconstructions as :class:`MaskedAutoencoder` does, or None without a pixel decoder."""
        return super().preview(batch, generator) if self.settings.pixels else None
