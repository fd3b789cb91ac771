"""Reads the released weights of MAESTER. No code in a checkpoint is executed."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vemseg.errors import InputError, MissingError
from vemseg.foreign import reading
from vemseg.models.building import build_objective
from vemseg.models.objective import Objective
from vemseg.models.weights import load_state, refuse_oversized
from vemseg.recipe import MaesterTable, Recipe, load_recipe

REFERENCE_DECODER = {
    "decoder_embed": "embed",
    "mask_token": "mask_token",
    "decoder_pos_embed": "pos_embed",
    "decoder_blocks": "blocks",
    "decoder_norm": "norm",
    "decoder_pred": "pred",
}
"""From the names of the decoder's parts in the reference code of MAESTER to their names here."""


def import_maester(
    path: Path, heads: int = 1, decoder_heads: int = 8, pos_weight: float = 0.08
) -> tuple[MaesterTable, Objective]:
    """Read a checkpoint of the reference code of MAESTER (a ``.pt`` state dict).

    The sizes of the model follow from its tensors; settings that leave no trace in them are parameters.

    Parameters
    ----------
    path : Path
        Opened with ``weights_only=True``: nothing in it is executed.
    heads, decoder_heads : int
        Number of attention heads; by default as in the paper.
    pos_weight : float
        Weight of the encoder's positional embedding; by default as in the paper.

    Returns
    -------
    settings : MaesterTable
        The ``[model]`` table of a recipe with these sizes.
    objective : Objective
        The model with the checkpoint's weights, float32.

    Raises
    ------
    InputError
        Where the file is not such a checkpoint.
    """
    state = _read_pt(path)
    with reading(f"{path}: no MAESTER checkpoint"):
        dim, _, _, patch = state["patch_embed.proj.weight"].shape
        side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
        settings = MaesterTable(
            fov=side * patch,
            patch=patch,
            dim=dim,
            depth=_count(state, "blocks"),
            heads=heads,
            mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
            pos_weight=pos_weight,
            decoder_dim=state["decoder_embed.weight"].shape[0],
            decoder_depth=_count(state, "decoder_blocks"),
            decoder_heads=decoder_heads,
        )
    refuse_oversized(lambda: build_objective(settings, 0), sum(v.numel() for v in state.values()), path)
    objective = build_objective(settings, 0)
    load_state(objective, {_our_name(name): value.float() for name, value in state.items()}, path)
    return settings, objective


def reference_recipe(table: MaesterTable, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe for a checkpoint of MAESTER: that of the paper, with the sizes of the checkpoint."""
    sizes = [f"model.{key}={value}" for key, value in table.model_dump().items() if key != "kind"]
    return load_recipe("maester", [*sizes, *settings])


def _read_pt(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingError(f"no checkpoint at {path}")
    with reading(f"{path}: no checkpoint, or one that holds more than tensors"):
        _refuse_packed(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided
        for name, value in state.items()
    ):
        raise InputError(f"{path}: holds no state dict of tensors")
    size, room = sum(value.nbytes for value in state.values()), path.stat().st_size
    if size > room:
        raise InputError(f"{path}: its tensors claim {size} bytes, but the file has {room}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _refuse_packed(path: Path) -> None:
    """Refuse files of other formats than PyTorch's since 1.6, and archives whose content outgrows them."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: no checkpoint of PyTorch 1.6 or later: load it and save it again")
    with zipfile.ZipFile(path) as archive:
        size, room = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if size > room:
        raise InputError(f"{path}: its parts claim {size} bytes, but the file has {room}")


def _our_name(name: str) -> str:
    head, _, rest = name.partition(".")
    if head in REFERENCE_DECODER:
        return f"decoder.{REFERENCE_DECODER[head]}" + (f".{rest}" if rest else "")
    return f"encoder.{name}"


def _count(state: dict[str, Tensor], blocks: str) -> int:
    """Return the number of blocks, whose numbers in the names of tensors leave none out."""
    found = {name.split(".")[1] for name in state if name.startswith(f"{blocks}.")}
    if found != {str(number) for number in range(len(found))}:
        raise ValueError(f"{blocks} are not numbered from 0 to {len(found) - 1}")
    return len(found)
