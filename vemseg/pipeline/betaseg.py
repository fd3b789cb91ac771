"""``fetch betaseg``: the archive of BetaSeg -> grey volumes, reference labels and cell masks of its cells.

The archive holds, for every cell, the grey volume and a binary mask of each organelle, and masks overlap. The
reference gives a voxel to the mask that is trusted most (Han et al., CVPRW 2022, released configuration).
The papers evaluate four classes: what is neither nucleus, granules nor mitochondria *after* that is
unrecognised, so a Golgi voxel inside a granule's mask does not count as granule.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.catalog import BETASEG, download, file_sha256, members, unpack
from vemseg.drawing import palette
from vemseg.errors import InputError, Interrupted, MissingError, OutputExistsError, UsageError
from vemseg.geometry import Box
from vemseg.pipeline.common import Report, Stopped
from vemseg.resources import byte_text
from vemseg.run import provenance, read_json, write_json, write_text
from vemseg.volume import LabelStore, Volume, finish_labels, open_volume, partial_directory
from vemseg.volume.publish import remove

CELLS = ("high_c1", "high_c2", "high_c3", "high_c4", "low_c1", "low_c2", "low_c3")
PAPERS = CELLS[:4]
"""The cells of the papers: high glucose."""
VOXEL_SIZE = (16.0, 16.0, 16.0)
"""nm; the files do not say it."""

PARTS = ("source", "labels", "masks")

SOURCE, CELL_MASK = "source", "membrane_full_mask"
MASKS = {
    1: ("centrioles", "centrioles"),
    2: ("nucleus", "nucleus_mask"),
    3: ("membrane", "membrane_mask"),
    4: ("microtubules", "microtubules"),
    5: ("golgi", "golgi_corrected"),
    6: ("granules", "granules"),
    7: ("mitochondria", "mitochondria_mask"),
}
"""Class -> its name and the ending of its mask, from the most trusted to the least."""
MASK_ENDINGS = (*(ending for _, ending in MASKS.values()), CELL_MASK)
OPTIONAL = (MASKS[3][1],)
"""Masks that the public archive does not hold; without one, no voxel is of its class."""
UNRECOGNISED = "unrecognised"
FOUR = {1: "nucleus", 2: "granules", 3: "mitochondria"}
"""The classes of the papers; 0 is all the rest."""
BLOCK = (64, 256, 256)


@dataclass(frozen=True)
class Kind:
    """A label volume that is made of a cell's masks.

    Attributes
    ----------
    ending : str
        Of its file, after the cell's name.
    names : dict of int to str
        Of its classes, 0 included.
    """

    ending: str
    names: dict[int, str]


EIGHT_CLASSES = Kind("labels", {0: UNRECOGNISED} | {number: name for number, (name, _) in MASKS.items()})
FOUR_CLASSES = Kind("labels4", {0: UNRECOGNISED} | FOUR)
CELL = Kind("cell", {0: "outside", 1: "cell"})
KINDS = (EIGHT_CLASSES, FOUR_CLASSES, CELL)


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
        Where labels of another archive are there and ``overwrite`` is not set.
    """
    for name in cells:
        _known("cell", name, CELLS)
    for name in parts:
        _known("part", name, PARTS)
    sha256 = (sha256 or BETASEG.sha256).lower()
    todo = [cell for cell in cells if overwrite or not _made(out, cell, parts, sha256)]
    if todo:
        archive = _archive(source or BETASEG.url, sha256, offline, report, stopped)
        _unpack(archive, out, todo, parts, report, stopped)
    for cell in todo if "labels" in parts else ():
        masks = _masks(out, cell, parts)
        _write_labels(_folder(out, cell), cell, masks, overwrite, sha256, report, stopped)
        if "masks" not in parts:
            remove(masks)
    return [path for cell in cells for path in _results(out, cell, parts)]


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


def _results(out: Path, cell: str, parts: Sequence[str]) -> list[Path]:
    endings = [SOURCE] if "source" in parts else []
    endings += [kind.ending for kind in KINDS] if "labels" in parts else []
    found = [_file(out, cell, ending) for ending in endings]
    masks = [_file(out, cell, ending) for ending in MASK_ENDINGS]
    return found + ([path for path in masks if path.exists()] if "masks" in parts else [])


def _made(out: Path, cell: str, parts: Sequence[str], sha256: str) -> bool:
    """Tell whether all of a cell that is asked for is there, of this archive."""
    if "masks" in parts and not _file(out, cell, CELL_MASK).exists():
        return False
    note = _note(_folder(out, cell), cell)
    known: Any = read_json(note) if note.exists() else {}
    if "labels" in parts and known.get("betaseg", {}).get("sha256") != sha256:
        return False
    return all(path.exists() for path in _results(out, cell, parts))


def _note(folder: Path, cell: str) -> Path:
    """Return where it is kept what a cell's labels were made of; it is written last."""
    return folder / f"{cell}_labels.json"


def _archive(source: str, sha256: str, offline: bool, report: Report, stopped: Stopped) -> Path:
    """Return the archive: a local copy, once its hash is checked, or the downloaded one."""
    if not source.startswith(("http://", "https://")):
        path = Path(source).expanduser()
        if not path.is_file():
            raise MissingError(f"no archive {path}")
        if (found := file_sha256(path)) != sha256:
            raise MissingError(
                f"{path} is not the archive that was expected: its SHA-256 is {found[:16]}..., not "
                f"{sha256[:16]}...; --sha256 {found} takes it"
            )
        return path

    def transferred(have: int, total: int | None) -> None:
        known = f"{byte_text(have)} of {byte_text(total)}" if total else byte_text(have)
        report("downloading", have / total if total else 0.0, known)

    name = f"{BETASEG.name}-{sha256[:12]}.zip"
    return download(source, sha256, name, offline=offline, transferred=transferred, stopped=stopped)


def _unpack(
    archive: Path, out: Path, cells: Sequence[str], parts: Sequence[str], report: Report, stopped: Stopped
) -> None:
    """Write the files that are needed of an archive, wherever in it the cells' folders are.

    Raises
    ------
    InputError
        Where a file is not in it.
    """
    there = {member.path.name: member.path for member in members(archive)}
    wanted: dict[PurePosixPath, Path] = {}
    for cell in cells:
        targets = {SOURCE: _file(out, cell, SOURCE)} if "source" in parts else {}
        if "labels" in parts or "masks" in parts:
            folder = _masks(out, cell, parts)
            for ending in MASK_ENDINGS:
                if ending not in OPTIONAL or f"{cell}_{ending}.tif" in there:
                    targets[ending] = folder / f"{cell}_{ending}.tif"
        for ending, target in targets.items():
            name = f"{cell}_{ending}.tif"
            if name not in there:
                first = ", ".join(list(there)[:3]) or "nothing"
                raise InputError(
                    f"{archive} has not the layout of BetaSeg: no {name} in it (it begins with {first})"
                )
            wanted[there[name]] = target

    def unpacked(done: int, total: int) -> None:
        report("unpacking", done / total, f"{byte_text(done)} of {byte_text(total)}")

    unpack(archive, wanted, unpacked=unpacked, stopped=stopped)


class Reference(Volume):
    """Labels that are made of a cell's masks, as they are read.

    Parameters
    ----------
    masks : Path
        Folder of the masks.
    cell : str
    kind : Kind
    grey : Path
        The cell's volume, whose shape the masks must have; where it is absent, the first mask decides.

    Raises
    ------
    InputError
        Where a mask has another shape.
    """

    def __init__(self, masks: Path, cell: str, kind: Kind, grey: Path) -> None:
        self.kind = kind
        self._open: dict[str, Volume] = {}
        first: Volume | None = open_volume(grey) if grey.exists() else None
        for ending in (CELL_MASK,) if kind is CELL else MASK_ENDINGS[:-1]:
            path = masks / f"{cell}_{ending}.tif"
            if not path.exists():  # optional ones: others were missed when they were unpacked
                continue
            mask = self._open[ending] = open_volume(path)
            first = first or mask
            if mask.shape != first.shape:
                raise InputError(
                    f"{path} has shape {mask.shape}, but {first.path} has {first.shape} (z, y, x)"
                )
        assert first is not None
        super().__init__(
            first.shape, np.dtype(np.uint8), voxel_size=VOXEL_SIZE, voxel_size_from="option", name=cell
        )

    def _read(self, box: Box) -> NDArray[np.generic]:
        if self.kind is CELL:
            return self._inside(CELL_MASK, box).astype(np.uint8)
        labels = np.zeros(box.shape, np.uint8)
        for number in reversed(MASKS):
            ending = MASKS[number][1]
            if ending in self._open:
                labels[self._inside(ending, box)] = number
        return labels if self.kind is EIGHT_CLASSES else four_of(labels)

    def _inside(self, ending: str, box: Box) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = self._open[ending].read(box) > 0  # type: ignore[operator]
        return inside


def four_of(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the four classes of the papers, of the eight."""
    numbers = {name: number for number, name in FOUR.items()}
    table = np.zeros(256, np.uint8)
    for number, (name, _) in MASKS.items():
        table[number] = numbers.get(name, 0)
    four: NDArray[np.uint8] = table[labels]
    return four


def _write_labels(
    folder: Path,
    cell: str,
    masks: Path,
    overwrite: bool,
    sha256: str,
    report: Report,
    stopped: Stopped,
) -> None:
    """Write all kinds of labels of a cell, then what they were made of.

    Raises
    ------
    OutputExistsError
        Where some are there that were made of another archive, and ``overwrite`` is not set.
    """
    note = _note(folder, cell)
    known: Any = read_json(note) if note.exists() else {}
    if not overwrite and known.get("betaseg", {}).get("sha256", sha256) != sha256:
        raise OutputExistsError(
            f"{folder} holds labels of another archive: -f replaces them, or name another -o"
        )
    references = [Reference(masks, cell, kind, folder / f"{cell}_{SOURCE}.tif") for kind in KINDS]
    origin = provenance("reference", extra={"betaseg": {"cell": cell, "sha256": sha256}})
    for reference in references:
        out = folder / f"{cell}_{reference.kind.ending}.tif"
        if overwrite or not out.exists():
            _write(reference, out, origin, report, stopped)
    write_json(note, origin)


def _write(reference: Reference, out: Path, origin: dict[str, Any], report: Report, stopped: Stopped) -> None:
    """Write labels, block by block, and the names of their classes."""
    partial = partial_directory(out)
    remove(partial)
    store = LabelStore.create(partial / "store", reference.shape, BLOCK, voxel_size=VOXEL_SIZE)
    boxes = list(store.box.split(store.block_shape))
    for i, box in enumerate(boxes):
        if stopped():
            raise Interrupted(f"stopped before {out} was whole: the same command goes on")
        store.write(box, reference.read(box))
        report(f"making {out.name}", (i + 1) / len(boxes))
    names = reference.kind.names
    lines = "".join(f'{number} = "{name}"\n' for number, name in names.items())
    write_text(out.with_suffix(".toml"), lines)
    named = {number: name for number, name in names.items() if number}
    finish_labels(
        store,
        out,
        names=named,
        colours=dict(zip(named, palette(len(named)), strict=True)),
        voxel_size=VOXEL_SIZE,
        description=origin,
        overwrite=True,
    )
