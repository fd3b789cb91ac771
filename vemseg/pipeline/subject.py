"""What is segmented: a volume, where its vectors come from, and how these lie in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.dense import DenseEncoder, StoredVectors
from vemseg.errors import InputError, UsageError
from vemseg.features import Features
from vemseg.geometry import ZYX, Box
from vemseg.pipeline.blocking import Blocks
from vemseg.pipeline.common import Model, open_input, open_model, sharp_plane_first
from vemseg.pipeline.dense_input import lay_model
from vemseg.pipeline.memory import label_blocks
from vemseg.recipe import Recipe, override, parse_recipe
from vemseg.volume import Volume


@dataclass(frozen=True)
class Subject:
    """What is segmented.

    Attributes
    ----------
    volume : Volume
        The grey volume.
    vectors : DenseEncoder or StoredVectors
        In the orientation whose sharp plane is (y, x).
    order : (int, int, int)
        Axes of that orientation in the volume's.
    recipe : Recipe
    model : str
        Hash of the model.
    title : str
        Name of the model, for people.
    codes : float32 (n, d) or None
        The model's codebook.
    inputs, parents : list of Path
    """

    volume: Volume
    vectors: DenseEncoder | StoredVectors
    order: ZYX
    recipe: Recipe
    model: str
    title: str
    codes: NDArray[np.float32] | None
    inputs: list[Path]
    parents: list[Path]

    def turn(self, box: Box) -> Box:
        """Return a box of the volume in the orientation of the vectors."""
        return Box(_ordered(box.start, self.order), _ordered(box.stop, self.order))

    @property
    def sample(self) -> int:
        """How many vectors classes are fitted on."""
        return self.recipe.cluster.sample_of(math.prod(self.volume.shape))

    @property
    def back(self) -> ZYX:
        """Axes of the volume in the orientation of the vectors: turns arrays back."""
        return self.order.index(0), self.order.index(1), self.order.index(2)

    def blocks(self, k: int, limit: int | None) -> Blocks:
        """Choose the blocks to segment into ``k`` classes within a number of bytes (see ``label_blocks``)."""
        chosen = label_blocks(self.vectors, _ordered(self.volume.shape, self.order), k, limit)
        return chosen.turned(self.back)


def open_subject(
    path: str,
    *,
    model: str | None,
    clusters: Path | None,
    settings: Sequence[str],
    voxel_size: str | None,
    crop: str | None,
    device: str,
) -> Subject:
    """Open a volume and lay a model over it, or open stored features and the volume they are of.

    Raises
    ------
    UsageError
        Where options contradict what features were made with.
    InputError, MissingError
        Where something cannot be read.
    """
    parents = [clusters] if clusters else []
    if (Path(path) / "vectors").is_dir():
        if model or voxel_size or crop:
            raise UsageError(
                f"{path} holds features: model, voxel size and crop are those they were made with"
            )
        return _open_features(Path(path), parents, settings)
    chosen: Model = open_model(model, settings)
    volume = open_input(path, voxel_size, crop)
    oriented, order = sharp_plane_first(volume)
    return Subject(
        volume,
        lay_model(chosen, oriented, device),
        order,
        chosen.recipe,
        chosen.hash,
        chosen.title,
        chosen.codes,
        [volume.path] if volume.path else [],
        [*chosen.parents, *parents],
    )


def _open_features(path: Path, parents: list[Path], settings: Sequence[str]) -> Subject:
    features = Features(path)
    facts = features.attributes
    source = facts["volume"]
    size = None if features.voxel_size is None else ",".join(map(str, features.voxel_size))
    volume = open_input(source["path"], size, source["crop"])
    if volume.shape != features.source_shape:
        raise InputError(f"{source['path']} has changed since {path} was made from it: {volume.shape} voxels")
    recipe = override(parse_recipe(facts["recipe"], str(path)), settings)
    z, y, x = facts["order"]
    vectors, title = StoredVectors(features), f"of {path}"
    return Subject(volume, vectors, (z, y, x), recipe, facts["model"], title, features.codes, [path], parents)


def _ordered(axes: ZYX, order: ZYX) -> ZYX:
    return axes[order[0]], axes[order[1]], axes[order[2]]
