"""The volumes of a scene, opened and thinned, with the names and colours of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.comparison import Scene
from vemseg.context import Context
from vemseg.drawing import Look, Manner
from vemseg.drawing.colours import MOST_COLOURS, RGB
from vemseg.errors import UsageError
from vemseg.gallery.wishes import Wishes
from vemseg.geometry import ZYX
from vemseg.names import is_url, split_name
from vemseg.volume import Thinned, Volume, record
from vemseg.volume.about import captions, colours_in, names_in, suggestions_in


@dataclass(frozen=True)
class View:
    """What is shown, and how.

    Attributes
    ----------
    scene : Scene
    look : Look
    wishes : Wishes
    grey : Volume
    painted, truth : Volume or None
        Labels and reference on the voxels of ``grey``.
    context : Context
    out : Path
        The folder of all files.
    """

    scene: Scene
    look: Look
    wishes: Wishes
    grey: Volume
    painted: Volume | None
    truth: Volume | None
    context: Context
    out: Path

    @classmethod
    def of(cls, scene: Scene, look: Look, wishes: Wishes, out: Path, context: Context) -> View:
        """Open a scene.

        Raises
        ------
        InputError
            As ``Scene.open``.
        UsageError
            Where something is wanted that needs labels, and there are none.
        """
        if scene.labels is None and wishes.of_labels:
            raise UsageError(f"{wishes.of_labels[0]} shows labels: give them with --labels")
        return cls(scene, look, wishes, *scene.open(context), context, out)

    @property
    def stem(self) -> str:
        """How the names of all files begin."""
        return split_name(Path(self.scene.volume))[0]

    @property
    def sources(self) -> list[Path]:
        """The files and folders that are read, as far as they lie on this machine."""
        opened = [part.path for part in (self.grey, self.painted, self.truth) if part is not None]
        named = self.wishes.confidence
        more = [None if named is None or is_url(named) else Path(named), self.wishes.features]
        return [path for path in [*opened, *more] if path is not None]

    @property
    def position(self) -> ZYX:
        """Where the planes cross, in voxels of the volume."""
        return self.look.position(self.grey.shape)

    @cached_property
    def raw(self) -> Thinned:
        """The grey volume, thinned for pictures."""
        return Thinned(self.grey)

    @cached_property
    def shown(self) -> Thinned | None:
        """The labels that are drawn, thinned: the given ones, or else the reference."""
        labels = self.painted or self.truth
        return None if labels is None else Thinned(labels)

    @property
    def pixel(self) -> tuple[float, float] | None:
        """Height and width of a pixel in nm."""
        size = self.raw.voxel_size
        return None if size is None else (size[1], size[2])

    @cached_property
    def names(self) -> dict[int, str] | None:
        """Names of labels: those that the user gave, and for other labels those in their file."""
        found = names_in(self._told) | dict(self.scene.names or {})
        return found or None

    @property
    def captions(self) -> dict[int, str] | None:
        """What legends call labels: their names, with what the encoder suggests where nobody named them."""
        return captions(self.names or {}, suggestions_in(self._told)) or None

    @cached_property
    def classes(self) -> dict[int, str] | None:
        """Names of the classes of the reference, from the user or from its file."""
        told = record(self.scene.reference) if self.scene.reference is not None else None
        return names_in(told) | dict(self.scene.reference_names or {}) or None

    @cached_property
    def colours(self) -> dict[int, RGB]:
        """Colours that the file of the labels gives them."""
        return colours_in(self._told)

    @property
    def manner(self) -> Manner:
        """How labels are laid over grey values."""
        return Manner(self.look.style, self.look.alpha, self.raw.steps, colours=self.colours)

    def depths(self, n: int) -> list[int]:
        """Return ``n`` slices through the stack, as thinned voxels; fewer where there are fewer."""
        found = np.linspace(0, self.raw.shape[0] - 1, n + 2).round().astype(int)[1:-1]
        return sorted({int(z) for z in found})

    def places(self, depths: list[int]) -> list[int]:
        """Return the numbers of such slices in the volume."""
        return [z * self.raw.steps[0] for z in depths]

    @cached_property
    def _told(self) -> dict[str, object] | None:
        """What the labels say of themselves."""
        return record(self.scene.labels) if self.scene.labels is not None else None


def folded(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return labels whose numbers fit into the palette; beyond its end, as for objects, it starts again.

    What is below 0 is nothing, as 0 is.
    """
    if not labels.size or (labels.min() >= 0 and labels.max() <= MOST_COLOURS):
        return labels
    found = labels.astype(np.int64)
    return np.where(found > 0, (found - 1) % MOST_COLOURS + 1, 0)
