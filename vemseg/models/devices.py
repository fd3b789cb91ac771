"""Decides on which device a command computes, in which type of numbers, and with how many threads."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass

import torch

from vemseg.context import Context
from vemseg.errors import ResourceError
from vemseg.resources import usable_cores

_log = logging.getLogger("vemseg")

GPU_SHARE = 0.8
"""The part of a GPU's free memory that is used."""


@dataclass(frozen=True)
class Machine:
    """The device, number type and threads that a command computes with.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
        Type of the network's weights and activations.
    threads : int
        Number of threads on the CPU.
    name : str or None
        Name of the GPU, if one is used.
    unused : str or None
        Why no GPU is used although a GPU driver is there and the user did not ask for the CPU.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    name: str | None
    unused: str | None = None

    @property
    def facts(self) -> dict[str, str | int | None]:
        """Return the facts that are recorded in the provenance of a result."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"device": str(self.device), "gpu": self.name, "precision": dtype, "threads": self.threads}

    def say(self) -> None:
        """Log what the command computes with; called when the work begins."""
        _log.info("computing on %s", self)
        if self.unused is not None:
            _log.warning("a GPU driver is there, but PyTorch cannot use it: %s", self.unused)

    def __str__(self) -> str:
        where = f"{self.device} ({self.name})" if self.name else str(self.device)
        plural = "" if self.threads == 1 else "s"
        return f"{where} in {self.facts['precision']} with {self.threads} thread{plural}"


def settle(context: Context, precision: str) -> Machine:
    """Decide what to compute with, and set the number of threads of torch.

    Parameters
    ----------
    context : Context
        Holds the device and the number of threads asked for.
    precision : {"auto", "bf16", "fp32"}
        As in a recipe.

    Raises
    ------
    ResourceError
        Where the device asked for cannot be used.
    """
    device = pick_device(context.device)
    threads = context.threads or usable_cores()
    torch.set_num_threads(threads)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    dtype = torch.bfloat16 if wants_bf16(precision, device) else torch.float32
    torch.backends.cudnn.deterministic = True  # the same seed, the same result
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, so that a GPU labels as a CPU does
    forgotten = context.device == "auto" and device.type == "cpu" and shutil.which("nvidia-smi") is not None
    return Machine(device, dtype, threads, name, why_no_gpu() if forgotten else None)


def why_no_gpu() -> str:
    """Return why PyTorch cannot use a GPU, in its own words."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        return _first_sentence(error)
    return "no reason is known"


def gpu_memory(device: torch.device) -> int:
    """Return how many bytes of a GPU may still be used."""
    free, _ = torch.cuda.mem_get_info(device)
    left = free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(GPU_SHARE * left)


def cpu_has(*capabilities: str) -> bool:
    """Tell whether the CPU has any of these capabilities, named as in ``torch.cpu.get_capabilities``."""
    try:
        found = torch.cpu.get_capabilities()
    except AttributeError:  # before torch 2.7
        return False
    return any(found.get(name, False) for name in capabilities)


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Tell whether to compute in bfloat16; "auto" does so where the device multiplies it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and cpu_has("amx_bf16", "avx512_bf16", "sve_bf16")


def pick_device(name: str) -> torch.device:
    """Return the device a user asks for; "auto" is the first GPU, or the CPU where there is none.

    Raises
    ------
    ResourceError
        Where a device that is asked for by name cannot be used; no other one silently takes its place.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise RuntimeError("it needs a Mac with an Apple GPU")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = _first_sentence(error)
        raise ResourceError(f"device '{name}' cannot be used ({reason}); try -d cpu or -d auto") from None
    return device


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of an error message of PyTorch, which may fill a page."""
    return str(error).splitlines()[0].partition(". ")[0]
