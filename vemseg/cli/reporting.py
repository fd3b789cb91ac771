"""Options of ``report`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vemseg.cli.options import flag, input_option, model_option, out_option, output_option

ImageOfLabels = Annotated[
    str | None,
    input_option(
        "--volume",
        metavar="VOLUME",
        show_default="the one that the labels name",
        help="The image that the labels belong to.",
    ),
]
ObjectsTable = Annotated[
    Path | None,
    input_option(
        "--objects",
        metavar="TABLE.csv",
        show_default="LABELS_objects.csv, if it is there",
        help="The table that 'objects' wrote.",
    ),
]
FeaturesOfLabels = Annotated[
    str | None,
    input_option(
        "--features",
        metavar="FEATURES",
        show_default="computed again",
        help="Vectors that 'embed' stored of the image.",
    ),
]
ModelOfLabels = Annotated[
    str | None,
    model_option(
        "-m",
        "--model",
        metavar="MODEL",
        show_default="bundled weights",
        help="The model that the labels were made with.",
    ),
]
Points = Annotated[
    int, output_option("--points", metavar="N", help="How many vectors to show; 0 shows none.")
]
Umap = Annotated[
    bool, output_option("--umap", **flag, help="Lay vectors out by UMAP, instead of principal components.")
]
ReportOut = Annotated[
    Path | None,
    out_option(metavar="NAME.html", show_default="LABELS_report.html, here", help="The report."),
]
