"""JSON and named arrays, which describe runs and results: written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from vemseg.errors import InputError, MissingError
from vemseg.files import atomic_path, write_text
from vemseg.foreign import read_text, reading

Json = dict[str, Any]
"""An object of JSON: plain values by name."""

Tensors = dict[str, NDArray[Any]]
"""Arrays of numbers or booleans, of any shape, by name."""

_METADATA_KEY = "vemseg"


def write_json(path: Path, data: object, shared: bool = False) -> None:
    """Write JSON that every reader understands, whole or not at all.

    Paths become strings, numpy's numbers and arrays become numbers and lists. For ``shared`` see
    ``atomic_path``.

    Raises
    ------
    ValueError
        For NaN and infinities, which JSON does not have.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=plain)
    write_text(path, text + "\n", shared)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        Where the file cannot be read, is not a regular file, or is not JSON.
    """
    complaint = f"cannot read {path}"
    text = read_text(path, complaint)
    with reading(complaint):
        return json.loads(text)


def save_tensors(
    path: Path,
    tensors: Mapping[str, NDArray[np.generic]],
    metadata: Mapping[str, object],
    shared: bool = False,
) -> None:
    """Write named arrays as safetensors, whole or not at all.

    Parameters
    ----------
    path : Path
        Usually ``*.safetensors``.
    tensors : mapping of str to array
        Numbers and booleans of any shape. numpy has no bfloat16: convert it first.
    metadata : mapping
        Anything JSON has; it goes into the header of the file.
    shared : bool
        As in ``atomic_path``.
    """
    header = {_METADATA_KEY: json.dumps(metadata, allow_nan=False, default=plain)}
    # order="C", because ascontiguousarray would give an axis to an array that has none
    data = save({name: np.asarray(array, order="C") for name, array in tensors.items()}, header)
    with atomic_path(path, shared) as temporary:
        temporary.write_bytes(data)  # safetensors' own writer makes files that only their owner may read


def load_tensors(path: Path) -> tuple[Tensors, Json]:
    """Read what ``save_tensors`` wrote.

    Returns
    -------
    dict of arrays, dict
        The arrays by name and the metadata; the latter is empty for files that others wrote.

    Raises
    ------
    MissingError
        Where there is no such file.
    InputError
        Where the file is not safetensors, is cut off, or holds a type that numpy does not have.
    """
    if not path.is_file():
        raise MissingError(f"no file {path}")
    complaint = f"cannot read {path} as safetensors"
    with reading(complaint), safe_open(path, framework="numpy") as file:
        metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
        if not isinstance(metadata, dict):
            raise InputError(f"{complaint}: what it says about itself is not a table")
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def plain(value: object) -> object:
    """Turn an array, a number of numpy or a path into what JSON can hold: a list, a number or a text."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
