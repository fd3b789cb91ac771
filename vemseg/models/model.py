"""Models: a recipe, the weights of its encoder, and how a user names them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.catalog import DEFAULT_WEIGHTS, bundled_weights, find_weights
from vemseg.errors import InputError, MissingError
from vemseg.models.checkpoints import import_maester, reference_recipe
from vemseg.models.encoder import Encoder, Spacing
from vemseg.models.weights import load_codes, load_encoder
from vemseg.recipe import KINDS, Recipe, load_recipe, override, shipped
from vemseg.run import Run, sha256

_log = logging.getLogger("vemseg")


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

    @property
    def trained(self) -> bool:
        """Whether its kind is trained at all."""
        return KINDS[self.recipe.model.kind].objective is not None

    def load(self, spacing: Spacing = (1.0, 1.0, 1.0)) -> Encoder:
        """Return the encoder with its weights, float32, on the CPU.

        Parameters
        ----------
        spacing : (float, float, float)
            Edges of the working voxels in units of the shortest.
        """
        if self.weights is not None and self.weights.suffix != ".safetensors":
            return import_maester(self.weights)[1].encoder
        return load_encoder(self.recipe.model, self.weights, spacing)

    @property
    def codes(self) -> NDArray[np.float32] | None:
        """The codebook (n, d) it learned, None where there is none."""
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
        Where there is no such model, or the path leads to something else.
    """
    if name is None:
        model = _run(find_weights(DEFAULT_WEIGHTS), f"bundled {DEFAULT_WEIGHTS}", settings)
        _log.info("no model named: using the bundled weights '%s'", DEFAULT_WEIGHTS)
        return model
    path = Path(name)
    if path.suffix == ".safetensors" and not path.is_dir():
        return _snapshot(path, settings)
    if path.is_file() or (path.suffix in (".pt", ".pth") and not path.is_dir()):
        return Model(reference_recipe(import_maester(path)[0], settings), path, str(path))
    if "/" in name or len(path.parts) > 1 or (path.is_dir() and name not in bundled_weights()):
        return _run(path, str(path), settings)
    if name in shipped() and KINDS[load_recipe(name).model.kind].objective is None:
        return Model(load_recipe(name, settings), None, name)
    if name in shipped() and name not in bundled_weights():
        raise InputError(f"recipe '{name}' has to be trained first: vemseg train VOLUME -c {name} -o RUN")
    return _run(find_weights(name), f"bundled {name}", settings)


def pinned_name(name: str) -> str:
    """Return a name that leads to the same model from any folder."""
    path = Path(name)
    named = "/" not in name and name in bundled_weights()
    return str(path.absolute()) if path.exists() and not named else name


def _run(path: Path, title: str, settings: Sequence[str]) -> Model:
    """Return the model of a run directory."""
    run = Run.open(path)
    trained = KINDS[run.recipe.model.kind].objective is not None
    return Model(override(run.recipe, settings), run.model if trained else None, title)


def _snapshot(path: Path, settings: Sequence[str]) -> Model:
    """Return the encoder of a run as it was at an earlier step."""
    if not path.is_file():
        raise MissingError(f"no weights at {path}")
    return Model(override(Run.open(path.parent).recipe, settings), path, str(path))
