"""The card of a run: what its model is, in the words of bioimage.io's resource descriptions.

The file ``rdf.yaml`` is written as JSON, which is YAML too. It has the fields by which bioimage.io describes
models (format 0.5: axes, data types and value ranges of inputs and outputs, weights with their hash), as far
as a run knows them. Its weights are a safetensors file that vemseg opens, so a network alone, as the
bioimage.io zoo wants it, is not in it, and authors, licence and test tensors are for people to add. Nothing
in it changes when the same training is done again.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from vemseg.recipe import Recipe
from vemseg.run.files import Json
from vemseg.run.fingerprint import sha256

FORMAT = "0.5.4"
"""The version of the format whose words are used."""


SPACE: tuple[Json, ...] = tuple({"type": "space", "id": axis, "unit": "nanometer"} for axis in "zyx")
"""The axes of space; how large windows are follows from the recipe, and memory."""


def card(recipe: Recipe, info: Json, model: Path) -> Json:
    """Return the card of a finished run.

    Parameters
    ----------
    recipe : Recipe
    info : dict
        What the run says of itself.
    model : Path
        Its weights.

    Returns
    -------
    dict
        Plain JSON types. The content of volumes is a hash, as ``fingerprint`` has it.
    """
    kind, size = recipe.model.kind, recipe.volume.voxel_size
    edges = list(size) if isinstance(size, tuple) else size
    sources = [
        {"source": PurePath(str(entry.get("path"))).name, "content": entry.get("content")}
        for entry in info.get("inputs") or []
    ]
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": f"vemseg {kind}",
        "description": f"An encoder of the kind {kind}: voxels of electron microscopy become vectors, which "
        "vemseg divides into classes.",
        "tags": ["electron-microscopy", "3d", "segmentation", "vemseg", kind],
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["grey"]}, *SPACE],
                "data": {"type": "float32", "range": [0.0, 1.0]},
            }
        ],
        "outputs": [
            {
                "id": "vectors",
                "axes": [{"type": "batch"}, {"type": "channel"}, *SPACE],
                "data": {"type": "float32"},
            }
        ],
        "weights": {"safetensors": {"source": model.name, "sha256": sha256(model), "opened_by": "vemseg"}},
        "training_data": sources,
        "config": {"vemseg": {"voxel_size_nm": edges, "recipe": recipe.to_toml(), "run": "run.json"}},
    }
