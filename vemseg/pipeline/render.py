"""``render``: pictures of a volume, its labels and a reference; surfaces, and views elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path

from vemseg.comparison import Scene
from vemseg.context import Context
from vemseg.drawing import Look
from vemseg.errors import OutputExistsError
from vemseg.gallery import View, Wishes, every_name, exhibits
from vemseg.run import Output, State, provenance, state_in, write_json
from vemseg.volume import Record, describe, identity

_log = logging.getLogger("vemseg")


def render(
    scene: Scene,
    out: Path,
    look: Look = Look(),
    *,
    wishes: Wishes = Wishes(),
    overwrite: bool = False,
    context: Context = Context(),
) -> list[Path]:
    """Draw three planes, a montage, a comparison of labels and reference, and what is wished.

    For the comparison, labels are merged into the reference's classes greedily: the merge looks at the
    reference, and the picture says so.

    Parameters
    ----------
    scene : Scene
    out : Path
        Directory of all files, which are named after the volume.
    look : Look
    wishes : Wishes
    overwrite : bool
        Replace files that are there.
    context : Context

    Returns
    -------
    list of Path
        What was made; ``<stem>_pictures.json`` beside it says how.

    Raises
    ------
    UsageError
        Where the planes cross outside the volume, or something needs labels and there are none.
    InputError
        Where volumes do not fit each other, or a library is missing.
    OutputExistsError
        Where ``out`` is a file, or files exist that were made with other settings and ``overwrite`` is not
        set. The same files are left as they are.
    """
    if out.is_file():
        raise OutputExistsError(f"{out} is a file: give a directory for the pictures with -o")
    view = View.of(scene, look, wishes, out, context)
    note, parts = out / f"{view.stem}_pictures.json", exhibits(view)
    made = [out / name for part in parts for name in part.files]
    output = Output(
        note,
        state={"output": note.name} | _state(view),
        inputs=view.sources,
        beside=[out / name for name in every_name(view.stem)],
        record=lambda: state_in(note),
        overwrite=overwrite,
        resumable=False,
    )
    with output:
        if output.done:
            _log.info("%s: the same pictures are there already", out)
            return made
        said: Record = {"state": output.state}
        for i, part in enumerate(reversed(parts)):  # what may be refused is found out early
            said |= part.make(lambda name: output.growing(out / name))
            context.report("drawing", (i + 1) / len(parts))
        write_json(output.growing(note), provenance("pictures", inputs=output.inputs, extra=said))
        output.publish()
    if "neuroglancer" in said:
        _log.info("neuroglancer: %s", said["neuroglancer"])
    return made


def _state(view: View) -> State:
    """Return what pictures depend on besides the content of the volumes."""
    scene, look, facts = view.scene, view.look, describe(view.grey)
    legends = {"names": scene.names, "reference_names": scene.reference_names}
    at = list(view.position)
    return {
        "settings": {"at": at, "style": look.style, "alpha": look.alpha, "slices": look.slices},
        "labels": scene.labels is not None,
        "reference": scene.reference is not None,
        "crop": facts["crop"],
        "voxel_size": facts["voxel_size_nm"],
        **identity(view.grey),
        **{key: {str(k): v for k, v in (legend or {}).items()} for key, legend in legends.items()},
        **({"wishes": wishes} if (wishes := view.wishes.state()) else {}),
    }
