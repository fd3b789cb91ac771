"""``vemseg --diagnose``: what the report of a problem should say."""

from __future__ import annotations

import os
import sys

import vemseg
from vemseg.cli import shell

LIBRARIES = ("torch", "timm", "numpy", "scikit-learn", "scikit-image", "zarr", "tifffile", "typer", "rich")


def diagnose() -> None:
    """Show versions, devices, memory and what comes with the package."""
    import platform

    import psutil

    from vemseg.catalog import bundled_weights
    from vemseg.models.devices import pick_device
    from vemseg.recipe import shipped
    from vemseg.resources import usable_cores

    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    memory = psutil.virtual_memory()
    facts = {
        "vemseg": f"{vemseg.__version__} in {vemseg.__path__[0]}",
        "image": os.environ.get("VEMSEG_IMAGE", "none"),
        "python": f"{platform.python_version()} in {sys.prefix}",
        "system": platform.platform(),
        "cores": f"{usable_cores()} usable, OMP_NUM_THREADS {threads}",
        "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        "device": f"-d auto takes {pick_device('auto').type}",
        "GPUs": _gpus(),
        "weights": ", ".join(f"{name} in {path}" for name, path in bundled_weights().items()) or "none",
        "recipes": ", ".join(shipped()) or "none",
        **{name: _version(name) for name in LIBRARIES},
    }
    width = max(map(len, facts))
    shell.result(*(f"{name:<{width}}  {value}" for name, value in facts.items()))


def _gpus() -> str:
    """Return the GPUs the driver knows, whether or not they can be used."""
    import shutil
    import subprocess

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none (no nvidia-smi)"
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return "; ".join(done.stdout.splitlines()) or "none"


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
