"""Processes that train one model together: each computes a part of every batch, and all know the whole.

The networks of an objective are what a step costs. They are called by :func:`divided`, which gives each
process a part of the samples and returns the results of all. The rest of a step is done by every process for
the whole batch: random choices, losses, running means, the step of the optimiser. So a loss may look at its
batch as a whole, and what is learned is what one process would learn from that batch, up to rounding.

Gradients add up in the usual way (``torch.distributed.nn``): the loss is the mean over the processes of what
each returns, so :func:`average_gradients` takes the mean, and going backward through a result that all know
adds up what all processes ask of it.

Outside :func:`meeting` a process is alone, and every function here returns what it was given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.distributed.rendezvous import rendezvous

from vemseg.context import Context, Share
from vemseg.errors import ResourceError, UsageError, VemsegError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, for instance while the first one writes a checkpoint."""

BUCKET = 2**26
"""About so many bytes of gradients are sent at a time."""

_CLAIM = "vemseg/spoken"
"""Key of the count of processes that wanted to say why the work ended."""

Made = TypeVar("Made")


def here() -> Share:
    """Return which of the processes this one is, and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return Share()
    return Share(dist.get_rank(), dist.get_world_size())


def leads() -> bool:
    """Tell whether this process is the first one, which alone writes, draws and speaks."""
    return here().index == 0


class Group:
    """The processes of a meeting.

    Attributes
    ----------
    context : Context
        That of this process; its device is one that no other process of the node uses.
    """

    def __init__(self, context: Context, store: Store) -> None:
        self.context, self._store = context, store

    def claims(self) -> bool:
        """Tell whether this process is the first to ask; that one tells the user why the work ended."""
        try:
            return int(self._store.add(_CLAIM, 1)) == 1
        except RuntimeError:  # the process that kept the count has ended, and has told the user why
            return False


@contextmanager
def meeting(context: Context) -> Iterator[Group]:
    """Let the processes that ``torchrun`` started find each other, and wait for each other in the end.

    Parameters
    ----------
    context : Context
        Its ``share`` says which of the processes this one is.

    Raises
    ------
    UsageError
        Where the context names a single GPU.
    ResourceError
        Where there are more processes than GPUs on a node, or a process ends before the others.
    """
    context = replace(context, device=_own_device(context.device))
    with _peers("the processes of this training did not find each other"):
        store, index, count = next(rendezvous("env://", timeout=PATIENCE))
        kinds = "cpu:gloo,cuda:nccl" if context.device.startswith("cuda") else "gloo"
        dist.init_process_group(kinds, store=store, rank=index, world_size=count, timeout=PATIENCE)
    yield Group(context, store)
    wait()  # after an error nobody waits: the others notice that this process ends
    dist.destroy_process_group()


def _own_device(wanted: str) -> str:
    """Return the device of this process: where GPUs are used, each process of a node has one."""
    if wanted.startswith("cuda:"):
        raise UsageError(f"-d {wanted} is one GPU for all processes: leave it out, and each takes its own")
    if wanted not in ("auto", "cuda") or not torch.cuda.is_available():
        return "cpu" if wanted == "auto" else wanted
    number, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if there == 1:  # a batch system shows each process its own
        number = 0
    if number >= there:
        raise ResourceError(
            f"there are more processes on this node than its {there} GPUs: give --nproc-per-node {there} to "
            "torchrun, or -d cpu"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


@contextmanager
def _peers(lost: str = "another process of this training ended") -> Iterator[None]:
    """Say in one line that a process cannot be reached."""
    try:
        yield
    except VemsegError:
        raise
    except RuntimeError as error:
        raise ResourceError(f"{lost}: the same command goes on from the last checkpoint") from error


def wait() -> None:
    """Wait until all processes are here."""
    largest(0.0)


def first(make: Callable[[], Made], then: Callable[[], Made]) -> Made:
    """Let the first process make something, and the others, when it is made, do something else."""
    if leads():
        made = make()
        wait()
        return made
    wait()
    return then()


def largest(*values: float) -> list[float]:
    """Return the largest of each of these numbers over all processes, the same ones in all of them."""
    if here().whole:
        return list(values)
    found = torch.tensor(values, dtype=torch.float64)  # on the CPU, so that no process waits for its GPU
    with _peers():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    numbers: list[float] = found.tolist()
    return numbers


def gathered(own: Tensor) -> Tensor:
    """Return the samples of all processes, given every N-th one of them; no gradient."""
    if here().whole:
        return own
    parts = _all(own.detach())
    return parts.transpose(0, 1).flatten(0, 1)


def divided(network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call a network on this process's part of the samples; return the results for all samples.

    Every process must call it, in the same order, with the whole batch.

    Parameters
    ----------
    network : callable
        Treats each sample by itself, but for batch normalisation, which looks at the samples of all
        processes.
    *inputs : Tensor (n, ...)
        The same in all processes.

    Returns
    -------
    Tensor (n, ...)
    """
    ranks = here()
    if ranks.whole:
        return network(*inputs)
    bounds = [len(inputs[0]) * i // ranks.count for i in range(ranks.count + 1)]
    mine = slice(bounds[ranks.index], bounds[ranks.index + 1])
    result: Tensor = _Joined.apply(network(*(each[mine] for each in inputs)), bounds, mine)
    return result


def summed(value: Tensor) -> Tensor:
    """Return the sum over all processes, through which gradients flow to all of them."""
    result: Tensor = value if here().whole else _Summed.apply(value)
    return result


def shown_to_all(owner: int, *tensors: Tensor) -> None:
    """Overwrite tensors by those of one process; all have to call this in the same order."""
    if here().whole:
        return
    with _peers():
        for tensor in tensors:
            dist.broadcast(tensor, owner)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of parameters by their means over all processes."""
    if here().whole:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for bucket in (part for each in by_type.values() for part in _buckets(each)):
        flat = _sum(torch.cat([each.reshape(-1) for each in bucket])) / here().count
        parts = torch.split(flat, [each.numel() for each in bucket])
        torch._foreach_copy_(bucket, [part.view_as(each) for part, each in zip(parts, bucket, strict=True)])


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Divide gradients into lists of about ``BUCKET`` bytes."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(each.nbytes for each in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


class _Joined(torch.autograd.Function):
    """The parts of all processes, one after the other."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor, bounds: list[int], mine: slice) -> Tensor:
        ctx.mine = mine  # type: ignore[attr-defined]
        sizes = [stop - start for start, stop in pairwise(bounds)]
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own
        return torch.cat([part[:size] for part, size in zip(_all(padded), sizes, strict=True)])

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _sum(gradient.contiguous())[ctx.mine], None, None  # type: ignore[attr-defined]


class _Summed(torch.autograd.Function):
    """The sum over all processes."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor) -> Tensor:
        return _sum(own)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(own: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    total = own.clone(memory_format=torch.contiguous_format)
    with _peers():
        dist.all_reduce(total)
    return total


def _all(own: Tensor) -> Tensor:
    """Return the tensors (...) of all processes, of the same shape: (processes, ...)."""
    parts = own.new_empty((here().count, *own.shape))
    with _peers():
        dist.all_gather(list(parts.unbind()), own.contiguous())
    return parts
