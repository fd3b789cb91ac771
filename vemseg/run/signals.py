"""A request to stop, as batch systems make it: by signal, ahead of the time limit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from types import FrameType, TracebackType
from typing import Self

from vemseg.errors import Interrupted

Handler = Callable[[int, FrameType | None], object] | int | None
"""What ``signal.signal`` takes and gives back; None for a handler that Python did not install."""

NAMES = ("SIGTERM", "SIGUSR1")
"""The signals that are a request to stop."""


class StopSignal:
    """Within the context, the first SIGTERM or SIGUSR1 is a request to stop, if there is anything to save.

    There is something to save from the moment when the work first asks whether it is ``requested``: only work
    that can be gone on with asks. Before that moment a signal ends the process at once, and so does every
    further signal. A thread of its own hears them, so the end does not wait for what the main thread does,
    which may be blocked in a library or by a disk.

    The handlers that were there before are put back on leaving. Signals reach the main thread alone; in
    another thread the context does nothing.

    Attributes
    ----------
    received : str or None
        Name of the signal that came, such as ``"SIGTERM"``.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._saving = False
        self._before: dict[signal.Signals, Handler] = {}
        self._ends: tuple[int, int] | None = None
        self._wakeup_before = -1
        self._ear: threading.Thread | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal came. Who asks has something to save."""
        self._saving = True
        return self.received is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._ends = os.pipe()
            for end in self._ends:
                os.set_inheritable(end, False)
            os.set_blocking(self._ends[1], False)
            self._ear = threading.Thread(target=self._listen, args=(self._ends[0],), daemon=True)
            self._ear.start()
            self._wakeup_before = signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
            for name in NAMES:
                if number := getattr(signal.Signals, name, None):
                    self._before[number] = signal.signal(number, _leave_to_the_thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: the handler was not installed by Python code, which therefore cannot put it back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._ends is not None and self._ear is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._ends[1])  # so the thread reads the end of the pipe
            self._ear.join()
            os.close(self._ends[0])
            self._ends = None

    def _listen(self, pipe: int) -> None:
        """Hear the numbers of signals until the pipe is closed."""
        while numbers := os.read(pipe, 16):
            for number in numbers:
                name = signal.Signals(number).name
                if name in NAMES:
                    self._hear(number, name)

    def _hear(self, number: int, name: str) -> None:
        if self.received is not None:
            _end(128 + number, f"ended at once by {name}, the second signal: what was saved before stays")
        if not self._saving:
            _end(Interrupted.exit_code, f"stopped by {name} before there was anything to save")
        self.received = name


def _leave_to_the_thread(number: int, frame: FrameType | None) -> None:
    """Do nothing: that there is a handler makes Python write the signal's number into the pipe."""


def _end(code: int, why: str) -> None:
    """End this process without waiting for anything."""
    os.write(2, f"vemseg: {why}: the same command goes on\n".encode())
    os._exit(code)


def led_by_parent() -> None:
    """Leave requests to stop to the process that started this one, and end with it, even if it is killed."""
    for name in ("SIGINT", *NAMES):
        if number := getattr(signal.Signals, name, None):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)
