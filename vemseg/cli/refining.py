"""Options on what is done to finished labels, and which of their objects are wanted."""

from __future__ import annotations

from typing import Annotated

import typer

from vemseg.cli.options import compute_option, flag, input_option, output_option

Labels = Annotated[
    str, typer.Argument(show_default=False, metavar="LABELS", help="Labels of classes; 0 is nothing.")
]
Parquet = Annotated[
    bool, output_option("--parquet", **flag, help="Write the table as Parquet too, beside the CSV.")
]
Split = Annotated[
    float | None,
    input_option(
        "--split",
        metavar="SHARE",
        help="Split objects at necks thinner than this share of the thinner side, such as 0.7.",
    ),
]
Processes = Annotated[
    int | None,
    compute_option(
        "--processes",
        metavar="N",
        min=1,
        show_default="1",
        help="Share the blocks among N processes, each with its own memory.",
    ),
]
Merge = Annotated[
    list[str] | None,
    input_option("--merge", metavar="2,5=NAME", help="Make classes one, with a name; may be repeated."),
]
Map = Annotated[
    str | None,
    input_option("--map", metavar="1=2,3=0", help="Give classes other numbers; 0 removes a class."),
]
Smooth = Annotated[
    int,
    input_option(
        "--smooth",
        metavar="N",
        min=0,
        max=16,
        help="Smooth borders N times: each voxel takes the class of most voxels around it.",
    ),
]
FillHoles = Annotated[
    bool, input_option("--fill-holes", **flag, help="Fill holes (label 0) that lie inside one class.")
]
MinSize = Annotated[
    str | None,
    input_option(
        "--min-size",
        metavar="500|0.01um3",
        help="Give objects below this size (voxels, or µm³) to the class that they touch most.",
    ),
]
Mask = Annotated[
    str | None, input_option("--mask", metavar="VOLUME", help="Labels become 0 where this is not above 0.")
]
Which = Annotated[
    str | None,
    input_option("--class", metavar="2,NAME", help="Only these classes, by number or name."),
]
