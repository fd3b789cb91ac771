"""The files beside labels: statistics, QC picture, provenance; and new names of classes in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vemseg.files import write_table
from vemseg.names import split_name
from vemseg.run import Json, Output, Place, read_json, sidecar, write_json
from vemseg.volume import LabelForm, Thinned, Volume, identity, open_volume, rename_labels, sections

ENDINGS = (".csv", "_qc.png", "_k.png", "_clusters.safetensors")
"""Endings of the files beside labels, apart from their description."""


def beside(out: Path, ending: str) -> Path:
    """Return the path of a file that lies beside an output: its stem and an ending."""
    return out.with_name(split_name(out)[0] + ending)


def files_beside(out: Path) -> list[Path]:
    """Return all files that lie beside labels."""
    return [sidecar(out), *(beside(out, ending) for ending in ENDINGS)]


def classes_of(out: Path) -> list[Json]:
    """Return the table of classes that lies beside labels."""
    from vemseg.labelling.telling import told_classes

    return told_classes(read_json(sidecar(out)), f"cannot read {sidecar(out)}")[0]


def draw_check(path: Path, volume: Volume, labels: Volume, legend: Mapping[int, str]) -> None:
    """Draw slices at three depths of a volume, around the middle of what it shows, and their labels."""
    from vemseg.drawing import Manner, depths, save

    grey, painted, shown = Thinned(volume), Thinned(labels), volume.specimen
    middle = shown.middle[0] if shown else 0.5
    at = sorted({int(grey.shape[0] * part) for part in (middle / 2, middle, (1 + middle) / 2)})
    manner = Manner(steps=grey.steps, labelled=shown is not None)
    pixel, places = grey.voxel_size and grey.voxel_size[1:], [z * grey.steps[0] for z in at]
    slices = sections(grey, at), sections(painted, at)
    save(depths(*slices, places, pixel, dict(legend), manner=manner), path)


def made_of_labels(
    out: Path,
    read: Sequence[Volume],
    settings: Mapping[str, object],
    form: LabelForm,
    overwrite: bool,
    more: Sequence[Path] = (),
) -> Output:
    """Return the output of a verb that turns labels into others, with a table and a description beside it.

    Parameters
    ----------
    out : Path
    read : sequence of Volume
        The labels, and what else is read.
    settings : mapping
        What the result depends on beside these volumes.
    form : LabelForm
    overwrite : bool
    more : sequence of Path
        Further files beside it.
    """
    return Output(
        Place(out, *form.place(out)),
        state={"output": out.name, **settings, **identity(read[0]), **form.state()},
        inputs=[volume.path for volume in read if volume.path is not None],
        beside=[sidecar(out), beside(out, ".csv"), *more],
        overwrite=overwrite,
    )


def rename(output: Output, volume: Volume, names: Mapping[int, str] | None) -> bool:
    """Give the classes of finished labels other names, in all files; the labels themselves stay as they are.

    Parameters
    ----------
    output : Output
        The labels.
    volume : Volume
        The grey volume, for the picture.
    names : mapping of int to str, optional
        Classes that it leaves out are called by their own names, or by their numbers. None changes nothing.

    Returns
    -------
    bool
        Whether anything was to be changed.

    Raises
    ------
    InputError
        Where there is no such class.
    """
    if names is None:
        return False
    from vemseg.drawing import palette
    from vemseg.labelling import legend
    from vemseg.labelling.telling import captions, told_classes

    out, labels = output.path, output.main
    about = read_json(sidecar(out))
    classes, own = told_classes(about, f"cannot read {sidecar(out)}")
    named = legend(len(classes), names, own)
    if named == {k: row["name"] for k, row in enumerate(classes, start=1)}:
        return False
    renamed: list[Json] = [row | {"name": name} for row, name in zip(classes, named.values(), strict=True)]
    rename_labels(labels, named, dict(enumerate(palette(len(classes)), start=1)))
    write_table(beside(out, ".csv"), renamed)
    draw_check(beside(out, "_qc.png"), volume, open_volume(labels), captions(renamed))
    write_json(sidecar(out), about | {"classes": renamed})  # last: until then the same call does it again
    return True
