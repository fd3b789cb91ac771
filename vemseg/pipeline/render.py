"""``render``: pictures of a volume, its labels and a reference."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from vemseg.comparison import Scene, merged_greedily
from vemseg.context import Context
from vemseg.drawing import Look, Manner, comparison, montage, save, three_planes
from vemseg.drawing.pictures import Planes
from vemseg.errors import OutputExistsError
from vemseg.geometry import ZYX
from vemseg.names import split_name
from vemseg.run import Output, State, provenance, state_in, write_json
from vemseg.volume import Thinned, Volume, describe, identity, planes, sections

_log = logging.getLogger("vemseg")

DPI = 200


def render(
    scene: Scene,
    out: Path,
    look: Look = Look(),
    *,
    overwrite: bool = False,
    context: Context = Context(),
) -> list[Path]:
    """Draw three planes, a montage through the stack, and a comparison of labels and reference.

    For the comparison, labels are merged into the reference's classes greedily: the merge looks at the
    reference, and the picture says so.

    Parameters
    ----------
    scene : Scene
    out : Path
        Directory of the pictures, which are named after the volume.
    look : Look
    overwrite : bool
        Replace pictures that are there.
    context : Context

    Returns
    -------
    list of Path
        The pictures; ``<stem>_pictures.json`` beside them says how they were made.

    Raises
    ------
    UsageError
        Where the planes cross outside the volume.
    OutputExistsError
        Where ``out`` is a file, or a picture exists that was drawn with other settings and ``overwrite`` is
        not set. The same pictures are left as they are.
    """
    if out.is_file():
        raise OutputExistsError(f"{out} is a file: give a directory for the pictures with -o")
    grey, painted, truth = scene.open(context)
    position = look.position(grey.shape)
    stem, _ = split_name(Path(scene.volume))
    both = painted is not None and truth is not None
    pictures = [out / f"{stem}_{kind}.png" for kind in ("planes", "montage", "comparison")]
    note = out / f"{stem}_pictures.json"
    parts = [part.path for part in (grey, painted, truth) if part is not None]
    output = Output(
        note,
        state={"output": note.name} | _state(scene, look, position, grey),
        inputs=[path for path in parts if path is not None],
        beside=pictures,
        record=lambda: state_in(note),
        overwrite=overwrite,
        resumable=False,
    )
    with output:
        if output.done:
            _log.info("%s: the same pictures are there already", out)
        else:
            _draw(output, scene, look, (grey, painted, truth), context)
    return pictures if both else pictures[:2]


def _state(scene: Scene, look: Look, position: ZYX, grey: Volume) -> State:
    """Return what pictures depend on besides the content of the volumes."""
    legends = {"names": scene.names, "reference_names": scene.reference_names}
    facts = describe(grey)
    return {
        "settings": {"at": list(position), "style": look.style, "alpha": look.alpha, "slices": look.slices},
        "labels": scene.labels is not None,
        "reference": scene.reference is not None,
        "crop": facts["crop"],
        "voxel_size": facts["voxel_size_nm"],
        **identity(grey),
        **{key: {str(k): v for k, v in (legend or {}).items()} for key, legend in legends.items()},
    }


def _draw(
    output: Output,
    scene: Scene,
    look: Look,
    volumes: tuple[Volume, Volume | None, Volume | None],
    context: Context,
) -> None:
    """Draw the pictures and publish them."""
    grey = Thinned(volumes[0])
    painted, truth = (labels and Thinned(labels) for labels in volumes[1:])
    folder = output.path.parent
    stem = output.path.name.removesuffix("_pictures.json")
    position, shown = look.position(grey.source.shape), painted or truth
    at, steps = grey.at(position), grey.steps
    manner, names = Manner(look.style, look.alpha, steps), None if scene.names is None else dict(scene.names)
    raw = planes(grey, at)
    seen = _blank(raw) if shown is None else planes(shown, at)
    pixel = None if grey.voxel_size is None else (grey.voxel_size[1], grey.voxel_size[2])
    figures = {"planes": three_planes(raw, seen, grey.voxel_size, names, position=at, manner=manner)}
    context.report("drawing", 0.3)
    at_z = np.unique(np.linspace(0, grey.shape[0] - 1, look.slices + 2).round().astype(int)[1:-1]).tolist()
    cuts, places = None if shown is None else sections(shown, at_z), [z * steps[0] for z in at_z]
    figures["montage"] = montage(sections(grey, at_z), cuts, places, pixel, names, manner=manner)
    if painted and truth and volumes[1] and volumes[2]:
        cut, found, wished = (sections(part, [at[0]])[0] for part in (grey, painted, truth))
        classes = None if scene.reference_names is None else dict(scene.reference_names)
        merged = merged_greedily(volumes[1], volumes[2], found)
        figures["comparison"] = comparison(cut, merged, wished, classes, pixel, manner=manner)
    for kind, figure in figures.items():
        save(figure, output.growing(folder / f"{stem}_{kind}.png"), dpi=DPI)
    origin = provenance("pictures", inputs=output.inputs, extra={"state": output.state})
    write_json(output.growing(output.path), origin)
    output.publish()
    context.report("drawing", 1.0)


def _blank(like: Planes) -> Planes:
    z, y, x = (np.zeros(plane.shape, np.uint8) for plane in like)
    return z, y, x
