"""The directory in which a result grows, and from which its files get their names.

It is ``<path>.partial/``, on the same disk as the result. ``state.json`` in it says how the result was begun,
and once it is settled, which files get which names. Nothing outside the directory changes before that, and
after that every process can finish the renaming.

Only one process at a time works there: the one that holds the lock of ``<path>.partial/.lock``.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePath

from vemseg.errors import InputError, Interrupted, OutputExistsError, ResourceError
from vemseg.files import FAILING, TEMPORARY, UNWRITABLE, flush, remove, sweep_stores, writing
from vemseg.foreign import Form, quoted
from vemseg.run.files import Json, read_json, write_json
from vemseg.run.locks import Lock

LOCK, BEGUN, ASIDE = ".lock", "state.json", "replaced"
"""Names in the directory: of the lock, of the file that says how the result was begun, and of an older
result while it is replaced."""

_NOTE = Form(
    {
        "state": dict[str, object],
        "main?": str,
        "replaces": bool,
        "own?": list[str],
        "settled?": {"moves": dict[str, str], "stale": list[str]},
    }
)
"""What ``state.json`` says: the state of the result, where its main file appears, whether another one is
there, which files beside it are an older one's, and once it is settled, which files get which names and which
go."""


@dataclass(frozen=True)
class Place:
    """Where a result appears.

    Attributes
    ----------
    path : Path
        The main file or directory of the result; what lies beside it, and where it grows, is named after it.
    main : Path, optional
        Where the main file or directory appears, if that is elsewhere on the same disk.
    folder : bool
        Whether it is a directory.
    settled : callable
        Called when all files have their names, by this process or by one that goes on after a kill; it may
        be called more than once.
    """

    path: Path
    main: Path | None = None
    folder: bool = False
    settled: Callable[[], None] = lambda: None


class Staging:
    """The directory in which a result grows.

    Parameters
    ----------
    place : Place
    resumable : bool
        Whether a result that was begun is worth keeping.

    Attributes
    ----------
    path, main : Path
        As in ``Place``.
    folder : Path
        The directory.
    """

    def __init__(self, place: Place, *, resumable: bool) -> None:
        path = place.path
        self.path, self.main, self.folder = path, place.main or path, path.with_name(f"{path.name}.partial")
        self._settled, self._resumable, self._working = place.settled, resumable, False
        self._lock = Lock(self.folder / LOCK, f"another process writes {path}")

    @contextlib.contextmanager
    def alone(self, stopped: Callable[[], bool] | None = None) -> Iterator[None]:
        """Keep other processes out; on leaving, empty the directory if it holds nothing to go on with.

        Parameters
        ----------
        stopped : callable, optional
            Asked while waiting for a process that is there; None does not wait.

        Raises
        ------
        OutputExistsError
            Where another process is there, and this one does not wait.
        Interrupted
            Where ``stopped`` returns True while this waits.
        ResourceError
            Where the directory cannot be written, or was removed.
        """
        new = [folder for folder in self.path.absolute().parents if not folder.exists()]
        with writing(self.path, UNWRITABLE | {errno.ENOENT}):  # which /proc says of a new folder
            self._lock.acquire() if stopped is None else self._lock.wait(stopped)
        try:
            with writing(self.main, FAILING):
                yield
        except (FileNotFoundError, Interrupted) as error:  # without their markers, blocks look undone
            if not self._working or (self.folder / BEGUN).exists():
                raise
            raise self._removed() from error
        finally:
            try:
                if self.folder.is_dir() and not self.worth_keeping():
                    self.empty()
            finally:
                self._leave(new)

    def noted(self) -> Json | None:
        """Return what ``state.json`` says, or None where nothing was begun.

        Raises
        ------
        InputError
            Where it is damaged, or names files elsewhere, as only another program would write it.
        """
        path = self.folder / BEGUN
        if not path.exists():
            return None
        complaint = f"cannot read {path} (remove {self.folder} to begin anew)"
        found: Json = _NOTE.check(read_json(path), complaint)
        settled = found.get("settled", {"moves": {}, "stale": []})
        for name in [*found.get("own", ()), *settled["stale"], *settled["moves"].values()]:
            _check_inside(name, path, parts=1)
        for name in settled["moves"]:
            _check_inside(name, path)
        return found

    def begin(self, state: Json, own: Sequence[Path]) -> None:
        """Begin a result in an empty directory.

        Parameters
        ----------
        state : dict
            What it depends on.
        own : sequence of Path
            Files beside the result that an older one left; those which do not grow go.
        """
        self.empty()
        there = {"replaces": self.main.exists(), "own": [path.name for path in own]}
        self._note({"state": state, "main": self._main, **there})
        self._working = True

    def take_up(self) -> None:
        """Go on with what was begun."""
        self._working = True

    def settle(self, main: Path, beside: Sequence[Path], check: Callable[[], None]) -> None:
        """Give the files that have grown their names, the main one last; an older result goes only now.

        Parameters
        ----------
        main : Path
            What becomes the main file or directory, in the directory.
        beside : sequence of Path
            The final paths of other files of the result. Where one has not grown, that of an older result
            goes.
        check : callable
            Called when everything is written; what it raises leaves the older result as it is.

        Raises
        ------
        ResourceError
            Where the directory was removed.
        """
        if not main.exists():
            raise FileNotFoundError(f"{main} was not written")
        grown = [path for path in beside if (self.folder / path.name).exists()]
        for file in [main, *(self.folder / path.name for path in grown)]:
            if file.is_file():
                flush(file)
        moves = {path.name: path.name for path in grown}
        moves |= {str(main.relative_to(self.folder)): self.path.name}
        note = self.noted()
        if note is None:
            raise self._removed()
        check()
        sweep_stores(self.folder)
        older = beside if note["replaces"] else [self.path.with_name(name) for name in note.get("own", ())]
        stale = [path.name for path in older if path not in grown]
        self._note(note | {"settled": {"moves": moves, "stale": stale}})
        self.finish()

    def finish(self) -> bool:
        """Rename the files of a result that was settled, by this process or by one that was killed.

        Returns
        -------
        bool
            Whether there was such a result. ``state.json`` is removed last, so that all this can be repeated
            until it is done.

        Raises
        ------
        OutputExistsError
            Where it belongs elsewhere than the result that is asked for.
        """
        note = self.noted()
        if note is None or "settled" not in note:
            return False
        if (main := note.get("main", self._main)) != self._main:
            raise OutputExistsError(
                f"{self.folder} holds a finished result that belongs in {self.path.parent / main}: "
                "give the command that made it once more, or another -o"
            )
        for name in note["settled"]["stale"]:
            remove(self.path.with_name(name))
        if self.main != self.path:
            with writing(self.main):
                self.main.parent.mkdir(exist_ok=True)
        for source, name in note["settled"]["moves"].items():
            self._move(self.folder / source, self._final(name))
        self._settled()
        self._clear({LOCK, BEGUN})
        remove(self.folder / BEGUN)
        self._working = False
        return True

    def worth_keeping(self) -> bool:
        """Tell whether the directory holds anything to go on with."""
        if "settled" in (self.noted() or {}):
            return True
        ours = (LOCK, BEGUN)
        grown = any(e.name not in ours and not e.match(TEMPORARY) for e in self.folder.iterdir())
        return self._resumable and grown

    def empty(self) -> None:
        """Remove all but the lock; ``state.json`` first, so nothing resumes."""
        remove(self.folder / BEGUN)
        self._clear({LOCK})

    @property
    def _main(self) -> str:
        """Where the main file appears, seen from the folder of the result, which may be moved."""
        return os.path.relpath(self.main, self.path.parent)

    def _note(self, note: Mapping[str, object]) -> None:
        write_json(self.folder / BEGUN, note)

    def _removed(self) -> ResourceError:
        return ResourceError(f"cannot write {self.path}: {self.folder} was removed while it was made")

    def _leave(self, new: Sequence[Path]) -> None:
        """Release the lock, and remove the directory if nothing but the lock's file is left in it.

        Then ``new`` folders around it, from the inside out, are removed too where nothing is in them.
        """
        bare = False
        try:
            bare = self.folder.is_dir() and [entry.name for entry in self.folder.iterdir()] == [LOCK]
        finally:
            self._lock.release(remove=bare)
        if bare:
            with contextlib.suppress(OSError):  # another process is in it by now, or the result
                for folder in (self.folder, *new):
                    folder.rmdir()

    def _final(self, name: str) -> Path:
        """Return where a file of the result appears."""
        return self.main if name == self.path.name else self.path.with_name(name)

    def _move(self, source: Path, target: Path) -> None:
        """Rename a file or directory; where it is missing, it was renamed before."""
        if not source.exists():
            return
        if target.exists() and (target.is_dir() or source.is_dir()):
            aside = self.folder / ASIDE
            remove(aside)
            target.replace(aside)
        source.replace(target)

    def _clear(self, kept: Set[str]) -> None:
        for entry in self.folder.iterdir():
            if entry.name not in kept:
                remove(entry)


def _check_inside(name: str, path: Path, parts: int | None = None) -> None:
    """Refuse the name of a file that lies elsewhere, as only another program would write it."""
    found = PurePath(name)
    if found.is_absolute() or ".." in found.parts or not found.parts or len(found.parts) > (parts or 9):
        raise InputError(f"cannot read {path}: it names '{quoted(name)}', which is not a file of this output")
