"""How a volume is drawn, as a user says it."""

from __future__ import annotations

from dataclasses import dataclass

from vemseg.drawing.pixels import Style
from vemseg.errors import UsageError
from vemseg.geometry import ZYX


@dataclass(frozen=True)
class Look:
    """How a volume is drawn.

    Attributes
    ----------
    at : str, optional
        ``z,y,x`` where the planes cross; the middle by default.
    style : {"fill", "contour"}
        How labels are drawn.
    alpha : float
        Opacity of a fill, 0..1.
    slices : int
        Slices of the montage and the comparison.

    Raises
    ------
    UsageError
        Where ``alpha`` or ``slices`` is out of range.
    """

    at: str | None = None
    style: Style = "fill"
    alpha: float = 0.5
    slices: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"--alpha {self.alpha:g} is not an opacity: give a number from 0 to 1")
        if self.slices < 1:
            raise UsageError(f"--slices {self.slices}: a montage has at least 1 slice")

    def position(self, shape: ZYX) -> ZYX:
        """Return where the planes cross in a volume.

        Raises
        ------
        UsageError
            Where the position lies outside the volume, or cannot be parsed.
        """
        if self.at is None:
            return shape[0] // 2, shape[1] // 2, shape[2] // 2
        try:
            z, y, x = (int(part) for part in self.at.split(","))
        except ValueError:
            raise UsageError(f"--at '{self.at}' is not a position: write z,y,x in voxels") from None
        if not all(0 <= p < n for p, n in zip((z, y, x), shape, strict=True)):
            raise UsageError(f"--at {self.at} lies outside the volume of shape {shape} (z, y, x)")
        return z, y, x
