"""Where a command computes, in which type of numbers, with how many threads: decided in one place."""

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
"""The part of the memory left on a GPU that is used."""


@dataclass(frozen=True)
class Machine:
    """What a command computes with.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
        Of the network's weights and activations.
    threads : int
        On the CPU.
    name : str or None
        Of the GPU.
    unused : str or None
        Why a GPU whose driver is there is not used, where nobody asked for the CPU.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    name: str | None
    unused: str | None = None

    @property
    def facts(self) -> dict[str, str | int | None]:
        """Return what provenance says of it."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"device": str(self.device), "gpu": self.name, "precision": dtype, "threads": self.threads}

    def say(self) -> None:
        """Say what is computed with, once the work begins."""
        _log.info("computing on %s", self)
        if self.unused is not None:
            _log.warning("a GPU driver is there, but PyTorch cannot use it: %s", self.unused)

    def __str__(self) -> str:
        where = f"{self.device} ({self.name})" if self.name else str(self.device)
        plural = "" if self.threads == 1 else "s"
        return f"{where} in {self.facts['precision']} with {self.threads} thread{plural}"


def settle(context: Context, precision: str) -> Machine:
    """Decide what to compute with, and set torch's threads.

    Parameters
    ----------
    context : Context
        Its device and threads.
    precision : {"auto", "bf16", "fp32"}
        As a recipe says.

    Raises
    ------
    ResourceError
        Where the device that is asked for cannot be used.
    """
    device = pick_device(context.device)
    threads = context.threads or usable_cores()
    torch.set_num_threads(threads)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    dtype = torch.bfloat16 if wants_bf16(precision, device) else torch.float32
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
    """Return the bytes that may still be used of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    left = free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(GPU_SHARE * left)


def cpu_has(*capabilities: str) -> bool:
    """Tell whether the processor has any of these, named as in ``torch.cpu.get_capabilities``."""
    try:
        found = torch.cpu.get_capabilities()
    except AttributeError:  # before torch 2.7
        return False
    return any(found.get(name, False) for name in capabilities)


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Tell whether to compute in bfloat16: where asked for, or where the device multiplies it natively."""
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
        Where a device is asked for by name and cannot be used; it is never replaced in silence.
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
    """Return the first sentence of a message of PyTorch, which may go on for a page."""
    return str(error).splitlines()[0].partition(". ")[0]
