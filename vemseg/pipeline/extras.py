"""What may be wanted of ``segment`` besides labels: names of the classes, and how certain each label is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vemseg.errors import InputError, UsageError
from vemseg.labelling import Labeller
from vemseg.names import check_output
from vemseg.run import Output, sidecar, state_in
from vemseg.volume import About, LabelStore, Volume, finish_grey


@dataclass(frozen=True)
class Extras:
    """What is wanted besides the labels themselves.

    Attributes
    ----------
    names : mapping of int to str, optional
        Names of classes. Labels that are there already are only renamed.
    confidence : Path, optional
        A second volume, .tif or .ome.zarr in the folder of the labels: how certain the class of each voxel
        is, uint8, 255 for certain (see ``Labeller.confidence``). It appears together with the labels.
    """

    names: Mapping[int, str] | None = None
    confidence: Path | None = None

    def check(self, out: Path, fitted: Labeller | None) -> None:
        """Refuse a confidence that cannot be told, or cannot be published together with labels.

        Parameters
        ----------
        out : Path
            The labels.
        fitted : Labeller or None
            The classes, where they are known already.

        Raises
        ------
        UsageError, InputError
            For the path, and for the classes.
        """
        if self.confidence is None:
            return
        check_output(self.confidence)
        if self.confidence.absolute().parent != out.absolute().parent:
            raise UsageError(
                f"--confidence {self.confidence} must lie in the folder of the labels, {out.parent}"
            )
        if self.confidence.name == out.name:
            raise UsageError(f"--confidence {self.confidence} is where the labels go: give it another name")
        if fitted is not None and not fitted.rates:
            raise InputError(
                "--confidence: these clusters do not say how far classes lie apart; they were imported, or "
                "saved by an earlier version: fit new ones"
            )

    def volumes(self, out: Path) -> list[Path]:
        """Return the confidence that is wanted, and the one that belongs to labels which are there."""
        made = state_in(sidecar(out)) or {}
        earlier = made.get("confidence") if made.get("output") == out.name else None
        found = [self.confidence, None if earlier is None else out.with_name(earlier)]
        return [path for path in dict.fromkeys(found) if path is not None]

    def finish(self, output: Output, volume: Volume, store: LabelStore) -> None:
        """Write the confidence in its final form, to where it grows until ``output`` is published."""
        assert self.confidence is not None
        about = {"kind": "confidence", "labels": output.path.name, "scale": "0 to 255, which is certain"}
        growing = output.growing(self.confidence)
        finish_grey(store, growing, About(**volume.placed, description=about))
