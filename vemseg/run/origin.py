"""Where an output comes from: the record beside it, by which it can be made again or doubted."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import vemseg
from vemseg.errors import InputError, UsageError
from vemseg.names import split_name
from vemseg.recipe import Recipe
from vemseg.resources import usable_cores
from vemseg.run.files import Json, read_json
from vemseg.run.fingerprint import TIMES, Record, checksum

FORMAT_VERSION = 1
"""The version of the formats of all outputs; it rises with a change that older readers would misread."""

PASSING = frozenset(
    {
        *("started", "finished", "peak_memory_bytes", "command"),
        *("host", "platform", "cores", "omp_num_threads", "machine"),
    }
)
"""What a description says of one call of the command: next time it differs, though the result does not."""

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
_STARTED = datetime.now(UTC)


def provenance(
    kind: str,
    *,
    recipe: Recipe | None = None,
    seed: int | None = None,
    parents: Iterable[Path] = (),
    inputs: Iterable[Record] = (),
    extra: Mapping[str, object] | None = None,
) -> Json:
    """Describe an output that has just been finished.

    Parameters
    ----------
    kind : str
        What the output is, such as ``"segmentation"``.
    recipe : Recipe, optional
        The settings behind it.
    seed : int, optional
        The seed of its random numbers.
    parents : iterable of Path
        Artifacts of this package it was made from (weights, cluster centres), with their SHA-256.
    inputs : iterable of dict
        Fingerprints of the volumes it was made from (see ``vemseg.run.fingerprint``).
    extra : mapping, optional
        What only the caller knows (device, voxel size, warnings); its keys replace others of the same name.

    Returns
    -------
    dict
        The description; it has plain JSON types alone if ``extra`` has.
    """
    return {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "vemseg": vemseg.__version__,
        "revision": revision(),
        "image": os.environ.get("VEMSEG_IMAGE"),
        "command": shlex.join(sys.argv),
        "recipe": recipe.hash if recipe else None,
        "seed": seed,
        "parents": [checksum(path) for path in parents],
        "inputs": list(inputs),
        "started": _STARTED.isoformat(timespec="seconds"),
        "finished": now(),
        "peak_memory_bytes": peak_memory(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": usable_cores(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "libraries": _versions(),
        **(extra or {}),
    }


def lasting(origin: Mapping[str, object]) -> Json:
    """Return a description without what may differ the next time; this is written into the output itself.

    So the same command on the same content makes the same files, byte for byte, but for the descriptions that
    lie beside them. Those alone say when inputs were written.
    """
    found = {key: _untimed(key, value) for key, value in origin.items() if key not in PASSING}
    if isinstance(state := found.get("state"), Mapping):
        found["state"] = {key: _untimed(key, value) for key, value in state.items()}
    return found


def _untimed(key: str, value: object) -> object:
    """Return an entry of a description or state; fingerprints and checksums in it without their times."""
    if key not in ("inputs", "parents") or not isinstance(value, list):
        return value
    return [{name: fact for name, fact in one.items() if name not in TIMES} for one in value]


def sidecar(output: Path) -> Path:
    """Return the path of the description that lies beside an output: its name, ending in ``.json``.

    Clusters keep their ending before that, since labels of the same stem often lie beside them.

    Raises
    ------
    UsageError
        Where the path is that of a folder, such as ``.``, and has no name.
    """
    if output.name in ("", ".."):
        raise UsageError(f"'{output}' is not the name of a file: give another -o")
    stem, suffix = split_name(output)
    stem = output.name if suffix == ".safetensors" else stem
    return output.with_name(f"{stem}.provenance.json" if suffix == ".json" else f"{stem}.json")


def state_in(description: Path) -> Json | None:
    """Return the state in the description (JSON) of a result; None without such a file or such an entry."""
    found: object = None
    with contextlib.suppress(InputError):
        found = read_json(description)
    state = found.get("state") if isinstance(found, dict) else None
    return state if isinstance(state, dict) else None


def peak_memory() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # getrusage also counts the process before exec, so it comes second; it gives kB on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def now() -> str:
    """Return the time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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
def revision() -> str | None:
    """Return the commit of the checkout this package lies in, with ``-dirty`` where changed; else None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
