"""A result that appears whole or not at all, and that knows what it was made with.

Everything grows in ``<path>.partial/`` (``vemseg.run.staging``), so a killed command goes on from there. What
the result depends on, its *state* (``vemseg.run.state``), is kept there, too. An output goes through these
stages, and a killed process leaves it in one of them:

=========  ============================================  ====================================================
stage      what is on the disk                           what the next process does
=========  ============================================  ====================================================
absent     nothing                                       begins
foreign    files beside the result, but of another one   refuses
begun      ``state.json``, and what has grown beside it  goes on if its state is the same, else refuses
settled    the final names in ``state.json``             finishes the renaming first, whatever its settings
there      the result, which says its own state          is done if its state is the same, else refuses
replaced   the result, and another that was begun        refuses, whatever its settings
=========  ============================================  ====================================================

With ``overwrite``, it begins anew instead of refusing, or goes on with what was begun with its state.
``publish`` settles, and then renames.

Processes that share the work of one output hold its lock one after the other, to look at it (``joined``).
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vemseg.errors import InputError, OutputExistsError
from vemseg.run.conflicts import refuse_inputs, refuse_other_kinds
from vemseg.run.files import plain
from vemseg.run.fingerprint import Record
from vemseg.run.origin import sidecar, state_in
from vemseg.run.staging import Place, Staging
from vemseg.run.state import INPUTS, State, changed, difference, is_made_of, state_of

_log = logging.getLogger(__name__)


class Output:
    """A result that is made at most once; use it as a context manager.

    On entering, the output is locked and looked at. Where the same result is there already, ``done`` is True
    and nothing is to be done. Otherwise it is begun, or taken up where it was begun with the same state
    (``resumed``). On leaving, the partial directory goes away unless it holds something to go on with.

    Parameters
    ----------
    place : Path or Place
        The main file or directory of the result. The result counts as there when this is there.
    state : mapping
        What the result depends on, beside the content of its inputs. Where an entry ``output`` names the
        main file, files beside it are recognised as its own even after the main file was removed.
    inputs : sequence of Path
        Files and directories whose content the result depends on, in an order that has a meaning.
    beside : sequence of Path
        Other files of the same result, in the same directory.
    record : callable, optional
        Reads the state (``Output.state``) that a finished result says it was made with; None where it says
        nothing. Left out, the description beside the result is read (``sidecar``).
    overwrite : bool
        Replace another result, or the beginnings of one.
    resumable : bool
        Whether a result that was begun is worth keeping. If not, leaving without ``publish`` removes it, and
        beginnings that a killed process left are forgotten.

    Attributes
    ----------
    path : Path
        As in ``Place``.
    partial : Path
        The directory in which the result grows; anything that helps to go on may be kept in it.
    done : bool
        Whether this very result was there already.
    resumed : bool
        Whether it had been begun before.
    state : dict
        What to store in the result for ``record``: the given state, and the fingerprints of the inputs.

    Raises
    ------
    UsageError, OutputExistsError
        At once, where something of another kind lies in its place, or it is an input.
    OutputExistsError
        On entering, where another process makes this output, or the result that is there, or was begun, was
        made with another state, or files beside it belong to something else.
    InputError
        On entering, where an input is not there; later, where it changed meanwhile.
    ResourceError
        Where the output cannot be written, then or later: the disk is full, or its folder was removed.
    """

    def __init__(
        self,
        place: Path | Place,
        *,
        state: Mapping[str, object],
        inputs: Sequence[Path] = (),
        beside: Sequence[Path] = (),
        record: Callable[[], State | None] | None = None,
        overwrite: bool = False,
        resumable: bool = True,
    ) -> None:
        place = place if isinstance(place, Place) else Place(place)
        self._staging = Staging(place, resumable=resumable)
        self.path, self.partial = place.path, self._staging.folder
        refuse_other_kinds(self.main, folder=place.folder)
        refuse_inputs([self.main, *beside], inputs)
        self.done = self.resumed = False
        self.state: State = json.loads(json.dumps(state, allow_nan=False, default=plain))
        self._settings = self.state
        self._inputs, self._beside = inputs, beside
        self._record = record or (lambda: state_in(sidecar(place.path)))
        self._overwrite, self._resumable = overwrite, resumable
        self._open = contextlib.ExitStack()

    @property
    def main(self) -> Path:
        """Where the main file or directory appears."""
        return self._staging.main

    @property
    def inputs(self) -> list[Record]:
        """The fingerprints of the inputs, for ``provenance``."""
        found: list[Record] = self.state[INPUTS]
        return found

    def growing(self, path: Path) -> Path:
        """Return where ``path``, the main file or one beside it, grows until it is published."""
        return self.partial / path.name

    def publish(self, main: Path | None = None) -> None:
        """Give the finished files their names, the main one last; an older result is removed only now.

        Where a result is replaced, a file of ``beside`` that has not grown goes with it.

        Parameters
        ----------
        main : Path, optional
            What becomes the main file or directory, where it has not grown in ``growing(path)``.
        """
        self._staging.settle(main or self.growing(self.path), self._beside, self._refuse_changed)

    @contextlib.contextmanager
    def joined(self, stopped: Callable[[], bool]) -> Iterator[Self]:
        """Look at the output and begin it as ``with`` does, beside other processes that make the same result.

        Where another process does this just now, wait for it. Inside, this process is alone; after that all
        may write, each its own files.

        Parameters
        ----------
        stopped : callable
            Asked while waiting.

        Raises
        ------
        Interrupted
            Where ``stopped`` returns True while this waits.
        """
        with self._staging.alone(stopped):
            self._look(settled=self._staging.finish())
            yield self

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._staging.alone())
            self._look(settled=self._staging.finish())
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def _look(self, settled: bool) -> None:
        """See at which stage the output is: be done, go on, begin, or refuse.

        Parameters
        ----------
        settled : bool
            Whether a killed process had settled a result, which has just got its names. If it is the one that
            is asked for, ``overwrite`` does not make it again: that process had overwritten the older one.
        """
        there = self.main.exists()
        if there and not self._overwrite:
            self._refuse_replaced()
        if there and (settled or not self._overwrite):
            made = self._record()
            if made is not None and self._is(made):
                self.done, self.state = True, made
                self._staging.empty()
                return
            if not self._overwrite:
                found = difference(made, self._settings, self._inputs)
                raise OutputExistsError(
                    f"{self.main} exists and {found}: give another -o, or -f to replace it"
                )
        if not there and not self._overwrite:
            self._refuse_foreign()
        self._take_up()

    def _take_up(self) -> None:
        """Go on with an output that was begun with the same state, or begin a new one."""
        found = self._staging.noted() if self._resumable else None
        if found is not None and self._is(found["state"]):
            _log.info("going on in %s", self.partial)
            self.resumed, self.state = True, found["state"]
            self._staging.take_up()
            return
        if found is not None and not self._overwrite:
            said = difference(found["state"], self._settings, self._inputs)
            raise OutputExistsError(f"{self.partial} was begun earlier and {said}: -f starts again")
        self.state = state_of(self._settings, self._inputs)
        own = [] if self._overwrite else [path for path in self._beside if path.exists()]
        self._staging.begin(self.state, own)  # with -f, nobody has looked whose they are

    def _is(self, made: State) -> bool:
        """Tell whether a state is the one that is asked for."""
        return is_made_of(made, self._settings, self._inputs)

    def _refuse_replaced(self) -> None:
        """Refuse to take a result as it is while another is about to replace it."""
        found = self._staging.noted()
        if found is not None and found["replaces"] and self._staging.worth_keeping():
            raise OutputExistsError(
                f"{self.main} exists and is being replaced in {self.partial}: -f goes on with that"
            )

    def _refuse_foreign(self) -> None:
        """Refuse to replace files beside the output that are not its own."""
        there = [path for path in self._beside if path.exists()]
        made = self._record() if there else None
        owner = made.get("output") if made else None
        if there and (made is None or owner != self._settings.get("output")):
            whose = f"belongs to {owner}" if isinstance(owner, str) else f"does not belong to {self.main}"
            raise OutputExistsError(f"{there[0]} exists and {whose}: give another name with -o, or -f")

    def _refuse_changed(self) -> None:
        """Refuse a result of inputs that changed, grew or went away while they were read."""
        for path in changed(self.state, self._inputs):
            raise InputError(f"{path} changed while it was read: leave it alone, and start again with -f")
