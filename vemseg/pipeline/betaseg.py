"""``fetch betaseg``: the archive of BetaSeg -> grey volumes, reference labels and cell masks of its cells.

Every cell has a folder of its own, with a note of the archive that its files are of. The note is written
before anything else of the cell, and removed after everything else: files of two archives are never mixed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from vemseg.catalog import BETASEG, download, file_sha256, members, unpack
from vemseg.errors import InputError, MissingError, OutputExistsError, UsageError
from vemseg.pipeline.common import Report, Stopped
from vemseg.pipeline.reference import CELL_MASK, KINDS, MASK_ENDINGS, OPTIONAL, Reference, write_reference
from vemseg.resources import byte_text
from vemseg.run import provenance, read_json, write_json
from vemseg.run.files import alone, writing
from vemseg.volume.publish import remove

CELLS = ("high_c1", "high_c2", "high_c3", "high_c4", "low_c1", "low_c2", "low_c3")
PAPERS = CELLS[:4]
"""The cells of the papers: high glucose."""
SOURCE = "source"
PARTS = (SOURCE, "labels", "masks")


def fetch_betaseg(
    out: Path,
    *,
    cells: Sequence[str] = PAPERS,
    parts: Sequence[str] = PARTS[:2],
    source: str | None = None,
    sha256: str | None = None,
    offline: bool = False,
    overwrite: bool = False,
    report: Report,
    stopped: Stopped,
) -> list[Path]:
    """Fetch cells of BetaSeg: download, unpack, make the reference.

    Parameters
    ----------
    out : Path
        A folder; each cell gets one of its own in it: ``<cell>_source.tif``, ``<cell>_labels.tif`` (eight
        classes), ``<cell>_labels4.tif`` (the four of the papers), ``<cell>_cell.tif`` (1 in the annotated
        cell), and the names of their classes in ``.toml`` files.
    cells : sequence of str
        Of ``CELLS``.
    parts : sequence of str
        Of ``PARTS``; "masks" keeps the masks as published, too.
    source : str, optional
        Another URL of the archive, or a local copy of it.
    sha256 : str, optional
        Of that archive, where it is another one than the published.
    offline : bool
        Download nothing: the archive is in the cache already, or a local copy is given.
    overwrite : bool
        Make again what is there.

    Returns
    -------
    list of Path
        Of every cell the grey volume, then the labels, as asked for.

    Raises
    ------
    UsageError
        For a cell or part that does not exist.
    MissingError, ResourceError, Interrupted
        As ``vemseg.catalog.download`` and ``unpack``.
    InputError
        Where the archive has another layout, or a mask another shape than its volume.
    OutputExistsError
        Where a cell's folder holds files of another archive, or of nobody knows where, and ``overwrite`` is
        not set.
    """
    for name in cells:
        _known("cell", name, CELLS)
    for name in parts:
        _known("part", name, PARTS)
    sha256 = (sha256 or BETASEG.sha256).strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UsageError(f"'{sha256}' is no SHA-256: it has 64 hexadecimal digits")
    if todo := [cell for cell in cells if not _finished(out, cell, parts, sha256, overwrite)]:
        archive = _archive(source or BETASEG.url, sha256, offline, report, stopped)
        there = _by_name(archive)
        wanted = {cell: _wanted(archive, there, out, cell, parts) for cell in sorted(todo)}
        with ExitStack() as stack:
            for cell in wanted:
                stack.enter_context(_alone(_folder(out, cell), stopped))
            left = {c: w for c, w in wanted.items() if not _finished(out, c, parts, sha256, overwrite)}
            _begin(out, left, there, sha256, overwrite)
            _unpack(archive, left, report, stopped)
            for cell in left if "labels" in parts else ():
                _make_labels(out, cell, parts, sha256, report, stopped)
    return [path for cell in cells for path in _results(out, cell, parts)]


def _begin(out: Path, cells: Iterable[str], there: Collection[str], sha256: str, overwrite: bool) -> None:
    """Note of which archive the files of cells are, before there are any; replace what is there."""
    for cell in cells:
        if overwrite or not _note(out, cell).exists():
            _clear(out, cell)
        masks = [ending for ending in MASK_ENDINGS if f"{cell}_{ending}.tif" in there]
        write_json(_note(out, cell), {"archive": sha256, "masks": masks})


def _unpack(
    archive: Path, cells: Mapping[str, Mapping[PurePosixPath, Path]], report: Report, stopped: Stopped
) -> None:
    """Write the files of all cells, in one go: the progress is that of all."""

    def unpacked(done: int, total: int) -> None:
        report("unpacking", done / total, f"{byte_text(done)} of {byte_text(total)}")

    files = {member: file for of_cell in cells.values() for member, file in of_cell.items()}
    unpack(archive, files, unpacked=unpacked, stopped=stopped)


def _make_labels(
    out: Path, cell: str, parts: Sequence[str], sha256: str, report: Report, stopped: Stopped
) -> None:
    """Write how a cell's labels are made, then all kinds of them that are not there."""
    masks, grey = _masks(out, cell, parts), _file(out, cell, SOURCE)
    origin = provenance("reference", extra={"betaseg": {"cell": cell, "sha256": sha256}})
    try:
        references = [Reference(masks, cell, kind, grey) for kind in KINDS]
        write_json(_origin(out, cell), origin)
        for reference in references:
            labels = _file(out, cell, reference.kind.ending)
            if not labels.exists():
                write_reference(reference, labels, origin, report, stopped)
    except InputError:
        _remove_masks(out, cell)
        raise
    _remove_masks(out, cell)


def _known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UsageError(f"no {what} '{name}' in BetaSeg{hint}: there are {', '.join(known)}")


def _folder(out: Path, cell: str) -> Path:
    return out / cell


def _file(out: Path, cell: str, ending: str) -> Path:
    return _folder(out, cell) / f"{cell}_{ending}.tif"


def _masks(out: Path, cell: str, parts: Sequence[str]) -> Path:
    """Return the folder of a cell's masks: beside the volume where they are to stay."""
    return _folder(out, cell) / ("" if "masks" in parts else "masks.partial")


def _remove_masks(out: Path, cell: str) -> None:
    """Remove masks that were unpacked for labels alone."""
    remove(_masks(out, cell, ()))


@contextmanager
def _alone(folder: Path, stopped: Stopped) -> Iterator[None]:
    """Keep other processes out of a cell's folder, which is made if need be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / ".lock", f"another process fetches {folder}", stopped):
        yield


def _results(out: Path, cell: str, parts: Sequence[str]) -> list[Path]:
    endings = [SOURCE] if "source" in parts else []
    endings += [kind.ending for kind in KINDS] if "labels" in parts else []
    found = [_file(out, cell, ending) for ending in endings]
    masks = [_file(out, cell, ending) for ending in MASK_ENDINGS]
    return found + ([path for path in masks if path.exists()] if "masks" in parts else [])


def _note(out: Path, cell: str) -> Path:
    """Return where it is kept, from the beginning, of which archive a cell's files are."""
    return _folder(out, cell) / f"{cell}_archive.json"


def _finished(out: Path, cell: str, parts: Sequence[str], sha256: str, overwrite: bool) -> bool:
    """Tell whether all of a cell that is asked for is there, of this archive.

    Raises
    ------
    OutputExistsError
        Where something is there of another archive, or without a note of which, and ``overwrite`` is not set.
    """
    if overwrite:
        return False
    note = _note(out, cell)
    known: Any = read_json(note) if note.exists() else {}
    if known.get("archive") != sha256:
        if known or any(path.exists() for path in _files(out, cell)):
            raise OutputExistsError(
                f"{_folder(out, cell)} holds files of another archive: -f replaces them, or name another -o"
            )
        return False
    masks = [_file(out, cell, ending) for ending in known["masks"] or [CELL_MASK]]
    results = _results(out, cell, parts) + (masks if "masks" in parts else [])
    return all(path.exists() for path in results)


def _files(out: Path, cell: str) -> list[Path]:
    """Return all that there can be of a cell, but for the note."""
    endings = [SOURCE, *(kind.ending for kind in KINDS), *MASK_ENDINGS]
    files = [_file(out, cell, ending) for ending in endings]
    return [
        *files,
        *(_file(out, cell, kind.ending).with_suffix(".toml") for kind in KINDS),
        _origin(out, cell),
    ]


def _clear(out: Path, cell: str) -> None:
    """Remove all of a cell, the note last: the rest is of the archive it names as long as it is there."""
    _remove_masks(out, cell)
    for path in [*_files(out, cell), _note(out, cell)]:
        path.unlink(missing_ok=True)


def _origin(out: Path, cell: str) -> Path:
    """Return where it is kept how a cell's labels were made."""
    return _folder(out, cell) / f"{cell}_labels.json"


def _archive(source: str, sha256: str, offline: bool, report: Report, stopped: Stopped) -> Path:
    """Return the archive: a local copy, once its hash is checked, or the downloaded one."""

    def tell(stage: str, have: int, total: int | None) -> None:
        known = f"{byte_text(have)} of {byte_text(total)}" if total else byte_text(have)
        report(stage, have / total if total else 0.0, known)

    scheme = re.match("([a-z]+)://", source, re.IGNORECASE)
    if scheme and scheme[1].lower() in ("http", "https"):
        name = f"{BETASEG.name}.zip"
        return download(source, sha256, name, offline=offline, tell=tell, stopped=stopped)
    if scheme:
        raise UsageError(f"{source} is no address that can be fetched from: http, https, or a file")
    path = Path(source).expanduser()
    if not path.is_file():
        raise MissingError(f"no archive {path}")
    if (found := file_sha256(path, tell, stopped)) != sha256:
        raise MissingError(
            f"{path} is not the archive that was expected: its SHA-256 is {found}, not {sha256}; "
            f"if you trust it, --sha256 {found} takes it"
        )
    return path


def _by_name(archive: Path) -> dict[str, list[PurePosixPath]]:
    """Return the members of an archive by their last names: the cells' folders may be anywhere in it."""
    there: dict[str, list[PurePosixPath]] = {}
    for member in members(archive):
        there.setdefault(member.path.name, []).append(member.path)
    return there


def _wanted(
    archive: Path, there: dict[str, list[PurePosixPath]], out: Path, cell: str, parts: Sequence[str]
) -> dict[PurePosixPath, Path]:
    """Return the members that are needed of a cell, and the files they become.

    Raises
    ------
    InputError
        Where one is not in the archive, or is in it twice.
    """
    targets = [_file(out, cell, SOURCE)] if "source" in parts else []
    if "labels" in parts or "masks" in parts:
        masks = [_masks(out, cell, parts) / f"{cell}_{ending}.tif" for ending in MASK_ENDINGS]
        optional = [f"{cell}_{ending}.tif" for ending in OPTIONAL]
        targets += [path for path in masks if path.name in there or path.name not in optional]
    wanted = {}
    for target in targets:
        found = there.get(target.name, [])
        if len(found) != 1:
            first = ", ".join(list(there)[:3]) or "nothing"
            what = (
                f"{target.name} comes twice" if found else f"no {target.name} in it (it begins with {first})"
            )
            raise InputError(f"{archive} has not the layout of BetaSeg: {what}")
        wanted[found[0]] = target
    return wanted
