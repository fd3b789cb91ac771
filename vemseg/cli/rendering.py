"""Options of ``render`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vemseg.cli.options import flag, input_option, out_option, output_option
from vemseg.cli.words import EachKind, MeshFormat

PicturesOut = Annotated[Path | None, out_option(metavar="FOLDER", help="Where to put the pictures.")]
Confidence = Annotated[
    str | None,
    input_option(
        "--confidence", metavar="VOLUME", help="Draw how certain labels are, as 'segment --confidence' wrote."
    ),
]
Features = Annotated[
    Path | None,
    input_option(
        "--features", metavar="FEATURES", help="Draw vectors that 'embed' stored of the volume as colours."
    ),
]
Formats = Annotated[
    str, output_option("--format", metavar="png,pdf,svg", help="Formats of the pictures; each is written.")
]
Meshes = Annotated[
    MeshFormat | None,
    output_option(
        "--meshes",
        metavar="glb|ply|obj",
        show_default=False,
        help="Also write the surfaces of labels.",
    ),
]
MeshEach = Annotated[
    EachKind,
    output_option("--each", metavar="class|object", help="What gets a mesh of its own."),
]
Faces = Annotated[
    int, output_option("--faces", metavar="N", help="The most triangles of a mesh; 0 keeps all.")
]
Classes = Annotated[
    str | None,
    output_option(
        "--class",
        metavar="1,nucleus",
        show_default="all",
        help="The classes to show in meshes and in space.",
    ),
]
Solid = Annotated[bool, output_option("--solid", **flag, help="Also draw the surfaces in space.")]
Turntable = Annotated[
    bool, output_option("--turntable", **flag, help="Also draw the surfaces as they turn, as a GIF.")
]
Neuroglancer = Annotated[
    str | None,
    output_option(
        "--neuroglancer",
        metavar="URL",
        show_default=False,
        help="Also write a view for neuroglancer; URL is where the working folder is served.",
    ),
]
View = Annotated[bool, output_option("--view", **flag, help="Open the volumes in napari.")]
