"""What the metadata of an array say of its axes: their names, their scale, where they begin, in which unit.

Formats differ in where they keep this; a ``Frame`` is what all of them come to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vemseg.geometry import Position, VoxelSize
from vemseg.volume.units import nanometres, voxel_size_or_none

UNNAMED = ("t", "c", "z", "y", "x")
"""The axes of an array that has no names for them: the last of these, as many as it has."""

_NAMES = {
    "z": ("z", "depth", "plane", "planes", "slice", "slices", "section", "sections"),
    "y": ("y", "height", "row", "rows"),
    "x": ("x", "width", "col", "cols", "column", "columns"),
    "c": ("c", "ch", "channel", "channels", "band", "bands", "rgb", "rgba", "s", "sample", "samples"),
    "t": ("t", "time", "times", "timepoint", "timepoints", "frame", "frames"),
}
_KNOWN = {name: axis for axis, names in _NAMES.items() for name in names}
_KINDS = {"channel": "c", "time": "t"}


def axis_name(name: object, kind: object = None) -> str:
    """Return the axis that a name stands for: z, y, x, c or t; the name itself where it is not known.

    Parameters
    ----------
    name : object
        As a file spells it: ``"Z"``, ``"depth"``, ``"dim_0"``.
    kind : object
        The type that NGFF gives an axis: an axis of time or channels may be called anything.
    """
    text = str(name).strip().lower()
    return _KNOWN.get(text) or _KINDS.get(str(kind).lower()) or text


@dataclass(frozen=True)
class Frame:
    """What metadata say of the axes of an array, in the order in which the array has them.

    Attributes
    ----------
    axes : tuple of str
        Names as ``axis_name`` gives them; empty where there are none.
    units : tuple of (str or None)
        The unit of each axis, as the file spells it.
    scale : tuple of float, or None
        The step from one entry to the next along each axis, in its unit.
    shift : tuple of float, or None
        Where the first entry lies along each axis, in its unit.
    ordered : bool
        Whether the numbers follow the axes of the array, so that they belong to the same axes under other
        names too; False where a convention fixes the names.
    """

    axes: tuple[str, ...] = ()
    units: tuple[str | None, ...] = ()
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    ordered: bool = True

    @property
    def voxel_size(self) -> VoxelSize | None:
        """The voxel size in nm; None unless z, y and x have a scale and a unit of length.

        Where there is no axis z, the array is a single plane, and the edge along y stands in.
        """
        edges = self._lengths(self.scale)
        return voxel_size_or_none(edges.get("z" if "z" in self.axes else "y"), edges.get("y"), edges.get("x"))

    @property
    def origin(self) -> Position | None:
        """Where the centre of the first voxel lies, in nm; None where the voxel size is not known.

        Where metadata give a scale and no place, the first voxel lies at zero, as NGFF has it.
        """
        if self.voxel_size is None:
            return None
        at = self._lengths(self.shift)
        z, y, x = (at.get(axis) or 0.0 for axis in "zyx")
        return z, y, x

    @property
    def size_hint(self) -> str | None:
        """What the file says where the voxel size is unknown, with the option that settles it; else None."""
        if self.voxel_size is not None or self.scale is None or len(self.scale) != len(self.axes):
            return None
        numbers = dict(zip(self.axes, self.scale, strict=True))
        units = dict(zip(self.axes, self.units or (None,) * len(self.axes), strict=True))
        told = [axis for axis in "zyx" if axis in numbers]
        if not told or all(numbers[axis] == 1 and nanometres(units[axis]) is None for axis in told):
            return None  # a scale of 1 pixel says nothing
        named = sorted({str(units[axis]) for axis in told if units[axis]})
        unit = f"in '{' and '.join(named)}'" if named else "without a unit"
        return size_hint([numbers[axis] for axis in told], f"{', '.join(told)}", unit)

    def along(self, axes: tuple[str, ...]) -> Frame:
        """Return what is said of axes of these names, in their order; others have step 1 and no unit."""
        places = [self.axes.index(axis) if axis in self.axes else -1 for axis in axes]
        units = self.units or (None,) * len(self.axes)
        return Frame(
            axes,
            tuple(None if i < 0 else units[i] for i in places),
            None if self.scale is None else tuple(1.0 if i < 0 else self.scale[i] for i in places),
            None if self.shift is None else tuple(0.0 if i < 0 else self.shift[i] for i in places),
            self.ordered,
        )

    def under(self, names: tuple[str, ...], *, renamed: bool) -> Frame:
        """Return the frame with the axes of the array called ``names``.

        Parameters
        ----------
        names : tuple of str
            What the axes of the array are.
        renamed : bool
            Whether a user gave these names, so that those of the metadata are wrong.
        """
        strange = not (set(names) & set("zyx") <= set(self.axes))
        if self.ordered and len(names) == len(self.axes) and (renamed or strange):
            return replace(self, axes=names)
        return self.along(names)

    @property
    def consistent(self) -> bool:
        """Whether there is one number and at most one unit for each axis."""
        told = (self.units, self.scale, self.shift)
        return all(not values or len(values) == len(self.axes) for values in told)

    def _lengths(self, values: Sequence[float] | None) -> dict[str, float | None]:
        """Return values by axis, in nm; None along axes whose unit is no length."""
        if values is None or not (len(values) == len(self.axes) == len(self.units)):
            return {}
        known = [nanometres(unit) for unit in self.units]
        return {
            axis: None if unit is None else unit * value
            for axis, unit, value in zip(self.axes, known, values, strict=True)
        }


def size_hint(numbers: Sequence[float], order: str, unit: str) -> str:
    """Return what a file states of the voxel size, and the option that would take it as nanometres.

    Parameters
    ----------
    numbers : sequence of float
        In the order z, y, x; only y, x where there is no z.
    order : str
        The axes that the numbers belong to, in words.
    unit : str
        What the file says of the unit, in words.
    """
    told = f"the file states {', '.join(f'{number:.6g}' for number in numbers)} ({order}) {unit}"
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        return f"{told}, which is not a size: --voxel-size z,y,x gives the right one in nm"
    option = ",".join(
        f"{number:.6g}" for number in (numbers if len(numbers) == 3 else [numbers[0], *numbers])
    )
    return f"{told}: --voxel-size {option} takes it as nm"


def compose(transformations: object, n: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the scale and the shift that a list of NGFF transformations comes to, applied in turn.

    Parameters
    ----------
    transformations : object
        ``coordinateTransformations`` as JSON: scales and translations; sequences of them count too.
    n : int
        The number of axes.

    Returns
    -------
    scale, shift : tuple of float, or None
        None where none is stated, or something else than these is.
    """
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    for kind, values in _steps(transformations):
        if kind == "identity":
            continue
        if len(values) != n:
            return None, None
        if kind == "scale":
            scale = tuple(a * b for a, b in zip(scale or (1.0,) * n, values, strict=True))
            shift = None if shift is None else tuple(a * b for a, b in zip(shift, values, strict=True))
        else:
            shift = tuple(a + b for a, b in zip(shift or (0.0,) * n, values, strict=True))
    return scale, shift


def chained(
    inner: tuple[tuple[float, ...] | None, tuple[float, ...] | None],
    outer: tuple[tuple[float, ...] | None, tuple[float, ...] | None],
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the scale and shift of one transformation followed by another: ``outer`` of ``inner``."""
    (scale, shift), (further, away) = inner, outer
    n = len(scale or shift or further or away or ())
    steps: list[object] = [
        {"type": kind, kind: list(values)}
        for kind, values in (
            ("scale", scale), ("translation", shift), ("scale", further), ("translation", away)
        )
        if values is not None
    ]  # fmt: skip
    return compose(steps, n)


def _steps(transformations: object) -> Iterable[tuple[str, tuple[float, ...]]]:
    """Yield kind and values of each transformation; one that is not understood has no values."""
    for step in transformations if isinstance(transformations, list) else []:
        kind = str(step.get("type")) if isinstance(step, Mapping) else ""
        if kind == "sequence":
            yield from _steps(step.get("transformations"))
        elif kind == "identity":
            yield kind, ()
        else:
            yield kind, numbers(step.get(kind) if kind in ("scale", "translation") else None)


def numbers(found: object) -> tuple[float, ...]:
    """Return a list of finite numbers in JSON as floats; empty where it is anything else."""
    if not isinstance(found, list | tuple) or not all(isinstance(n, int | float) for n in found):
        return ()
    return tuple(float(n) for n in found) if all(math.isfinite(n) for n in found) else ()
