"""What several verbs begin with: opening inputs and models, and saying how far they are."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vemseg.catalog import DEFAULT_WEIGHTS, bundled_weights, find_weights
from vemseg.errors import InputError, MissingError
from vemseg.geometry import parse_voxel_size, sharp_axis
from vemseg.recipe import MODEL_KINDS, MaesterTable, Recipe, load_recipe, override, shipped
from vemseg.run import Run, sha256
from vemseg.volume import Cropped, Intensity, Permuted, Volume, measure_intensity, open_volume

log = logging.getLogger("vemseg")


class Report(Protocol):
    """Told how far a stage is: its name, the part that is done (0..1), and a word on it."""

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        """Show it."""


def silent(stage: str, fraction: float, detail: str = "") -> None:
    """Show nothing: a report nobody waits for."""


def part_of(report: Report, index: int, count: int) -> Report:
    """Return what the work on one of ``count`` things reports to, so that ``report`` hears of all of them."""

    def tell(stage: str, fraction: float, detail: str = "") -> None:
        report(stage, (index + fraction) / count, detail)

    return tell


@dataclass(frozen=True)
class Model:
    """An encoder that can be loaded: its recipe, its weights, and how to speak of it.

    Attributes
    ----------
    recipe : Recipe
        What the encoder is and how it is used.
    weights : Path or None
        A safetensors file, a checkpoint of the reference code of MAESTER, or None where nothing is
        trained.
    title : str
        Name for messages and provenance.
    """

    recipe: Recipe
    weights: Path | None
    title: str

    def load(self, spacing: tuple[float, float, float]) -> Any:
        """Return the encoder with its weights, float32, on the CPU."""
        from vemseg.models import import_maester, load_encoder

        if self.weights is not None and self.weights.suffix != ".safetensors":
            return import_maester(self.weights)[1].encoder
        return load_encoder(self.recipe, self.weights, spacing)

    @property
    def codes(self) -> NDArray[np.float32] | None:
        """The codebook (n, d) it learned, None where there is none."""
        from vemseg.models import load_codes

        return load_codes(self.weights)

    @property
    def parents(self) -> list[Path]:
        """The files that decide what it computes."""
        return [] if self.weights is None else [self.weights]

    @property
    def hash(self) -> str:
        """SHA-256 of what its vectors depend on: the weights, the encoder's settings, the voxels it sees."""
        weights = sha256(self.weights) if self.weights else None
        tables = [self.recipe.settings[table] for table in ("volume", "model")]
        return hashlib.sha256(json.dumps([weights, *tables], sort_keys=True).encode()).hexdigest()


def open_model(name: str | None, settings: Sequence[str] = ()) -> Model:
    """Find the model a user names.

    Parameters
    ----------
    name : str or None
        A run directory, a snapshot in one, a recipe that needs no training, a checkpoint file of the
        reference code of MAESTER, or the name of bundled weights (a directory of that name is written
        ``./name``); None for the default ones.
    settings : sequence of str
        ``table.key=value`` laid over the model's recipe.

    Raises
    ------
    MissingError, InputError
        Where there is no such model, or the path is none.
    """
    if name is None:
        name, folder = DEFAULT_WEIGHTS, find_weights(DEFAULT_WEIGHTS)
        log.info("no model named: using the bundled weights '%s' (%s)", name, folder)
        return run_model(folder, f"bundled {name}", settings)
    path = Path(name)
    if path.suffix == ".safetensors" and not path.is_dir():
        return _snapshot(path, settings)
    if path.is_file() or (path.suffix in (".pt", ".pth") and not path.is_dir()):
        return _reference_checkpoint(path, settings)
    if "/" in name or len(path.parts) > 1 or (path.is_dir() and name not in bundled_weights()):
        return run_model(path, str(path), settings)
    if name in shipped() and not MODEL_KINDS[load_recipe(name).model.kind].trains:
        return Model(load_recipe(name, settings), None, name)
    if name in shipped() and name not in bundled_weights():
        raise InputError(f"recipe '{name}' has to be trained first: vemseg train VOLUME -c {name} -o RUN")
    return run_model(find_weights(name), f"bundled {name}", settings)


def run_model(path: Path, title: str, settings: Sequence[str] = ()) -> Model:
    """Return the model of a run directory."""
    run = Run.open(path)
    trains = MODEL_KINDS[run.recipe.model.kind].trains
    return Model(override(run.recipe, settings), run.model if trains else None, title)


def _snapshot(path: Path, settings: Sequence[str]) -> Model:
    """Return the encoder of a run as it was at an earlier step."""
    if not path.is_file():
        raise MissingError(f"no weights at {path}")
    return Model(override(Run.open(path.parent).recipe, settings), path, str(path))


def _reference_checkpoint(path: Path, settings: Sequence[str]) -> Model:
    from vemseg.models import import_maester

    table, _ = import_maester(path)
    return Model(reference_recipe(table, settings), path, str(path))


def reference_recipe(table: MaesterTable, settings: Sequence[str] = ()) -> Recipe:
    """Return how a checkpoint of the reference code of MAESTER is used: as the paper says, in its sizes."""
    sizes = [f"model.{key}={value}" for key, value in table.model_dump().items() if key != "kind"]
    return load_recipe("maester", [*sizes, *settings])


def open_input(path: str | Path, voxel_size: str | None = None, crop: str | None = None) -> Volume:
    """Open a volume, say once where its voxel size is unknown, and crop it."""
    size = None if voxel_size is None else parse_voxel_size(voxel_size)
    volume = open_volume(path, voxel_size=size, crop=crop)
    if volume.voxel_size is None:
        log.warning(
            "%s: voxel size unknown, taken as the model's; outputs carry none (--voxel-size z,y,x gives it)",
            volume.name,
        )
    return volume


def sharp_plane_first(volume: Volume) -> tuple[Volume, tuple[int, int, int]]:
    """Turn a volume so that its sharp plane is (y, x); return it and the order of the axes."""
    axis = sharp_axis(volume.voxel_size)
    order = [(0, 1, 2), (1, 0, 2), (2, 0, 1)][axis]
    return (volume if axis == 0 else Permuted(volume, order)), order


def intensity_of(volume: Volume, recipe: Recipe) -> Intensity:
    """Return what maps a volume's voxels to [0, 1], as the recipe says."""
    table = recipe.volume
    if table.intensity == "range":
        return Intensity(*table.range)
    return measure_intensity(volume, table.percentiles)


def describe(volume: Volume, intensity: Intensity | None = None) -> dict[str, Any]:
    """Return what provenance says of an input volume."""
    facts: dict[str, Any] = {
        "path": None if volume.path is None else str(volume.path.resolve()),
        "shape": list(volume.shape),
        "dtype": str(volume.dtype),
        "voxel_size_nm": None if volume.voxel_size is None else list(volume.voxel_size),
        "voxel_size_from": volume.voxel_size_from,
        "crop": str(volume.crop) if isinstance(volume, Cropped) else None,
    }
    if intensity is not None:
        facts["intensity"] = {"low": intensity.low, "high": intensity.high}
    return facts


Stopped = Callable[[], bool]
"""Asked now and then whether to stop."""
