"""Options that say where results go and in which form."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vemseg.errors import UsageError

if TYPE_CHECKING:
    from vemseg.volume import LabelForm

_output = partial(typer.Option, rich_help_panel="Output", show_default=False)

DEFAULT_OUT = "VOLUME_seg, here"
FORMATS = ".tif, .ome.zarr, .h5 (also .h5:/path) or .precomputed."

LabelsOut = Annotated[
    str | None,
    typer.Option(
        *("-o", "--out"),
        metavar="LABELS",
        rich_help_panel="Output",
        show_default=DEFAULT_OUT,
        help=f"Labels: {FORMATS}",
    ),
]
ChangedOut = Annotated[str | None, _output("-o", "--out", metavar="LABELS", help=FORMATS)]
Into = Annotated[
    Path | None,
    _output("--into", metavar="IMAGE.zarr", help="Put the labels into this OME-Zarr image, instead of -o."),
]
Name = Annotated[
    str | None, _output("--name", metavar="NAME", help="What the labels are called in the image of --into.")
]
Ngff = Annotated[
    str | None,
    _output("--ngff", metavar="0.4|0.5", show_default="0.5", help="The version of OME-Zarr to write."),
]
Confidence = Annotated[
    Path | None,
    _output(
        "--confidence",
        metavar="VOLUME",
        help="Also write how certain each label is, 0 to 255: a volume beside the labels.",
    ),
]
Scores = Annotated[
    Path | None,
    _output(
        "--scores",
        metavar="VOLUME",
        help="Also write the scores of all classes, relative to the best one: a channel for each class.",
    ),
]


def output(
    out: str | Path | None, into: Path | None, name: str | None, ngff: str | None
) -> tuple[Path, LabelForm]:
    """Return the name and the form of a result, as options give them.

    Raises
    ------
    UsageError
        Where options do not go together, or neither ``-o`` nor ``--into`` is given.
    InputError
        Where ``--into`` names no OME-Zarr image.
    """
    from vemseg.volume import LabelForm, LabelsOfImage, parse_output
    from vemseg.volume.ngff import VERSION

    if into is None:
        if name is not None:
            raise UsageError("--name belongs to --into, which names the image that the labels go into")
        if out is None:
            raise UsageError("give -o, the file or folder to write, or --into, an OME-Zarr image")
        return parse_output(str(out), ngff or VERSION)
    if out is not None or name is None:
        raise UsageError("--into takes --name, and no -o: the labels go to IMAGE.zarr/labels/NAME")
    found = LabelsOfImage.of(into, name)
    if ngff not in (None, found.ngff):
        raise UsageError(f"--ngff {ngff}: labels in {into} are of NGFF {found.ngff}, as the image is")
    return found.beside, LabelForm(found.ngff, image=found)
