"""Options of ``fetch`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vemseg.cli.options import argument, input_option, out_option, output_option, zyx

DatasetName = Annotated[
    str, typer.Argument(show_default=False, metavar="DATASET", help="A data set, such as jrc_hela-2.")
]
Array = Annotated[
    str | None,
    input_option("--array", metavar="PATH", help="Which of its volumes, such as labels/mito_seg."),
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
BetasegOut = Annotated[
    Path, output_option("-o", "--out", metavar="FOLDER", help="Each cell gets a folder in it.")
]
Cells = Annotated[
    str,
    input_option(
        "--cells", metavar="NAMES", help="high_c1 to high_c4 (the default), low_c1 to low_c3; or 'all'."
    ),
]
Only = Annotated[
    str,
    input_option(
        "--only", metavar="PARTS", help="source,labels (the default); masks for the masks as published."
    ),
]
From = Annotated[
    str | None,
    input_option("--from", metavar="URL|FILE", help="A mirror of the archive, or a local copy of it."),
]
WeightsName = Annotated[
    str | None, argument(metavar="[NAME]", help="Bundled weights; without a name, all are listed.")
]
Checkpoint = Annotated[
    Path | None,
    input_option(
        "--from", metavar="FILE", help="A checkpoint of the reference code of MAESTER (.pt) to import."
    ),
]
Centroids = Annotated[
    Path | None,
    input_option(
        "--centroids", metavar="FILE", help="Cluster centres of the checkpoint: a text file, one per line."
    ),
]
ImportOut = Annotated[
    Path | None, out_option(metavar="RUN", help="Where the imported weights go, as a run directory.")
]
PhantomOut = Annotated[Path, output_option("-o", "--out", metavar="VOLUME", help="A .tif or .ome.zarr.")]
PhantomShape = Annotated[
    str, output_option("--shape", **zyx, help="Shape in voxels; one number makes a cube.")
]
PhantomVoxelSize = Annotated[str, output_option("--voxel-size", **zyx, help="Voxel size in nm.")]
PhantomSeed = Annotated[int, output_option("--seed", metavar="N", help="Another seed, another cell.")]
