"""Options on what a report is made of."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vemseg.cli.options import input_option

_output = partial(typer.Option, rich_help_panel="Output")

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
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        rich_help_panel="Model",
        show_default="bundled weights",
        help="The model that the labels were made with.",
    ),
]
Points = Annotated[int, _output("--points", metavar="N", help="How many vectors to show; 0 shows none.")]
ReportOut = Annotated[
    Path | None,
    _output("-o", "--out", metavar="NAME.html", show_default="LABELS_report.html, here", help="The report."),
]
