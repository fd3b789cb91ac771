"""Saves the weights of an encoder in safetensors files, and loads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vemseg.errors import InputError, MissingError
from vemseg.foreign import Form, reading
from vemseg.models.building import build_encoder
from vemseg.models.codebook import CODES
from vemseg.models.encoder import Encoder, Spacing
from vemseg.models.objective import Objective
from vemseg.models.sccs import LABELLER
from vemseg.recipe import ModelTable
from vemseg.run import load_tensors, save_tensors

BESIDE = "beside"
"""Key in the metadata of a file of weights: names of tensors in it that are not the encoder's."""

_NAMES = Form(list[str])


def save_encoder(path: Path, objective: Objective, metadata: Mapping[str, object]) -> None:
    """Write an objective's encoder, and the tensors it keeps beside that, as float32."""
    beside = objective.tensors()
    tensors: dict[str, Tensor] = {**objective.encoder.state_dict(), **beside}
    arrays = {name: value.detach().float().cpu().numpy() for name, value in tensors.items()}
    save_tensors(path, arrays, {**metadata, BESIDE: list(beside)} if beside else metadata)


def load_codes(weights: Path | None) -> NDArray[np.float32] | None:
    """Return the codebook (codes, dim) that was saved with an encoder's weights, or None without one."""
    if weights is None or weights.suffix != ".safetensors" or not weights.is_file():
        return None
    return load_tensors(weights)[0].get(CODES)


def load_learned(weights: Path | None) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the labeller that was saved with an encoder's weights; none without one."""
    if weights is None or weights.suffix != ".safetensors" or not weights.is_file():
        return {}
    saved = load_tensors(weights)[0].items()
    return {name.removeprefix(LABELLER): value for name, value in saved if name.startswith(LABELLER)}


def load_encoder(table: ModelTable, weights: Path | None, spacing: Spacing = (1.0, 1.0, 1.0)) -> Encoder:
    """Return an encoder with its weights, in float32, on the CPU.

    Parameters
    ----------
    table : ModelTable
        The ``[model]`` table of the encoder's recipe.
    weights : Path or None
        A safetensors file as :func:`save_encoder` writes it, in any precision; None for an encoder that needs
        no training.
    spacing : (float, float, float)
        As for :func:`build_encoder`.

    Raises
    ------
    MissingError
        Where the file is not there.
    InputError
        Where the tensors are not those of this encoder.
    """
    if weights is None:
        return build_encoder(table, spacing)
    if not weights.is_file():
        raise MissingError(f"no weights at {weights}: train the run to its first checkpoint")
    arrays, facts = load_tensors(weights)
    for name in _NAMES.check(facts.get(BESIDE, []), f"{weights}: damaged weights"):
        arrays.pop(name, None)
    refuse_oversized(lambda: build_encoder(table, spacing), sum(a.size for a in arrays.values()), weights)
    encoder = build_encoder(table, spacing)
    load_state(encoder, {name: torch.from_numpy(value).float() for name, value in arrays.items()}, weights)
    return encoder


def refuse_oversized(build: Callable[[], nn.Module], held: int, path: Path) -> None:
    """Refuse settings that ask for more numbers than a file holds, before any memory is taken for them.

    Parameters
    ----------
    build : callable
        Makes the module of the settings; it is called where tensors have shapes and no values.
    held : int
        Numbers in the file.
    path : Path
        The file, for the message.

    Raises
    ------
    InputError
        Where the module has more of them.
    """
    with torch.device("meta"), _Unfilled():
        asked = sum(value.numel() for value in build().state_dict().values())
    if asked > held:
        raise InputError(
            f"{path}: not the weights of this model (its settings ask for {asked} numbers, it holds {held})"
        )


class _Unfilled(TorchFunctionMode):
    """Leaves tensors without random numbers.

    For tensors without values these are drawn by PyTorch's compiler, which takes seconds and 200 MiB to load.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of PyTorch, unless it draws random numbers."""
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def load_state(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the tensors of a file into a module.

    Raises
    ------
    InputError
        Where names or shapes are not the module's.
    """
    with reading(f"{path}: not the weights of this model"):
        module.load_state_dict(state)
