"""The random choices of a batch: the source of each window, its place, and how it is augmented."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from vemseg.recipe import FovTable
from vemseg.tiling import Floats, Ints

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Draw:
    """The random choices of one batch, one row per sample; arrays are (b,) unless another shape is given.

    Attributes
    ----------
    number : int
        The number of the sample in its step.
    source, box : int
        Numbers of the source, and of its box in memory.
    axis, plane : int
        The axis across the planes, and the index of the middle plane in the box.
    corner : int (b, 2)
        First row and column of the window within the plane.
    zoom_start, zoom_size : float (b, 2)
        The part of the window that is enlarged to its full size, in pixels.
    flip : bool (b, 2)
        Whether to mirror rows, and columns.
    transpose : bool
        Whether to exchange rows and columns, after all else. Such a window is cut w rows high and h columns
        wide.
    """

    number: Ints
    source: Ints
    box: Ints
    axis: Ints
    plane: Ints
    corner: Ints
    zoom_start: Floats
    zoom_size: Floats
    flip: Bools
    transpose: Bools

    def take(self, rows: Ints) -> Draw:
        """Return the choices of some of the samples."""
        return Draw(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


def random_numbers(seed: int, counter: int, stream: int, sample: int = 0) -> np.random.Generator:
    """Return the generator of a step in a stream, or of one of the step's samples, counted from 1."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, sample, counter]))


def pick(uniform: Floats | float, n: Ints | int) -> Ints:
    """Turn uniform numbers in [0, 1) into integers in [0, n)."""
    return np.minimum(np.floor(np.multiply(uniform, n)), np.subtract(n, 1)).astype(np.int64)


def plane_axes(axis: Ints) -> Ints:
    """Return the two axes of the plane across ``axis``: (b,) -> (b, 2)."""
    return np.array([[1, 2], [0, 2], [0, 1]])[axis]


def zoom(uniform: Floats, extent: Ints, settings: FovTable) -> tuple[Floats, Floats]:
    """Choose the part of each window that is enlarged, along rows and columns.

    Parameters
    ----------
    uniform : float64 (b, 4)
        Random numbers in [0, 1).
    extent : int64 (b, 2)
        Rows and columns of the windows.
    settings : FovTable

    Returns
    -------
    start, size : float64 (b, 2)
        First pixel and number of pixels of the part.
    """
    whole = extent.astype(np.float64)
    least = np.maximum(1.0, settings.crop_min * whole)
    match settings.crop:
        case "isotropic":
            size = least + (whole - least) * uniform[:, 2:3]
            return uniform[:, :2] * (whole - size), size
        case "monai12":
            least = np.floor(least)
            size = least + np.floor(uniform[:, 2:4] * (whole - least + 1))
        case "fixed":
            size = np.floor(least)
        case _:
            return np.zeros_like(whole), whole
    return np.floor(uniform[:, :2] * (whole - size + 1)), size


def symmetry(uniform: Floats, quarter: Bools, half: Bools, settings: FovTable) -> tuple[Bools, Bools]:
    """Choose mirrors and turns in the plane.

    Parameters
    ----------
    uniform : float64 (b, 2)
        Random numbers in [0, 1), which decide on mirrors.
    quarter, half : bool (b,)
        Whether to turn by 90 and by 180 degrees, where turning is allowed.
    settings : FovTable

    Returns
    -------
    flip : bool (b, 2)
        Whether to mirror rows, and columns.
    transpose : bool (b,)
        Whether to exchange rows and columns after that.
    """
    flip = uniform < 0.5
    if settings.flips == "joint":
        flip[:, 1] = flip[:, 0]
    elif settings.flips == "off":
        flip[:] = False
    if settings.rotate90 and settings.flips != "independent":
        # A quarter turn is a mirror and a transposition. Independent mirrors bring both turns already.
        flip ^= half[:, None]
        flip[:, 0] ^= quarter
    return flip, quarter & settings.rotate90
