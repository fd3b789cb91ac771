"""Masks of organelles -> reference labels: of eight classes, of the papers' four, and the annotated cell.

BetaSeg has a binary mask of each organelle, and masks overlap. The reference gives a voxel to the mask that
is trusted most (Han et al., CVPRW 2022, released configuration). The papers evaluate four classes: what is
neither nucleus, granules nor mitochondria *after* that is unrecognised, so a Golgi voxel inside a granule's
mask does not count as granule.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.drawing import palette
from vemseg.errors import InputError, Interrupted
from vemseg.files import FAILING, remove, write_text, writing
from vemseg.geometry import Box
from vemseg.run import Json
from vemseg.volume import LabelInfo, LabelStore, Volume, finish_labels, open_volume

VOXEL_SIZE = (16.0, 16.0, 16.0)
"""The voxel size of BetaSeg in nm, z y x; its files do not state it."""

CELL_MASK = "membrane_full_mask"
MASKS = {
    1: ("centrioles", "centrioles"),
    2: ("nucleus", "nucleus_mask"),
    3: ("membrane", "membrane_mask"),
    4: ("microtubules", "microtubules"),
    5: ("golgi", "golgi_corrected"),
    6: ("granules", "granules"),
    7: ("mitochondria", "mitochondria_mask"),
}
"""The name of each class and the ending of its mask's file, from the most trusted mask to the least."""
MASK_ENDINGS = (*(ending for _, ending in MASKS.values()), CELL_MASK)
OPTIONAL = (MASKS[3][1],)
"""Masks that the public archive does not hold; without one, no voxel is of its class."""
UNRECOGNISED = "unrecognised"
FOUR = {1: "nucleus", 2: "granules", 3: "mitochondria"}
"""The classes that the papers evaluate; 0 is all the rest."""
BLOCK = (64, 256, 256)


@dataclass(frozen=True)
class Kind:
    """A label volume that is made of a cell's masks.

    Attributes
    ----------
    ending : str
        What follows the cell's name in the name of its file.
    names : dict of int to str
        The names of its classes, 0 included.
    """

    ending: str
    names: dict[int, str]


EIGHT_CLASSES = Kind("labels", {0: UNRECOGNISED} | {number: name for number, (name, _) in MASKS.items()})
FOUR_CLASSES = Kind("labels4", {0: UNRECOGNISED} | FOUR)
CELL = Kind("cell", {0: "outside", 1: "cell"})
KINDS = (EIGHT_CLASSES, FOUR_CLASSES, CELL)


class Reference(Volume):
    """Labels that are made from a cell's masks while they are read.

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
            if not path.exists():  # an optional mask: unpacking refuses an archive without one of the others
                continue
            mask = self._open[ending] = open_volume(path).stored()
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
    """Turn labels of the eight classes into those of the papers' four."""
    numbers = {name: number for number, name in FOUR.items()}
    table = np.zeros(256, np.uint8)
    for number, (name, _) in MASKS.items():
        table[number] = numbers.get(name, 0)
    four: NDArray[np.uint8] = table[labels]
    return four


def write_reference(reference: Reference, out: Path, origin: Json, context: Context) -> None:
    """Write labels, block by block, and the names of their classes, ``<out>.toml``.

    Parameters
    ----------
    out : Path
        TIFF; replaced where it is there.
    origin : dict
        Where the labels come from; goes into the file.

    Raises
    ------
    ResourceError
        Where the disk is full.
    Interrupted
        Where it was stopped; nothing is kept.
    """
    partial = out.with_name(f"{out.name}.partial")
    with writing(out, FAILING):
        remove(partial)
        store = LabelStore.create(partial / "store", reference.shape, BLOCK, voxel_size=VOXEL_SIZE)
        boxes = list(store.box.split(store.block_shape))
        for i, box in enumerate(boxes):
            if context.stopped():
                remove(partial)
                raise Interrupted(f"stopped before {out} was whole: the same command goes on")
            store.write(box, reference.read(box))
            context.report("labelling", (i + 1) / len(boxes), out.name)
        names = reference.kind.names
        lines = "".join(f'{number} = "{name}"\n' for number, name in names.items())
        write_text(out.with_suffix(".toml"), lines)
        named = {number: name for number, name in names.items() if number}
        colours = dict(zip(named, palette(len(named)), strict=True))
        growing = partial / out.name
        finish_labels(store, growing, LabelInfo(VOXEL_SIZE, description=origin, names=named, colours=colours))
        growing.replace(out)
        remove(partial)
