"""What a report is about: labels, their image, and what is known of their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vemseg.comparison import Scene
from vemseg.context import Context
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.foreign import check_library, quoted
from vemseg.names import is_url, split_name, volume_name
from vemseg.report.points import MOST, UMAP_NEEDED
from vemseg.volume import Choice, Record, Volume, crop_of, record
from vemseg.volume.about import RGB, names_in


@dataclass(frozen=True)
class Subject:
    """Labels, and what a user says of them.

    Attributes
    ----------
    labels : str
        A volume of classes; 0 is nothing.
    volume : str, optional
        Their image; the one that the labels name where left out.
    names : mapping of int to str
        Names of classes; they take the place of those in the file of the labels.
    colours : mapping of int to (int, int, int)
        Colours of classes; they take the place of those in the file too.
    merges : sequence of (classes, name)
        Classes that the user has merged before.
    voxel_size, crop : str, optional
        Of the image, as in ``render``.
    """

    labels: str
    volume: str | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, RGB] = field(default_factory=dict)
    merges: Sequence[tuple[tuple[int, ...], str | None]] = ()
    voxel_size: str | None = None
    crop: str | None = None

    @property
    def title(self) -> str:
        """A short name of the labels, such as outputs are called after."""
        return volume_name(self.labels).lstrip("-") or "labels"

    def open(self, context: Context) -> tuple[Volume, Volume, Record]:
        """Return the image and the labels on the same voxels, and what the labels say of themselves.

        Raises
        ------
        MissingError
            Where no image is named, or it is not there.
        InputError
            Where something cannot be read or holds objects, or image and labels have nothing in common.
        """
        told = record(self.labels) or {}
        if told.get("kind") == "objects":
            raise InputError(
                f"{self.labels} holds objects, not classes: report on the labels they were made from, with "
                "--objects and the table of objects to show these too"
            )
        image, choice = (self.volume, Choice()) if self.volume else _image_of(self.labels, told)
        crop = self.crop or (None if self.volume else crop_of(self.labels))
        scene = Scene(image, self.labels, voxel_size=self.voxel_size, crop=crop, choice=choice)
        grey, labels, _ = scene.open(context)
        assert labels is not None
        return grey, labels, told

    def known(self, told: Record) -> tuple[int, ...]:
        """Return the classes that the labels name, whether or not a voxel has them."""
        return tuple(sorted(names_in(told)))

    def check(self, classes: Sequence[int]) -> None:
        """Refuse names, colours and merges of classes that are not there.

        Raises
        ------
        InputError
            Where there is no class of such a number.
        """
        named = {*self.names, *self.colours, *(k for members, _ in self.merges for k in members)}
        if unknown := sorted(named - set(classes)):
            shown = ", ".join(map(str, classes[:24])) or "none"
            raise InputError(f"--names: there is no class {unknown[0]}; the labels have {shown}")

    def state(self) -> dict[str, object]:
        """Return what a user said, as plain JSON types."""
        return {
            "names": {str(k): name for k, name in self.names.items()},
            "colours": {str(k): list(colour) for k, colour in self.colours.items()},
            "merges": [list(members) for members, _ in self.merges],
        }


@dataclass(frozen=True)
class Beside:
    """What a report shows beside labels and their image.

    Attributes
    ----------
    points : int
        How many vectors; 0 shows none.
    features : str, optional
        What ``embed`` stored; the vectors are computed again where left out.
    model : str, optional
        The model that computes them; the bundled one where left out.
    umap : bool
        Whether vectors lie in the plane of UMAP, instead of that of two principal components.
    objects : Path, optional
        The table of objects; ``<labels>_objects.csv`` beside the labels, where that is there, if left out.
    """

    points: int = 2000
    features: str | None = None
    model: str | None = None
    objects: Path | None = None
    umap: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.points <= MOST:
            raise UsageError(f"--points {self.points}: a report shows 0 to {MOST} vectors")
        if self.umap:
            check_library("umap", UMAP_NEEDED, "umap")

    def table(self, labels: str) -> Path | None:
        """Return the table of objects that is shown; None where there is none.

        Raises
        ------
        MissingError
            Where the one that was named is not there.
        """
        if self.objects is not None and not self.objects.is_file():
            raise MissingError(f"no table at {self.objects}: 'vemseg objects' writes one")
        found = Path(labels).with_name(f"{split_name(Path(labels))[0]}_objects.csv")
        return self.objects or (found if found.is_file() else None)

    def state(self) -> dict[str, object]:
        """Return what a report depends on beside its inputs, as plain JSON types."""
        return {"points": self.points, "model": self.model, **({"umap": True} if self.umap else {})}


def _image_of(labels: str, told: Record) -> tuple[str, Choice]:
    """Return the address of the image that labels were made from, and what was chosen within its file.

    An image that was moved together with its labels is found beside them.
    """
    volume = told.get("volume")
    facts = volume if isinstance(volume, Mapping) else {}
    path, read = facts.get("path"), facts.get("read")
    if not isinstance(path, str):
        raise MissingError(f"{labels} does not say which image it shows: give that with --volume")
    chosen = {str(k): str(v) for k, v in read.items()} if isinstance(read, Mapping) else {}
    for found in (path, str(Path(labels).parent / Path(path).name)):
        if is_url(found) or Path(found.split(":/")[0]).exists():
            return found, Choice(**{k: v for k, v in chosen.items() if k in vars(Choice())})
    raise MissingError(
        f"{labels} was made from {quoted(path)}, which is not there: give the image with --volume"
    )
