"""Opens models: a model is a recipe and the weights of its encoder, and users name it in several ways."""

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
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.models.building import differing_encoder
from vemseg.models.checkpoints import import_maester, reference_recipe
from vemseg.models.encoder import Encoder, Spacing
from vemseg.models.weights import load_codes, load_encoder, load_learned
from vemseg.recipe import KINDS, METHODS, Recipe, load_recipe, override, shipped
from vemseg.run import Run, sha256

_log = logging.getLogger("vemseg")


@dataclass(frozen=True)
class Model:
    """An encoder that can be loaded: its recipe, its weights and a title.

    Attributes
    ----------
    recipe : Recipe
        The settings of the encoder and of its use.
    weights : Path or None
        A safetensors file, a checkpoint of the reference code of MAESTER, or None if the encoder needs no
        training.
    title : str
        The name of the model in messages and provenance.
    """

    recipe: Recipe
    weights: Path | None
    title: str

    @property
    def trained(self) -> bool:
        """Whether models of this kind are trained at all."""
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

    def refuse_other(self, recipe: Recipe) -> None:
        """Refuse a recipe whose encoder has other settings, but for those of a last layer that is new there.

        Raises
        ------
        UsageError
            Names the settings.
        """
        fresh = {f"model.{key}" for key in recipe.model.last_layer}
        differing = [key for key in differing_encoder(recipe.model, self.recipe.model) if key not in fresh]
        if differing:
            raise UsageError(
                f"{self.title} is another model than the recipe's: it differs in {', '.join(differing)}"
            )

    @property
    def codes(self) -> NDArray[np.float32] | None:
        """The codebook (n, d) that the model learned, or None if it has none."""
        return load_codes(self.weights)

    @property
    def learned(self) -> dict[str, NDArray[np.generic]]:
        """The labeller that was trained together with the model, as its arrays; empty if there is none."""
        return load_learned(self.weights)

    @property
    def parents(self) -> list[Path]:
        """The files that its vectors depend on."""
        return [] if self.weights is None else [self.weights]

    @property
    def hash(self) -> str:
        """SHA-256 of all that its vectors depend on: weights and the settings of voxels and encoder."""
        weights = sha256(self.weights) if self.weights else None
        tables = [self.recipe.settings[table] for table in ("volume", "model")]
        return hashlib.sha256(json.dumps([weights, *tables], sort_keys=True).encode()).hexdigest()


def open_model(name: str | None, settings: Sequence[str] = ()) -> Model:
    """Open the model that a user names.

    Parameters
    ----------
    name : str or None
        A run directory, a snapshot in a run directory, a recipe that needs no training, a checkpoint of the
        reference code of MAESTER, or the name of bundled weights (write ``./name`` for a directory of the
        same name). None opens the default weights.
    settings : sequence of str
        ``table.key=value`` each, which replace settings of the model's recipe.

    Raises
    ------
    MissingError, InputError
        Where there is no such model, or the path is that of something else.
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
    table, method = run.recipe.model, METHODS[run.recipe.cluster.method]
    trained = KINDS[table.kind].objective is not None or method.objective is not None
    return Model(override(run.recipe, settings), run.model if trained else None, title)


def _snapshot(path: Path, settings: Sequence[str]) -> Model:
    """Return the model of a run as it was at an earlier step."""
    if not path.is_file():
        raise MissingError(f"no weights at {path}")
    return Model(override(Run.open(path.parent).recipe, settings), path, str(path))
