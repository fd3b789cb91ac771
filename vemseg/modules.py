"""Network modules that keep some of their tensors as they are when they are converted or moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

from torch import Tensor, nn


class Keeps(nn.Module):
    """A module that keeps the type of some of its tensors, and the place of others.

    Attributes
    ----------
    exact : tuple of str
        Names of the parameters and buffers that keep their type when the module is converted to another one.
    on_host : tuple of str
        Names of the buffers that stay on the CPU, as they are. They decide what a step of training does
        next. If they lay on a GPU, the CPU would wait in every step for all that the GPU has yet to do.
    """

    exact: ClassVar[tuple[str, ...]] = ()
    on_host: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = {name: getattr(self, name).data for name in self.exact}
        stays = {name: self._buffers[name] for name in self.on_host}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in kept.items():
            moved = getattr(self, name)
            moved.data = value.to(moved.device)
        self._buffers.update(stays)
        return self
