"""A request to stop, as batch systems make it: by signal, ahead of the time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

Handler = Callable[[int, FrameType | None], object] | int | None
"""What ``signal.signal`` takes and gives back; None for a handler that Python did not install."""


class StopSignal:
    """Within the context, SIGTERM and SIGUSR1 do not end the process but set a flag for the loop to see.

    The handlers that were there before are put back on leaving. Signals reach the main thread alone; in
    another thread the context does nothing.

    Attributes
    ----------
    received : str or None
        Name of the signal that came, such as ``"SIGTERM"``.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Handler] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1"):
                if number := getattr(signal.Signals, name, None):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: the handler was not installed by Python code, which therefore cannot put it back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
