"""Where an output comes from: what is written beside it, so that it can be made again or doubted."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import vemseg
from vemseg.errors import InputError
from vemseg.names import split_name
from vemseg.recipe import Recipe

FORMAT_VERSION = 1
"""Of everything that ``provenance`` describes; a change that old readers misread raises it."""

_LIBRARIES = (
    "torch",
    "timm",
    "numpy",
    "scipy",
    "zarr",
    "tifffile",
    "scikit-learn",
    "scikit-image",
    "safetensors",
)
_MEGABYTE = 2**20
_STARTED = datetime.now(UTC)
_ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def provenance(
    kind: str,
    *,
    recipe: Recipe | None = None,
    seed: int | None = None,
    parents: Iterable[Path] = (),
    inputs: Iterable[Path] = (),
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe an output that has just been finished.

    Parameters
    ----------
    kind : str
        What the output is, such as ``"segmentation"``.
    recipe : Recipe, optional
        The settings behind it.
    seed : int, optional
        Root of its random numbers.
    parents : iterable of Path
        Artifacts of this package it was made from (weights, cluster centres); they are hashed in full.
    inputs : iterable of Path
        Volumes it was made from; see ``fingerprint``.
    extra : mapping, optional
        What only the caller knows (device, voxel size, warnings); its keys are laid over the others.

    Returns
    -------
    dict
        Of plain JSON types if ``extra`` is.
    """
    return {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "vemseg": vemseg.__version__,
        "revision": _revision(),
        "image": os.environ.get("VEMSEG_IMAGE"),
        "command": shlex.join(sys.argv),
        "recipe": recipe.hash if recipe else None,
        "seed": seed,
        "parents": [fingerprint(path, whole=True) for path in parents],
        "inputs": [fingerprint(path) for path in inputs],
        "started": _STARTED.isoformat(timespec="seconds"),
        "finished": now(),
        "peak_memory_bytes": peak_memory(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": available_cores(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "libraries": _versions(),
        **(extra or {}),
    }


def sidecar(output: Path) -> Path:
    """Return the path of the description that lies beside an output: its name, ending in ``.json``."""
    stem, suffix = split_name(output)
    return output.with_name(f"{stem}.provenance.json" if suffix == ".json" else f"{stem}.json")


def fingerprint(path: Path, *, whole: bool = False) -> dict[str, Any]:
    """Tell one version of a file or directory from another, quickly.

    Parameters
    ----------
    path : Path
        A file, a Zarr hierarchy, or a directory of files.
    whole : bool
        Hash all of a file, not only its first and last megabyte.

    Returns
    -------
    dict
        ``path``, ``bytes`` (of a file), ``modified`` and ``sha256``: of a file's ends and size, of all the
        metadata of a Zarr hierarchy, or of the names and sizes in another directory.

    Raises
    ------
    InputError
        Where there is no such path.
    """
    if not path.exists():
        raise InputError(f"no such file or directory: {path}")
    status = path.stat()
    result: dict[str, Any] = {
        "path": str(path.resolve()),
        "modified": datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds"),
    }
    if path.is_dir():
        return result | {"sha256": _hash_directory(path)}
    return result | {"bytes": status.st_size, "sha256": _hash_file(path, status.st_size, whole=whole)}


def peak_memory() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # also counts what the process was before exec, hence the second choice; kB on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def now() -> str:
    """Return the time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _hash_file(path: Path, size: int, *, whole: bool) -> str:
    with path.open("rb") as file:
        if whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        digest.update(file.read(_MEGABYTE))
        file.seek(max(file.tell(), size - _MEGABYTE))
        digest.update(file.read())
    return digest.hexdigest()


def _hash_directory(path: Path) -> str:
    digest = hashlib.sha256()
    metadata = list(_zarr_metadata(path))
    for file in metadata:
        digest.update(f"{file.relative_to(path).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    if not metadata:
        for file in sorted(path.iterdir()):
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
    return digest.hexdigest()


def _zarr_metadata(node: Path) -> Iterable[Path]:
    """Yield the metadata files of a Zarr group and all below it, without listing any chunks."""
    files = [node / name for name in _ZARR_METADATA if (node / name).is_file()]
    yield from files
    if files and not _is_zarr_array(node):
        for child in sorted(node.iterdir()):
            if child.is_dir():
                yield from _zarr_metadata(child)


def _is_zarr_array(node: Path) -> bool:
    if (node / ".zarray").exists():
        return True
    try:
        return bool(json.loads((node / "zarr.json").read_text())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _versions() -> dict[str, str]:
    """Return the versions of the libraries that shape results, without importing any."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _revision() -> str | None:
    """Return the commit of the checkout this package runs from, if it does, with ``-dirty`` where changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
