"""Options that say which part of a file is read, and how its place is taken."""

from __future__ import annotations

from typing import Annotated

from vemseg.cli.options import flag, input_option
from vemseg.cli.words import BackgroundKind

IgnorePlace = Annotated[
    bool,
    input_option(
        "--ignore-place",
        **flag,
        help="Compare voxel by voxel, whatever the files say of places and voxel sizes.",
    ),
]
Channel = Annotated[
    str | None,
    input_option("--channel", metavar="N|NAME", help="Which channel to read, from 0, or by its name."),
]
TimePoint = Annotated[
    str | None, input_option("--time", metavar="N", help="Which time point to read, from 0.")
]
Level = Annotated[
    str | None,
    input_option(
        "--level",
        metavar="N|NAME",
        help="Which level of resolution to read; 0 is the finest.",
    ),
]
Background = Annotated[
    BackgroundKind,
    input_option(
        "--background",
        metavar="HOW",
        show_default=True,
        help="auto: padding of one grey value gets label 0 and is left out of everything. none: it counts.",
    ),
]
SpecimenMask = Annotated[
    str | None,
    input_option(
        "--mask", metavar="VOLUME", help="Only voxels where this is above 0 count; the others get label 0."
    ),
]
Axes = Annotated[
    str | None,
    input_option(
        "--axes", metavar="CZYX", help="The order of the array's axes, where the file does not tell."
    ),
]
