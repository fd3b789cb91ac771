"""The archive of BetaSeg -> grey volumes, reference labels and cell masks of its cells.

Every cell has a folder of its own, with a note that says which archive its files come from. The note is
written before all other files of the cell and removed after them, so files of two archives are never mixed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vemseg.catalog import BETASEG, download, file_sha256, members, unpack
from vemseg.context import Context, Stopped
from vemseg.datasets.reference import KINDS, MASK_ENDINGS, OPTIONAL, Reference, write_reference
from vemseg.errors import InputError, MissingError, OutputExistsError, UsageError
from vemseg.files import TEMPORARY, remove, writing
from vemseg.recipe.spelling import nearest
from vemseg.resources import byte_text
from vemseg.run import Json, alone, lasting, provenance, read_json, write_json

CELLS = ("high_c1", "high_c2", "high_c3", "high_c4", "low_c1", "low_c2", "low_c3")
PAPERS = CELLS[:4]
"""The cells that the papers evaluate: those in high glucose."""
SOURCE = "source"
_LOCK = ".lock"
PARTS = (SOURCE, "labels", "masks")


def check(cells: Sequence[str], parts: Sequence[str], sha256: str | None) -> str:
    """Refuse cells and parts that do not exist; return the SHA-256 of the archive, in lower case.

    Parameters
    ----------
    sha256 : str or None
        The SHA-256 of the archive, where it is not the published one.

    Raises
    ------
    UsageError
        Where a cell or part does not exist, or the SHA-256 is not one.
    """
    for name in cells:
        _known("cell", name, CELLS)
    for name in parts:
        _known("part", name, PARTS)
    sha256 = (sha256 or BETASEG.sha256).strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UsageError(f"'{sha256}' is not a SHA-256: give 64 hexadecimal digits")
    return sha256


def _known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(f"no {what} '{name}' in BetaSeg{nearest(name, known)}: there are {', '.join(known)}")


@dataclass(frozen=True)
class Cell:
    """A cell's folder.

    Attributes
    ----------
    folder : Path
    name : str
        One of ``CELLS``; the names of all files begin with it.
    """

    folder: Path
    name: str

    def file(self, ending: str) -> Path:
        """Return the volume with that ending."""
        return self.folder / f"{self.name}_{ending}.tif"

    @property
    def note(self) -> Path:
        """The file that says, from the beginning, which archive all other files come from."""
        return self.folder / f"{self.name}_archive.json"

    @property
    def origin(self) -> Path:
        """The file that says how the labels were made."""
        return self.folder / f"{self.name}_labels.json"

    def masks(self, parts: Sequence[str]) -> Path:
        """Return where masks are unpacked: the cell's folder if they are wanted, else a temporary one."""
        return self.folder / ("" if "masks" in parts else "masks.partial")

    def results(self, parts: Sequence[str]) -> list[Path]:
        """Return the files of the parts: grey volume and labels, and such masks as are there."""
        endings = [SOURCE] if SOURCE in parts else []
        endings += [kind.ending for kind in KINDS] if "labels" in parts else []
        masks = [self.file(ending) for ending in MASK_ENDINGS] if "masks" in parts else []
        return [*map(self.file, endings), *(path for path in masks if path.exists())]

    def holds(self, parts: Sequence[str], sha256: str) -> bool:
        """Tell whether all files of the parts are there and come from this archive.

        Raises
        ------
        OutputExistsError
            Where there are files from another archive, or files without a note that says from which.
        """
        known: Json = read_json(self.note) if self.note.exists() else {}
        if known.get("archive") != sha256:
            if known or any(path.exists() for path in self._files()):
                raise OutputExistsError(
                    f"{self.folder} holds files of another archive: -f replaces them, or name another -o"
                )
            return False
        masks = [self.file(ending) for ending in known["masks"]] if "masks" in parts else []
        return all(path.exists() for path in [*self.results(parts), *masks])

    @contextmanager
    def alone(self, stopped: Stopped) -> Iterator[None]:
        """Keep other processes out of the folder, which is made where it is not there."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder / _LOCK, f"another process fetches {self.folder}", stopped):
            yield

    def sweep(self, stopped: Stopped) -> None:
        """Remove what a killed process left beside files that are all there."""
        if any(self._left()) or (self.folder / _LOCK).exists():
            with self.alone(stopped):
                self.tidy()

    def tidy(self) -> None:
        """Remove the remains of unfinished files; all files that are wanted must be finished."""
        for path in list(self._left()):
            remove(path)

    def begin(self, sha256: str, there: Collection[str], overwrite: bool) -> None:
        """Note which archive the files will come from; remove older ones to overwrite, or without a note."""
        if overwrite or not self.note.exists():
            self._clear()
        masks = [ending for ending in MASK_ENDINGS if self.file(ending).name in there]
        write_json(self.note, {"archive": sha256, "masks": masks})

    def remove_masks(self) -> None:
        """Remove masks that were unpacked for labels alone."""
        remove(self.masks(()))

    def _left(self) -> Iterator[Path]:
        """Yield what is there under the names of unfinished files."""
        for pattern in (TEMPORARY, "*.partial"):
            yield from self.folder.glob(pattern)

    def _files(self) -> list[Path]:
        """Return all files that there can be, except the note."""
        labels = [self.file(kind.ending) for kind in KINDS]
        names = [path.with_suffix(".toml") for path in labels]
        return [self.file(SOURCE), *map(self.file, MASK_ENDINGS), *labels, *names, self.origin]

    def _clear(self) -> None:
        """Remove all files, the note last: as long as any are left, it says which archive they come from."""
        self.remove_masks()
        for path in [*self._files(), self.note]:
            path.unlink(missing_ok=True)


def find_archive(source: str | None, sha256: str, context: Context) -> Path:
    """Return the archive: a local copy, once its hash is checked, or the downloaded one.

    Parameters
    ----------
    source : str or None
        A URL or a local copy to use instead of the published URL.
    sha256 : str
        The SHA-256 of the archive.

    Raises
    ------
    UsageError
        For a URL of another scheme than http and https.
    MissingError
        Where there is no such file, or it has another hash.
    MissingError, ResourceError, Interrupted
        As for ``vemseg.catalog.download``.
    """
    source = source or BETASEG.url

    def tell(stage: str, have: int, total: int | None) -> None:
        known = f"{byte_text(have)} of {byte_text(total)}" if total else byte_text(have)
        context.report(stage, have / total if total else 0.0, known)

    scheme = re.match("([a-z]+)://", source, re.IGNORECASE)
    if scheme and scheme[1].lower() in ("http", "https"):
        name = f"{BETASEG.name}.zip"
        return download(source, sha256, name, offline=context.offline, tell=tell, stopped=context.stopped)
    if scheme:
        raise UsageError(f"{source} cannot be fetched: give an http or https address, or a file")
    path = Path(source).expanduser()
    if not path.is_file():
        raise MissingError(f"no archive {path}")
    if (found := file_sha256(path, tell, context.stopped)) != sha256:
        raise MissingError(
            f"{path} is not the archive that was expected: its SHA-256 is {found}, not {sha256}; "
            f"if you trust it, --sha256 {found} takes it"
        )
    return path


def fill(
    cells: Sequence[Cell],
    parts: Sequence[str],
    archive: Path,
    sha256: str,
    *,
    overwrite: bool,
    context: Context,
) -> None:
    """Bring the parts that are asked for into the folders of cells: unpack them, make the labels.

    Parameters
    ----------
    cells : sequence of Cell
    parts : sequence of str
        Some of ``PARTS``.
    archive : Path
    sha256 : str
        The SHA-256 of the archive.
    overwrite : bool
        Make again what is there.

    Raises
    ------
    InputError
        Where the archive has another layout, or a mask another shape than its volume.
    OutputExistsError
        As for :meth:`Cell.holds`.
    ResourceError, Interrupted
        As for ``vemseg.catalog.unpack``.
    """
    there = _by_name(archive)
    ordered = sorted(cells, key=lambda cell: cell.name)  # so that all processes lock them in the same order
    files = {cell: _members_of(cell, parts, archive, there) for cell in ordered}
    with ExitStack() as stack:
        for cell in ordered:
            stack.enter_context(cell.alone(context.stopped))
        left = [cell for cell in ordered if overwrite or not cell.holds(parts, sha256)]
        for cell in left:
            cell.begin(sha256, there, overwrite)
        members_left = {member: file for cell in left for member, file in files[cell].items()}
        _unpack(archive, members_left, context)
        for i, cell in enumerate(left if "labels" in parts else ()):
            _make_labels(cell, parts, sha256, context.part(i, len(left)))
        for cell in left:
            cell.tidy()


def _by_name(archive: Path) -> dict[str, list[PurePosixPath]]:
    """Return the members of an archive by their last names: the cells' folders may be anywhere in it."""
    there: dict[str, list[PurePosixPath]] = {}
    for member in members(archive):
        there.setdefault(member.path.name, []).append(member.path)
    return there


def _members_of(
    cell: Cell, parts: Sequence[str], archive: Path, there: Mapping[str, Sequence[PurePosixPath]]
) -> dict[PurePosixPath, Path]:
    """Return the members of an archive that a cell needs, and the file that each becomes.

    Raises
    ------
    InputError
        Where one is not in the archive, or is in it twice.
    """
    targets = [cell.file(SOURCE)] if SOURCE in parts else []
    if "labels" in parts or "masks" in parts:
        masks = {ending: cell.file(ending).name for ending in MASK_ENDINGS}
        names = [name for ending, name in masks.items() if name in there or ending not in OPTIONAL]
        targets += [cell.masks(parts) / name for name in names]
    wanted = {}
    for target in targets:
        found = there.get(target.name, [])
        if len(found) != 1:
            first = ", ".join(list(there)[:3]) or "nothing"
            missing = f"no {target.name} in it (it begins with {first})"
            what = f"{target.name} comes twice" if found else missing
            raise InputError(f"{archive} does not have the layout of BetaSeg: {what}")
        wanted[found[0]] = target
    return wanted


def _unpack(archive: Path, files: Mapping[PurePosixPath, Path], context: Context) -> None:
    def unpacked(done: int, total: int) -> None:
        context.report("unpacking", done / total, f"{byte_text(done)} of {byte_text(total)}")

    unpack(archive, files, unpacked=unpacked, stopped=context.stopped)


def _make_labels(cell: Cell, parts: Sequence[str], sha256: str, context: Context) -> None:
    """Write how a cell's labels are made, then each kind of labels that is missing."""
    origin = provenance("reference", extra={"betaseg": {"cell": cell.name, "sha256": sha256}})
    try:
        masks, grey = cell.masks(parts), cell.file(SOURCE)
        references = [Reference(masks, cell.name, kind, grey) for kind in KINDS]
        write_json(cell.origin, origin)
        for i, reference in enumerate(references):
            labels = cell.file(reference.kind.ending)
            if not labels.exists():
                write_reference(reference, labels, lasting(origin), context.part(i, len(references)))
    except InputError:
        cell.remove_masks()
        raise
    cell.remove_masks()
