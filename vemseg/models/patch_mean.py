"""The simplest encoder: the mean intensity of each patch, by which classes are put in order."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool3d

from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory


class PatchMean(Encoder):
    """Average intensities over the patches of another encoder.

    Parameters
    ----------
    like : Encoder
        The encoder whose windows and patches are used.
    """

    dim = 1

    def __init__(self, like: Encoder) -> None:
        super().__init__()
        self.fov, self.patch, self.fixed_fov = like.fov, like.patch, like.fixed_fov
        self.halo, self.align, self.pads = like.halo, like.align, like.pads

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the means of patches: (b, 1, z, y, x) -> float32 (b, gz, gy, gx, 1).

        Windows that were resampled for an encoder in bfloat16 have intensities of 8 binary digits.
        """
        z, y, x = (
            slice(part.indices(n // p)[0] * p, part.indices(n // p)[1] * p)
            for part, n, p in zip(kept or WHOLE, windows.shape[2:], self.patch, strict=True)
        )
        return avg_pool3d(windows[:, :, z, y, x].float(), self.patch)[:, 0, ..., None]

    def memory(self, batch: int) -> Memory:
        """Return no memory: it takes little beside the encoder that it goes with."""
        return Memory()
