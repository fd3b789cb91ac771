"""Decides on which device a command computes, in which type of numbers, and with how many threads."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace

import torch

from vemseg.context import Context
from vemseg.errors import ResourceError
from vemseg.resources import SHARE, available_memory, return_large_arrays, usable_cores

_log = logging.getLogger("vemseg")

GPU_SHARE = 0.8
"""The part of a GPU's free memory that is used."""

BF16_FROM = (8, 0)
"""The compute capability from which a GPU multiplies bfloat16."""


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
    instead : str or None
        Why bfloat16 is not used although it was asked for.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    name: str | None
    unused: str | None = None
    instead: str | None = None

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
        if self.instead is not None:
            _log.warning("%s", self.instead)

    def release(self) -> None:
        """Give back the memory of the GPU that nothing uses at the moment, so that other processes get it."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def __str__(self) -> str:
        where = f"{self.device} ({self.name})" if self.name else str(self.device)
        plural = "" if self.threads == 1 else "s"
        return f"{where} in {self.facts['precision']} with {self.threads} thread{plural}"


def settle(context: Context, precision: str) -> Machine:
    """Decide what to compute with, and set the number of threads of torch and how memory is given back.

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
    return_large_arrays()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    dtype = torch.bfloat16 if wants_bf16(precision, device) else torch.float32
    torch.backends.cudnn.deterministic = True  # the same seed, the same result
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, so that a GPU labels as a CPU does
    there = shutil.which("nvidia-smi") is not None or torch.cuda.is_available()
    forgotten = context.device == "auto" and device.type == "cpu" and there
    instead = None
    if precision == "bf16" and dtype != torch.bfloat16:
        instead = f"{_described(device)}, which has no bfloat16: computing in float32"
    return Machine(device, dtype, threads, name, why_no_gpu() if forgotten else None, instead)


def why_no_gpu() -> str:
    """Return why PyTorch cannot use a GPU, in its own words."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    return _failing(torch.device("cuda")) or "no reason is known"


def _failing(device: torch.device) -> str | None:
    """Return why a device cannot compute, in one sentence; None where it can."""
    try:
        torch.ones(1, device=device).add_(1)
    except (RuntimeError, AssertionError) as error:
        reason = _first_sentence(error)
        return _no_code(device) if "no kernel image" in reason else reason
    return None


def _described(device: torch.device) -> str:
    """Return the name of a GPU and its compute capability, in words."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}"


def _no_code(device: torch.device) -> str:
    """Return what to do about a GPU that this build of PyTorch has no code for."""
    built = {int(arch.partition("_")[2].rstrip("af")) for arch in torch.cuda.get_arch_list()}
    known = ", ".join(f"{number // 10}.{number % 10}" for number in sorted(built))
    return (
        f"{_described(device)}, and PyTorch {torch.__version__} has code for {known} only: install a build "
        "of PyTorch for it, see pytorch.org"
    )


def spread(context: Context, machine: Machine) -> Context:
    """Return the context for work that several processes of this machine share, where that pays or is wanted.

    Without a number of processes there is one for each GPU that can be used, and one where none is used. Each
    may occupy what the context says, or less where this is too much for all together.

    Parameters
    ----------
    context : Context
        Returned as it is where others do the work, or one process does.
    machine : Machine
        What this process computes with.
    """
    kind = machine.device.type
    there = torch.cuda.device_count() if kind == "cuda" else 1
    wanted = there if kind == "cuda" and context.device in ("auto", "cuda") else 1
    count = context.processes or wanted
    if count == 1 or context.executor != "here":
        return context
    devices = [f"cuda:{i % there}" if kind == "cuda" else kind for i in range(count)]
    threads = context.threads or max(1, usable_cores() // count)
    free = available_memory()
    memory = context.limit if free is None else min(context.limit, int(SHARE * free / (count + 1)))
    _log.info("sharing the blocks among %d processes on %s", count, ", ".join(dict.fromkeys(devices)))
    return replace(context, executor="processes", devices=tuple(devices), threads=threads, memory=memory)


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
    """Tell whether to compute in bfloat16; "auto" does so where the device multiplies it natively.

    A GPU of a compute capability below ``BF16_FROM`` never does: it would take its own long way round.
    """
    if precision == "fp32":
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_FROM
    return precision == "bf16" or (device.type == "cpu" and cpu_has("amx_bf16", "avx512_bf16", "sve_bf16"))


def pick_device(name: str) -> torch.device:
    """Return the device a user asks for; "auto" is the first GPU, or the CPU where there is none to use.

    Raises
    ------
    ResourceError
        Where a device that is asked for by name cannot be used; no other one silently takes its place.
    """
    if name == "auto":
        usable = torch.cuda.is_available() and _failing(torch.device("cuda")) is None
        return torch.device("cuda" if usable else "cpu")
    reason: str | None
    try:
        device = torch.device(name)
        if device.type == "meta":
            reason = "it computes nothing"
        elif device.type == "mps" and not torch.backends.mps.is_available():
            reason = "it needs a Mac with an Apple GPU"
        else:
            reason = _failing(device)
    except RuntimeError as error:
        reason = _first_sentence(error)
    if reason is not None:
        raise ResourceError(f"device '{name}' cannot be used ({reason}); try -d cpu or -d auto")
    return device


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of an error message of PyTorch, which may fill a page."""
    return str(error).splitlines()[0].partition(". ")[0]
