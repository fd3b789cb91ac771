"""Weights that ship with the package, each a slim run directory with a model card."""

from __future__ import annotations

from pathlib import Path

from vemseg.errors import MissingError
from vemseg.recipe.spelling import nearest

DEFAULT_WEIGHTS = "vemseg"
"""The name of the weights that are used where a user names none."""

RELEASED = "maester-betaseg"
"""The name of weights that others released and that can be imported; they do not ship with the package."""

HOW_RELEASED = (
    "MAESTER as its authors released it, trained on BetaSeg: not bundled. Get model.pt and k6.txt by hand "
    "from the link in their repository (bowang-lab/MAESTER), then: vemseg fetch weights --from model.pt "
    f"--centroids k6.txt -o {RELEASED}"
)
"""How to get and import the weights of ``RELEASED``, in words for users."""


def bundled_weights() -> dict[str, Path]:
    """Return the weights inside the package by name; each is a directory that ``Run.open`` reads."""
    folder = Path(__file__).parents[1] / "weights"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/model.safetensors"))}


def find_weights(name: str) -> Path:
    """Return the directory of bundled weights.

    Raises
    ------
    MissingError
        Where there are none of that name; the message lists those there are, the nearest first.
    """
    known = bundled_weights()
    if name in known:
        return known[name]
    if name == RELEASED:
        raise MissingError(HOW_RELEASED)
    listed = ", ".join(known) or "none"
    raise MissingError(
        f"no weights '{name}'{nearest(name, known)}: name bundled ones ({listed}), a run directory, "
        "or a .pt checkpoint"
    )
