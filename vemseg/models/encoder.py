"""The contract of every encoder: windows of voxels in, one vector for each patch of them out.

An encoder says how large its windows are, how much of a window its vectors depend on, and what encoding takes
of memory. Whoever lays it over a volume asks for these and never looks at the class.
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

WHOLE: Kept = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Memory:
    """What encoding takes of the memory of the encoder's device.

    A number of bytes for one window would not do: the planner compares thousands of ways to cut a volume, so
    it is given what each voxel, vector and pixel adds.

    Attributes
    ----------
    fixed : int
        Bytes that are needed whatever the size of the window.
    encoding : Need
        While a window is encoded, its vectors included.
    encoded : Need
        Once it is encoded: its vectors, and what cannot be given up yet.
    """

    fixed: int = 0
    encoding: Need = NOTHING
    encoded: Need = NOTHING

    def plus(self, encoding: Need, encoded: Need) -> Memory:
        """Return this and what a wrapper of the encoder needs besides."""
        return Memory(self.fixed, self.encoding + encoding, self.encoded + encoded)


class Encoder(nn.Module):
    """Base of all encoders.

    Attributes
    ----------
    fov, patch : (int, int, int)
        Voxels that a vector sees at most, and voxels that it stands for.
    dim : int
        Length of a vector.
    fixed_fov : bool
        Whether a vector depends on where in the field of view it lies. If so, windows are fields of view;
        else they may have any size, as long as they bring ``halo`` voxels of context.
    halo : (int, int, int)
        Voxels on each side of a patch that its vector depends on, where the field of view is not fixed.
    align : (int, int, int)
        Windows start at multiples of it, counted from the first patch of the volume.
    pads : bool
        Whether windows end at the volume's border, where the encoder pads them itself; else the volume is
        mirrored there.
    sweeps : tuple of int
        The axes across which single planes are encoded: context along these axes costs nothing but its
        reading. Empty where whole windows are encoded.
    streams : bool
        Whether :meth:`layers` gives the vectors of a window a few layers at a time.
    """

    fov: ZYX
    patch: ZYX
    dim: int
    fixed_fov: bool = False
    halo: ZYX = (0, 0, 0)
    align: ZYX = (1, 1, 1)
    pads: bool = False
    sweeps: tuple[int, ...] = ()
    streams: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type in which it wants its windows."""
        return torch.float32

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows.

        Parameters
        ----------
        windows : Tensor float (b, 1, z, y, x)
            Intensities in [0, 1]; of size ``fov`` where the field of view is fixed.
        kept : three slices, optional
            The patches wanted; all where left out. Vectors of patches nearer than ``halo`` to a side that is
            not the volume's come out wrong.

        Returns
        -------
        Tensor float (b, gz, gy, gx, dim)
        """
        raise NotImplementedError

    def layers(self, window: Tensor, kept: Kept) -> Iterator[Tensor]:
        """Yield what :meth:`encode` gives of a window (1, 1, z, y, x), some layers (n, gy, gx, dim) each."""
        yield self.encode(window, kept)[0]

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return it, ready for inference on a device, in a floating-point type; training ends here."""
        choose_attention(self, device, training=False)
        return self.to(device, dtype).eval().requires_grad_(False)

    def slab(self, edge: int) -> ZYX | None:
        """Return the windows that :meth:`normalise` wants a sample of, at most ``edge`` voxels wide.

        None where the encoder has nothing to adjust, or ``edge`` is too small.
        """
        return None

    def normalise(self, windows: Tensor) -> None:
        """Adjust to the grey values of the volume at hand, from a sample of windows (n, 1, z, y, x)."""

    def placements(self, table: EmbedTable) -> tuple[Placement, Placement, Placement]:
        """Return how its fields of view are laid along z, y and x, as a recipe says."""
        z, y, x = (
            self._placement(fov, patch, table) for fov, patch in zip(self.fov, self.patch, strict=True)
        )
        return z, y, x

    def _placement(self, fov: int, patch: int, table: EmbedTable) -> Placement:
        if fov == patch or not self.fixed_fov:
            return Placement(fov, patch, patch, patch)
        match table.placement:
            case "cover-and-stride":
                return Placement(fov, patch, table.kept * patch, 1)
            case "whole-slice":
                return Placement(fov, patch, fov, patch)
            case _:
                return Placement(fov, patch, table.stride, patch)

    def memory(self, batch: int) -> Memory:
        """Return what encoding takes, ``batch`` fields of view at a time where these are fixed."""
        raise NotImplementedError
