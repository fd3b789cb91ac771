"""A result that appears whole or not at all, and that knows what it was made with.

Everything grows in ``<path>.partial/``, on the same disk, so a killed command goes on from there. What the
result depends on, its *state*, is kept there in ``state.json``: settings as plain JSON, and fingerprints of
the inputs. An output goes through these stages, and a killed process leaves it in one of them:

=========  ============================================  ====================================================
stage      what is on the disk                           what the next process does
=========  ============================================  ====================================================
absent     nothing                                       begins
begun      ``state.json``, and what has grown beside it  goes on if its state is the same, else refuses
settled    ``moves`` in ``state.json``: the final names  finishes the renaming first, whatever its settings
there      the result, which says its own state          is done if its state is the same, else refuses
=========  ============================================  ====================================================

With ``overwrite``, it begins anew instead of refusing. ``publish`` settles, and then renames. Until an output
is settled, nothing outside the partial directory has changed.

Only one process at a time works there: the one that holds the lock of ``<path>.partial/.lock``. Processes
that share the work of one output hold it one after the other, only to look at it (``joined``).
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePath
from types import TracebackType
from typing import Self

from vemseg.errors import InputError, Interrupted, OutputExistsError, ResourceError
from vemseg.files import FAILING, TEMPORARY, UNWRITABLE, flush, remove, sweep_stores, writing
from vemseg.foreign import Form, quoted
from vemseg.run.files import Json, plain, read_json, write_json
from vemseg.run.fingerprint import Record, fingerprint, same
from vemseg.run.locks import Lock

_log = logging.getLogger(__name__)

State = Json
"""What a result depends on, as plain JSON types: the same state gives the same result."""

LOCK, BEGUN, ASIDE = ".lock", "state.json", "replaced"
"""Names in the partial directory: of the lock, of the file that says how the result was begun, and of an
older result while it is replaced."""

_BEGUN_FORM = Form(
    {"state?": dict[str, object], "replaces": bool, "moves?": dict[str, str], "stale?": list[str]}
)
"""What ``state.json`` in a partial directory says."""

INPUTS = "inputs"
"""Key of a state: the fingerprints of the inputs, in order."""


class Output:
    """A result that is made at most once; use it as a context manager.

    On entering, the output is locked and looked at. Where the same result is there already, ``done`` is True
    and nothing is to be done. Otherwise it is begun, or taken up where it was begun with the same state
    (``resumed``). On leaving, the partial directory goes away unless it holds something to go on with.

    Parameters
    ----------
    path : Path
        The main file or directory of the result. The result counts as there when this is there.
    state : mapping
        What the result depends on, beside the content of its inputs. Where an entry ``output`` names the
        main file, files beside it are recognised as its own even after the main file was removed.
    inputs : sequence of Path
        Files and directories whose content the result depends on, in an order that has a meaning.
    beside : sequence of Path
        Other files of the same result, in the same directory.
    record : callable
        Reads the state (``Output.state``) that a finished result says it was made with; None where it says
        nothing.
    overwrite : bool
        Replace another result, or the beginnings of one.
    resumable : bool
        Whether a result that was begun is worth keeping. If not, leaving without ``publish`` removes it, and
        beginnings that a killed process left are forgotten.

    Attributes
    ----------
    main : Path
        Where the main file or directory appears: ``path``, unless ``appearing_at`` says otherwise.
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
        path: Path,
        *,
        state: Mapping[str, object],
        inputs: Sequence[Path] = (),
        beside: Sequence[Path] = (),
        record: Callable[[], State | None],
        overwrite: bool = False,
        resumable: bool = True,
    ) -> None:
        self.path, self.partial = path, path.with_name(f"{path.name}.partial")
        self.main, self._settled = path, _nothing
        self.done = self.resumed = False
        self.state: State = json.loads(json.dumps(state, allow_nan=False, default=plain))
        self._settings = self.state
        self._inputs, self._beside, self._record = inputs, beside, record
        self._overwrite, self._resumable, self._joined = overwrite, resumable, False
        self._lock = Lock(self.partial / LOCK, f"another process writes {path}")
        self._open = contextlib.ExitStack()

    def appearing_at(self, main: Path, settled: Callable[[], None]) -> Self:
        """Let the main file or directory appear elsewhere on the same disk; return this output.

        Parameters
        ----------
        main : Path
            Where it appears. The path of the output then names only what lies beside it, and the partial
            directory.
        settled : callable
            Called when all files have their names, by this process or by one that goes on after a kill; it
            may be called more than once.
        """
        self.main, self._settled = main, settled
        return self

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
        main = main or self.growing(self.path)
        if not main.exists():
            raise FileNotFoundError(f"{main} was not written")
        grown = [path for path in self._beside if self.growing(path).exists()]
        for file in [main, *map(self.growing, grown)]:
            if file.is_file():
                flush(file)
        moves = {path.name: path.name for path in grown}
        moves |= {str(main.relative_to(self.partial)): self.path.name}
        begun = self._begun()
        if begun is None:
            raise self._removed()
        self._refuse_changed()
        stale = [path.name for path in self._beside if begun["replaces"] and path not in grown]
        self._note(begun | {"moves": moves, "stale": stale})
        self._finish()

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
        self._joined = True
        with self._alone(stopped):
            self._look(settled=self._finish())
            yield self

    def _refuse_changed(self) -> None:
        """Refuse a result of inputs that changed, grew or went away while they were read."""
        for known, path in zip(self.inputs, self._inputs, strict=True):
            if not path.exists() or not same(known, path):
                raise InputError(f"{path} changed while it was read: leave it alone, and start again with -f")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._alone())
            self._look(settled=self._finish())
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    @contextlib.contextmanager
    def _alone(self, stopped: Callable[[], bool] | None = None) -> Iterator[None]:
        """Keep other processes out; on leaving, empty the directory if it holds nothing to go on with."""
        new = [folder for folder in self.path.absolute().parents if not folder.exists()]
        with writing(self.path, UNWRITABLE | {errno.ENOENT}):  # which /proc says of a new folder
            self._lock.acquire() if stopped is None else self._lock.wait(stopped)
        try:
            with writing(self.main, FAILING):
                yield
        except (FileNotFoundError, Interrupted) as error:  # without their markers, blocks look undone
            if (self.partial / BEGUN).exists():
                raise
            raise self._removed() from error
        finally:
            try:
                if self._there() and not self._worth_keeping():
                    self._empty()
            finally:
                self._leave(new)

    def _there(self) -> bool:
        """Tell whether the partial directory is there, and not removed under this process."""
        return self.partial.is_dir()

    def _removed(self) -> ResourceError:
        return ResourceError(f"cannot write {self.path}: {self.partial} was removed while it was made")

    def _leave(self, new: Sequence[Path]) -> None:
        """Release the lock, and remove the directory if nothing but the lock's file is left in it.

        Then ``new`` folders around it, from the inside out, are removed too where nothing is in them.
        """
        bare = False
        try:
            bare = self._there() and [entry.name for entry in self.partial.iterdir()] == [LOCK]
        finally:
            self._lock.release(remove=bare)
        if bare:
            with contextlib.suppress(OSError):  # another process is in it by now, or the result
                for folder in (self.partial, *new):
                    folder.rmdir()

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
                self._empty()
                return
            if not self._overwrite:
                found = difference(made, self._settings, self._inputs)
                raise OutputExistsError(
                    f"{self.main} exists and {found}: give another -o, or -f to replace it"
                )
        if not there and not self._overwrite:
            self._refuse_foreign()
        self._take_up()

    def _refuse_replaced(self) -> None:
        """Refuse to take a result as it is while another is about to replace it."""
        begun = self._begun()
        if begun is not None and begun["replaces"] and self._worth_keeping():
            raise OutputExistsError(
                f"{self.main} exists and is being replaced in {self.partial}: -f goes on with that"
            )

    def _refuse_foreign(self) -> None:
        """Refuse to replace files beside the output that are not its own."""
        there = [path for path in self._beside if path.exists()]
        made = self._record() if there else None
        if there and (made is None or made.get("output") != self._settings.get("output")):
            raise OutputExistsError(
                f"{there[0]} exists and does not belong to {self.main}: give another -o, or -f"
            )

    def _take_up(self) -> None:
        """Go on with an output that was begun with the same state, or begin a new one."""
        begun = self._begun() if self._resumable else None
        if begun is not None and self._is(begun["state"]):
            _log.info("going on in %s", self.partial)
            self.resumed, self.state = True, begun["state"]
            if not self._joined:  # else others may be writing
                sweep_stores(self.partial)
            return
        if begun is not None and not self._overwrite:
            found = difference(begun["state"], self._settings, self._inputs)
            raise OutputExistsError(f"{self.partial} was begun earlier and {found}: -f starts again")
        self._empty()
        self.state = self._settings | {INPUTS: [fingerprint(path) for path in self._inputs]}
        self._note({"state": self.state, "replaces": self.main.exists()})

    def _is(self, made: State) -> bool:
        """Tell whether a state is the one that is asked for."""
        known = made.get(INPUTS, [])
        if not isinstance(known, list) or not all(isinstance(one, dict) for one in known):
            return False
        return (
            {key: value for key, value in made.items() if key != INPUTS} == self._settings
            and len(known) == len(self._inputs)
            and all(map(same, known, self._inputs))
        )

    def _begun(self) -> State | None:
        """Return what ``state.json`` says, or None where nothing was begun."""
        path = self.partial / BEGUN
        if not path.exists():
            return None
        found: State = _BEGUN_FORM.check(read_json(path), f"cannot read {path}")
        for name in [*(found.get("stale") or ()), *(found.get("moves") or {}).values()]:
            _check_inside(name, path, parts=1)
        for name in found.get("moves") or {}:
            _check_inside(name, path)
        return found

    def _note(self, begun: State) -> None:
        """Write ``state.json``."""
        write_json(self.partial / BEGUN, begun)

    def _finish(self) -> bool:
        """Rename the files of a result that was settled, by this process or by one that was killed.

        Returns
        -------
        bool
            Whether there was such a result. ``state.json`` is removed last, so that all this can be repeated
            until it is done.
        """
        begun = self._begun()
        if begun is None or "moves" not in begun:
            return False
        for name in begun["stale"]:
            remove(self.path.with_name(name))
        if self.main != self.path:
            with writing(self.main):
                self.main.parent.mkdir(exist_ok=True)
        for source, name in begun["moves"].items():
            self._move(self.partial / source, self._final(name))
        self._settled()
        self._clear({LOCK, BEGUN})
        remove(self.partial / BEGUN)
        return True

    def _final(self, name: str) -> Path:
        """Return where a file of the result appears."""
        return self.main if name == self.path.name else self.path.with_name(name)

    def _move(self, source: Path, target: Path) -> None:
        """Rename a file or directory; where it is missing, it was renamed before."""
        if not source.exists():
            return
        if target.exists() and (target.is_dir() or source.is_dir()):
            aside = self.partial / ASIDE
            remove(aside)
            target.replace(aside)
        source.replace(target)

    def _worth_keeping(self) -> bool:
        """Tell whether the partial directory holds anything to go on with."""
        if "moves" in (self._begun() or {}):
            return True
        ours = (LOCK, BEGUN)
        grown = any(e.name not in ours and not e.match(TEMPORARY) for e in self.partial.iterdir())
        return self._resumable and grown

    def _empty(self) -> None:
        """Remove all but the lock from the partial directory; ``state.json`` first, so nothing resumes."""
        remove(self.partial / BEGUN)
        self._clear({LOCK})

    def _clear(self, kept: Set[str]) -> None:
        for entry in self.partial.iterdir():
            if entry.name not in kept:
                remove(entry)


def _nothing() -> None:
    """Do nothing."""


def _check_inside(name: str, path: Path, parts: int | None = None) -> None:
    """Refuse the name of a file that lies elsewhere, as only another program would write it."""
    found = PurePath(name)
    if found.is_absolute() or ".." in found.parts or not found.parts or len(found.parts) > (parts or 9):
        raise InputError(f"cannot read {path}: it names '{quoted(name)}', which is not a file of this output")


def difference(before: State | None, now: State, inputs: Sequence[Path]) -> str:
    """Say in what two states differ: the first few settings by name, or the inputs that have changed.

    Parameters
    ----------
    before : mapping or None
        The state of what is there.
    now : mapping
        The state that is asked for, without its inputs.
    inputs : sequence of Path
        Its inputs.
    """
    if before is None:
        return "does not say how it was made"
    was, wanted = (dict(_entries(state)) for state in (before, now))
    keys = [key for key in {**wanted, **was} if was.get(key) != wanted.get(key)]
    known = before.get(INPUTS, [])
    shown = [f"{key} {_short(was.get(key))} there, {_short(wanted.get(key))} now" for key in keys[:3]]
    if len(known) != len(inputs):
        shown.append(f"{len(known)} inputs there, {len(inputs)} now")
    elif changed := [path.name for old, path in zip(known, inputs, strict=True) if not same(old, path)]:
        shown.append(f"{', '.join(changed[:3])} had another content")
    return f"was made otherwise ({'; '.join(shown)})"


def _entries(state: Mapping[str, object], table: str = "") -> Iterator[tuple[str, object]]:
    """Yield the settings of a state, those of a table within it as ``table.name``; inputs are none."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _entries(value, table if name == "settings" else f"{table}{name}.")
        elif name != INPUTS:
            yield f"{table}{name}", value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
