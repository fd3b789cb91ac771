"""Options on what is fetched from public stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vemseg.cli.options import input_option

DatasetName = Annotated[
    str, typer.Argument(show_default=False, metavar="DATASET", help="A data set, such as jrc_hela-2.")
]
Array = Annotated[
    str | None,
    input_option("--array", metavar="PATH", help="A volume in it, such as labels/mito_seg."),
]
Root = Annotated[str | None, input_option("--from", metavar="URL", help="A mirror of the public bucket.")]
CropOut = Annotated[
    Path | None,
    typer.Option(
        *("-o", "--out"),
        metavar="VOLUME",
        rich_help_panel="Output",
        show_default="DATASET_em.ome.zarr, here",
        help="A .tif, .ome.zarr, .h5 or .precomputed.",
    ),
]
