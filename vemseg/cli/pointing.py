"""Options on points that somebody clicked, and the table of points that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vemseg.cli.options import input_option
from vemseg.cli.words import PointUnit
from vemseg.errors import UsageError

if TYPE_CHECKING:
    from vemseg.points import PointFile

Table = Annotated[
    Path | None,
    input_option("--points", metavar="FILE.csv", help="Voxels of known class: columns z,y,x,class."),
]
Unit = Annotated[
    PointUnit, input_option("--unit", metavar="UNIT", help="The unit of z,y,x in the points: voxel or nm.")
]


def clicked(
    path: Path | None, unit: str, legend: Mapping[int, str] | None, others: Mapping[str, object]
) -> PointFile | None:
    """Return the table of points that is named, None where there is none.

    Parameters
    ----------
    path, unit, legend
        What ``--points``, ``--unit`` and ``--names`` give.
    others : mapping of str to object
        Options that do not go with points, and what each gives.

    Raises
    ------
    UsageError
        Where one of them gives something.
    """
    if path is None:
        if unit != "voxel":
            raise UsageError("--unit is about points: add --points FILE.csv")
        return None
    if clash := [name for name, given in others.items() if given]:
        raise UsageError(f"--points and {clash[0]} do not go together: points decide what classes are")
    from vemseg.points import PointFile

    return PointFile(path, unit, legend or {})
