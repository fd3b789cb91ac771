"""Cubes of voxels: encoders that give one vector for a cube, and the cubes that train them.

A cube of radius r reaches r short voxel edges from its centre to each side. It is looked at on a grid of
points, whose outermost lie on its sides, between voxels by linear interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, conv_transpose3d, grid_sample

from vemseg.geometry import ZYX
from vemseg.models.encoder import Encoder, Kept, Memory, Spacing
from vemseg.modules import Keeps
from vemseg.recipe import CubeTable

SMALL = 3
"""Maps of at most this edge are convolved in float32 on CPUs, where they would be in bfloat16."""


class CubeEncoder(Keeps, Encoder):
    """Encode cubes of voxels, one vector each.

    Subclasses write :meth:`vectors` and say how much memory a point of the grid takes.

    Parameters
    ----------
    table : CubeTable
        Gives the edge of the cubes in short voxel edges, and the points of the grid along each axis.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest. Along an axis with longer voxels a window has
        fewer of them, just enough to hold the cube.
    """

    fixed_fov = True
    exact: ClassVar[tuple[str, ...]] = ("along_z", "along_y", "along_x")

    point_bytes: int
    """Bytes of activations for each point of the grids that are encoded together."""

    along_z: Tensor
    along_y: Tensor
    along_x: Tensor

    def __init__(self, table: CubeTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.grid = table.grid
        for name, edge in zip(self.exact, spacing, strict=True):
            self.register_buffer(name, interpolating(table.edge, edge, table.grid), persistent=False)
        self.fov: ZYX = (self.along_z.shape[1], self.along_y.shape[1], self.along_x.shape[1])
        self.patch = self.fov

    def cubes(self, windows: Tensor) -> Tensor:
        """Resample windows (b, 1, z, y, x) of the size of ``fov``: float32 (b, 1, g, g, g)."""
        cubes = torch.einsum("zi,bcijk->bczjk", self.along_z, windows.float())
        cubes = torch.einsum("yj,bczjk->bczyk", self.along_y, cubes)
        return torch.einsum("xk,bczyk->bczyx", self.along_x, cubes)

    def vectors(self, cubes: Tensor) -> Tensor:
        """Return the vectors of cubes: float32 (b, 1, g, g, g), intensities in [0, 1] -> (b, dim)."""
        raise NotImplementedError

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows: (b, 1, z, y, x) -> (b, 1, 1, 1, dim)."""
        return self.vectors(self.cubes(windows))[:, None, None, None]

    forward = encode

    def memory(self, batch: int) -> Memory:
        """Return the memory that a batch of cubes takes."""
        return Memory(fixed=batch * self.grid**3 * self.point_bytes)


def interpolating(edge: int, voxel: float, grid: int) -> Tensor:
    """Return the linear interpolation along one axis from the voxels of a window to the points of a cube.

    Parameters
    ----------
    edge : int
        Short voxels along an edge of the cube.
    voxel : float
        Edge of the window's voxels along this axis, in short voxel edges.
    grid : int
        Number of points, evenly spaced; the first and the last lie (edge - 1) / 2 from the middle.

    Returns
    -------
    Tensor float32 (grid, n)
        Weights of the n voxels of the window. It has as few as hold the cube, an odd number where ``edge`` is
        odd, so that its middle is the middle of a voxel.
    """
    radius, shift = (edge - 1) / 2 / voxel, 0.0 if edge % 2 else 0.5
    n = round(2 * (math.ceil(radius - shift - 1e-9) + shift)) + 1
    points = torch.linspace(-radius, radius, grid, dtype=torch.float64, device="cpu") + (n - 1) / 2
    away = (points[:, None] - torch.arange(n, dtype=torch.float64, device="cpu")).abs()
    return (1 - away).clamp_min(0).float()


class CubeConv(nn.Conv3d):
    """A convolution of cubes, of stride 1, whose gradients are right in bfloat16 too (see ``_right``)."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (b, channels, z, y, x)."""
        return conv3d(*_right(x, self), padding=self.padding).to(x.dtype)


class CubeUpConv(nn.ConvTranspose3d):
    """A transposed convolution of cubes, of stride 1, whose gradients are right in bfloat16 too."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve maps (b, channels, z, y, x)."""
        assert isinstance(self.padding, tuple)
        return conv_transpose3d(*_right(x, self), padding=self.padding).to(x.dtype)


def _right(x: Tensor, layer: nn.Conv3d | nn.ConvTranspose3d) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return maps, weights and bias, as float32 where their gradients would be wrong in bfloat16.

    On CPUs, PyTorch 2.15 (oneDNN) returns wrong gradients of the weights where maps have 2 voxels along each
    edge. This is a small part of the work, so all small maps are convolved in float32.
    """
    short = x.device.type == "cpu" and x.dtype == torch.bfloat16 and max(x.shape[2:]) <= SMALL
    dtype = torch.float32 if short else x.dtype
    return x.to(dtype), layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def stacked(layers: Sequence[nn.Module]) -> nn.Sequential:
    """Return layers one after the other, with channels last in memory, which is faster on CPUs and GPUs."""
    return nn.Sequential(*layers).to(memory_format=torch.channels_last_3d)


class Cubes(NamedTuple):
    """How cubes lie in windows, n of them in each of b windows.

    Attributes
    ----------
    centres : Tensor float32 (b, n, 3)
        Their centres in voxels from the middle of the window, z y x.
    radii : Tensor float32 (b, n)
        Distances in voxels from the centre to the sides.
    frames : Tensor float32 (b, n, 3, 3)
        In rows the directions of the first, second and third axis of each cube, z y x.
    """

    centres: Tensor
    radii: Tensor
    frames: Tensor

    @classmethod
    def upright(cls, radii: Tensor) -> Cubes:
        """Return cubes of radii (b, n) in the middle of their windows, whose axes are those of the window."""
        frames = torch.eye(3, device=radii.device).expand(*radii.shape, 3, 3)
        return cls(radii.new_zeros(*radii.shape, 3), radii, frames)

    def cut(self, windows: Tensor, grid: int, moved: Tensor | None = None) -> Tensor:
        """Cut the cubes out of windows, all at once.

        Parameters
        ----------
        windows : Tensor float32 (b, 1, w, w, w)
            They are as large as the cubes need; beyond them, all is 0.
        grid : int
            Points along each axis of a cube.
        moved : Tensor float32 (3, b, n, g - 2, g - 2, g - 2), optional
            How far each point inside a cube is moved along x, y and z of the window, in radii of the cube;
            the points on its sides stay.

        Returns
        -------
        Tensor float32 (b, n, g, g, g)
        """
        b, n = self.radii.shape
        half = (windows.shape[-1] - 1) / 2
        scale = self.radii / half
        along = torch.linspace(-1, 1, grid, device=windows.device)
        axes = (self.frames.flip(-1) * scale[..., None, None]).permute(3, 2, 0, 1).contiguous()  # x y z
        first, second, third = (axis[..., None] * along for axis in axes.unbind(dim=1))  # (3, b, n, g)
        first = first + (self.centres.flip(-1) / half).permute(2, 0, 1).contiguous()[..., None]
        places = (first[..., None] + second[..., None, :])[..., None] + third[..., None, None, :]
        if moved is not None:
            places[..., 1:-1, 1:-1, 1:-1].addcmul_(moved, scale[..., None, None, None])
        places = places.permute(1, 2, 3, 4, 5, 0).view(b, n * grid, grid, grid, 3)
        found = grid_sample(windows, places, mode="bilinear", align_corners=True)
        return found.view(b, n, grid, grid, grid)


def lattice(grid: int, device: torch.device) -> Tensor:
    """Return the points of a cube of radius 1: float32 (g, g, g, 3), z y x in [-1, 1]."""
    along = torch.linspace(-1, 1, grid, device=device)
    return torch.stack(torch.meshgrid(along, along, along, indexing="ij"), dim=-1)


def rotations(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw frames (*shape, 3, 3) of all orientations, each as likely: float32, right-handed."""
    normal = torch.randn(*shape, 2, 3, generator=generator, device=generator.device)
    first = normal[..., 0, :] / normal[..., 0, :].norm(dim=-1, keepdim=True)
    second = normal[..., 1, :] - (normal[..., 1, :] * first).sum(dim=-1, keepdim=True) * first
    second = second / second.norm(dim=-1, keepdim=True)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def quarter_turns(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw frames (*shape, 3, 3) whose first axis lies along z, up or down, and the others along y and x."""
    signs = _signs((*shape, 2), generator)
    turned = torch.randint(2, (*shape, 1), generator=generator, device=generator.device).float()
    nothing = torch.zeros_like(turned)
    first = torch.cat([signs[..., :1], nothing, nothing], dim=-1)
    second = torch.cat([nothing, signs[..., 1:] * (1 - turned), signs[..., 1:] * turned], dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def mirrored(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each axis of frames (..., 3, 3) round with probability 1/2."""
    return frames * _signs((*frames.shape[:-1], 1), generator)


def in_ball(shape: tuple[int, ...], radius: float, generator: torch.Generator) -> Tensor:
    """Draw points of a ball, each part of it as likely: float32 (*shape, 3)."""
    normal = torch.randn(*shape, 3, generator=generator, device=generator.device)
    far = torch.rand(*shape, 1, generator=generator, device=generator.device) ** (1 / 3)
    points: Tensor = normal / normal.norm(dim=-1, keepdim=True) * (radius * far)
    return points


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw numbers in [low, high): float32."""
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator, device=generator.device).float() * 2 - 1
