"""Encoders that give logits for every pixel of a field of view, averaged where fields of view overlap.

Fields of view are laid on one grid of the whole volume, ``stride`` pixels apart. Of each, the middle ``kept``
pixels count, and the logits of a pixel are the mean over the fields of view that keep it. So they depend on
nothing but the voxels within ``halo``, whatever windows a volume is cut into.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from vemseg.budget import Need
from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory, Spacing
from vemseg.models.vit import FIELD_BYTES, ViTEncoder
from vemseg.recipe import SupervisedViTTable

FIELDS = {"cpu": 8}
"""Fields of view that are computed together, by the type of device."""
MOST_FIELDS = 256
"""The same for any other device."""


class WindowedEncoder(Encoder):
    """The averaged logits of classes at every voxel, from single planes.

    Its vectors are the logits, one for each class; they are float32, whatever it computes in.

    Parameters
    ----------
    settings : SupervisedViTTable
        Field of view, classes, and how fields of view overlap.
    """

    def __init__(self, settings: SupervisedViTTable) -> None:
        if not settings.classes:
            raise ValueError("an encoder without classes has no logits: train it with labels")
        super().__init__()
        self.classes, self.dim = settings.classes, len(settings.classes)
        self.edge, self.kept, self.stride = settings.fov, settings.kept, settings.stride
        self.margin = (settings.fov - settings.kept) // 2
        self.patch, self.align = (1, 1, 1), (1, settings.stride, settings.stride)
        reach = self.margin + self.kept - 1
        self.halo = (0, reach, reach)
        self.fov = (1, 1 + 2 * reach, 1 + 2 * reach)
        self.fields = MOST_FIELDS

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of fields of view: float (b, 1, F, F) in [0, 1] -> (b, classes, F, F)."""
        raise NotImplementedError

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the averaged logits of windows: (b, 1, z, y, x) -> float32 (b, z, y, x, classes)."""
        planes, rows, columns = kept or WHOLE
        chosen = windows[:, 0, planes]
        found = [self._plane(plane, rows, columns) for plane in chosen.flatten(0, 1)]
        return torch.stack(found).reshape(*chosen.shape[:2], *found[0].shape)

    forward = encode

    def _plane(self, plane: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return the averaged logits of a part of a plane: (y, x) -> (rows, columns, classes)."""
        corners = [
            (y, x) for y in self._starts(plane.shape[0], rows) for x in self._starts(plane.shape[1], columns)
        ]
        total = torch.zeros(self.dim, *plane.shape, device=plane.device)
        count = torch.zeros(plane.shape, device=plane.device)
        for first in range(0, len(corners), self.fields):
            part = corners[first : first + self.fields]
            images = torch.stack([plane[y : y + self.edge, x : x + self.edge] for y, x in part])
            middle = slice(self.margin, self.margin + self.kept)
            for (y, x), logits in zip(part, self.logits(images[:, None]).float(), strict=True):
                place = (
                    slice(y + self.margin, y + self.margin + self.kept),
                    slice(x + self.margin, x + self.margin + self.kept),
                )
                total[:, *place] += logits[:, middle, middle]
                count[place] += 1
        return (total / count.clamp_min(1))[:, rows, columns].permute(1, 2, 0)

    def _starts(self, n: int, wanted: slice) -> list[int]:
        """Return where the fields of view begin, along an axis of a window, that keep a wanted pixel."""
        low, high, _ = wanted.indices(n)
        starts = range(0, n - self.edge + 1, self.stride)
        return [at for at in starts if at + self.margin < high and at + self.margin + self.kept > low]

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Make the encoder ready for inference, with as many fields of view at a time as suit the device."""
        self.fields = FIELDS.get(device.type, MOST_FIELDS)
        return super().prepare(device, dtype)

    def memory(self, batch: int) -> Memory:
        """Return the memory for the fields of view that are computed together, sums, and logits."""
        fields = self.fields * self.edge**2 * (FIELD_BYTES + 8 * self.dim)
        logits = Need(point=8.0 * self.dim, pixel=8.0 * self.dim + 4.0)
        return Memory(fields, logits, Need(point=4.0 * self.dim))


class TokenClassifier(WindowedEncoder):
    """MAESTER's encoder, whose class token is dropped, and a head that turns tokens into logits.

    Parameters
    ----------
    settings : SupervisedViTTable
    spacing : (float, float, float)
        Not used: it sees single planes.
    """

    make_head: ClassVar[type[nn.Module]]
    """Makes the head: tokens (b, n, dim) -> logits (b, classes, F, F)."""

    def __init__(self, settings: SupervisedViTTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> None:
        super().__init__(settings)
        self.vit = ViTEncoder(settings)
        self.head = type(self).make_head(settings)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of fields of view: (b, 1, F, F) -> (b, classes, F, F)."""
        found: Tensor = self.head(self.vit.latent(images)[:, 1:])
        return found
