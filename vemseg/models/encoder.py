"""The contract of every encoder: windows of voxels in, one vector for each patch of them out.

An encoder tells how large its windows are, how much of a window a vector depends on, and how much memory
encoding takes. Code that applies an encoder to a volume asks it and never looks at its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from vemseg.budget import Need
from vemseg.geometry import ZYX
from vemseg.models.layers import choose_attention
from vemseg.recipe import EmbedTable
from vemseg.tiling import Placement

Kept = tuple[slice, slice, slice]
"""Which patches of a window are wanted, as an index into its patches along z, y and x."""

Spacing = tuple[float, float, float]
"""Edges of the working voxels in units of the shortest, z, y, x."""

NOTHING = Need()
"""No memory."""

WHOLE: Kept = (slice(None), slice(None), slice(None))
"""All patches of a window."""


@dataclass(frozen=True)
class Memory:
    """The memory that encoding takes on the encoder's device.

    The planner compares thousands of ways to cut a volume. So it is not told the bytes for one window, but
    what each voxel, vector and pixel adds.

    Attributes
    ----------
    fixed : int
        Bytes that are needed whatever size the window has.
    encoding : Need
        What is needed while a window is encoded, including its vectors.
    encoded : Need
        What is still needed once it is encoded: its vectors, and what cannot be freed yet.
    """

    fixed: int = 0
    encoding: Need = NOTHING
    encoded: Need = NOTHING

    def plus(self, encoding: Need, encoded: Need) -> Memory:
        """Return this memory plus what a wrapper around the encoder needs."""
        return Memory(self.fixed, self.encoding + encoding, self.encoded + encoded)


class Encoder(nn.Module):
    """Base of all encoders.

    Attributes
    ----------
    fov, patch : (int, int, int)
        The largest box of voxels that a vector depends on, and the box of voxels that it describes.
    dim : int
        Length of a vector.
    classes : tuple of str
        Names of the classes that the encoder itself tells apart; the first ``len(classes)`` numbers of a
        vector are their logits. Empty if it knows none.
    fixed_fov : bool
        Whether a vector depends on where in the field of view it lies. If so, every window is one field of
        view; otherwise windows may have any size, as long as they include ``halo`` voxels of context.
    halo : (int, int, int)
        Voxels on each side of a patch that its vector depends on, if the field of view is not fixed: ``fov``
        is ``patch + 2 * halo`` then. A multiple of ``patch``.
    align : (int, int, int)
        Windows start at multiples of this many voxels, counted from the first patch of the volume.
    pads : bool
        If True, windows end at the border of the volume and the encoder pads them itself; if False, the
        volume is mirrored at its border.
    sweeps : tuple of int
        The axes across which single planes are encoded; context along them only has to be read, not encoded.
        Empty if whole windows are encoded.
    streams : bool
        Whether :meth:`layers` gives the vectors of a window a few layers at a time.
    workers : int
        How many parts of a window, or small windows, are encoded at the same time (``models.workers``);
        :meth:`memory` counts all of them.
    """

    fov: ZYX
    patch: ZYX
    dim: int
    classes: tuple[str, ...] = ()
    fixed_fov: bool = False
    halo: ZYX = (0, 0, 0)
    align: ZYX = (1, 1, 1)
    pads: bool = False
    sweeps: tuple[int, ...] = ()
    streams: bool = False
    workers: int = 1

    @property
    def margins(self) -> ZYX:
        """Voxels around the wanted patches, z y x, that are encoded on average over the layers.

        They say how much work context is: ``halo``, unless later layers compute less of it.
        """
        return self.halo

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that windows should have."""
        return torch.float32

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows.

        Parameters
        ----------
        windows : Tensor float (b, 1, z, y, x)
            Intensities in [0, 1]; of size ``fov`` if the field of view is fixed.
        kept : three slices, optional
            The patches wanted; by default all. The vector of a patch is wrong if it is nearer than ``halo``
            to a side of the window that is not a border of the volume.

        Returns
        -------
        Tensor float (b, gz, gy, gx, dim)
        """
        raise NotImplementedError

    def layers(self, window: Tensor, kept: Kept) -> Iterator[Tensor]:
        """Yield the vectors of one window (1, 1, z, y, x), a few layers (n, gy, gx, dim) at a time."""
        yield self.encode(window, kept)[0]

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Make the encoder ready for inference on a device, in a floating-point type; it trains no more."""
        choose_attention(self, device, training=False)
        return self.to(device, dtype).eval().requires_grad_(False)

    def slab(self, edge: int) -> ZYX | None:
        """Return the shape of the windows that :meth:`normalise` needs, at most ``edge`` voxels wide.

        None if the encoder has nothing to adjust, or ``edge`` is too small.
        """
        return None

    def normalise(self, windows: Tensor) -> None:
        """Adjust to the grey values of a volume, given a sample of its windows (n, 1, z, y, x)."""

    def information(self, windows: Tensor) -> float:
        """Return how much the encoder's own classes say about windows (n, 1, z, y, x), in nats.

        That is the mutual information between places and classes: the entropy of the mean class distribution
        minus the mean entropy. 0 for an encoder that knows no classes.
        """
        return 0.0

    def placements(self, table: EmbedTable) -> tuple[Placement, Placement, Placement]:
        """Return how the fields of view are laid along z, y and x.

        The settings of a recipe count where the field of view is fixed; otherwise windows are laid side by
        side. A field of view that is a single patch gives a vector every ``stride`` voxels (expand-stride) or
        at every voxel (cover-and-stride), or fields of view are laid side by side (whole-slice). Along an
        axis on which a field of view has fewer voxels, the stride shrinks in proportion.

        Raises
        ------
        ValueError
            Where the halo of an encoder is not a multiple of its patch.
        """
        if any(halo % patch for halo, patch in zip(self.halo, self.patch, strict=True)):
            raise ValueError(f"a halo of {self.halo} voxels is not a multiple of the patch, {self.patch}")
        z, y, x = (
            self._placement(fov, patch, table) for fov, patch in zip(self.fov, self.patch, strict=True)
        )
        return z, y, x

    def _placement(self, fov: int, patch: int, table: EmbedTable) -> Placement:
        if not self.fixed_fov:
            return Placement(fov, patch, patch, patch)
        if fov == patch:
            widest = max(self.fov)
            stride = {"cover-and-stride": 1, "whole-slice": widest}.get(table.placement, table.stride)
            return Placement(fov, fov, max(1, min(stride, widest) * fov // widest), fov)
        match table.placement:
            case "cover-and-stride":
                return Placement(fov, patch, table.kept * patch, 1)
            case "whole-slice":
                return Placement(fov, patch, fov, patch)
            case _:
                return Placement(fov, patch, table.stride, patch)

    def memory(self, batch: int) -> Memory:
        """Return the memory that encoding takes; fixed fields of view are encoded ``batch`` at a time."""
        raise NotImplementedError
