"""What may be wanted of ``segment`` besides labels: names, their form, and what is told of each voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vemseg.dense import RATINGS
from vemseg.errors import InputError, UsageError
from vemseg.labelling import Labeller
from vemseg.run import Output, sidecar, state_in
from vemseg.volume import About, LabelForm, LabelStore, Volume, finish_grey

_SCALES = {
    "confidence": "0 to 255, which is certain",
    "scores": "how far each class lies behind the best one; 0 for the class of the label",
}


@dataclass(frozen=True)
class Extras:
    """What is wanted besides the labels themselves.

    Attributes
    ----------
    names : mapping of int to str, optional
        Names of classes. Labels that are there already are only renamed.
    confidence : Path, optional
        A second volume, in the folder of the labels: how certain the class of each voxel is, uint8, 255 for
        certain (see ``Labeller.confidence``). It appears together with the labels.
    scores : Path, optional
        A volume with a channel for each class: how far its score lies behind that of the best class, float16.
    form : LabelForm
        How labels are written, as far as their name does not say it.
    """

    names: Mapping[int, str] | None = None
    confidence: Path | None = None
    scores: Path | None = None
    form: LabelForm = LabelForm()

    @property
    def ratings(self) -> dict[str, Path]:
        """The volumes that are wanted, by the names of ``RATINGS``."""
        wanted = {"confidence": self.confidence, "scores": self.scores}
        return {name: path for name, path in wanted.items() if path is not None}

    def form_of(self, path: Path) -> LabelForm:
        """Return the form of labels, or of a volume beside them."""
        if path not in self.ratings.values():
            return self.form
        return LabelForm(self.form.ngff) if path.suffix == ".zarr" else LabelForm()

    def state(self) -> dict[str, object]:
        """Return the entries that belong to the state of labels."""
        scores = {} if self.scores is None else {"scores": self.scores.name}
        return {"confidence": self.confidence and self.confidence.name, **scores, **self.form.state()}

    def check(self, out: Path, fitted: Labeller | None) -> None:
        """Refuse what cannot be told or written, or cannot be published together with labels.

        Parameters
        ----------
        out : Path
            The labels.
        fitted : Labeller or None
            The classes, where they are known already.

        Raises
        ------
        UsageError, InputError
            For a path or form, and for the classes.
        """
        self.form.check(out)
        taken = {out.name: "the labels go"}
        for name, path in self.ratings.items():
            self.form_of(path).check(path)
            if path.absolute().parent != out.absolute().parent:
                raise UsageError(f"--{name} {path} must lie in the folder of the labels, {out.parent}")
            if path.name in taken:
                raise UsageError(f"--{name} {path} is where {taken[path.name]}: give it another name")
            taken[path.name] = f"--{name} goes"
        if self.confidence is not None and fitted is not None and not fitted.rates:
            raise InputError(
                "--confidence: these clusters do not say how far classes lie apart; they were imported, or "
                "saved by an earlier version: fit new ones"
            )

    def volumes(self, out: Path) -> list[Path]:
        """Return the volumes beside the labels: those asked for, and those left by earlier labels."""
        made = state_in(sidecar(out)) or {}
        earlier = [made.get(name) for name in RATINGS] if made.get("output") == out.name else []
        return list(
            dict.fromkeys([*self.ratings.values(), *(out.with_name(name) for name in earlier if name)])
        )

    def finish(
        self, output: Output, volume: Volume, labeller: Labeller, stores: Mapping[str, LabelStore]
    ) -> None:
        """Write each volume in its final form, to where it grows until ``output`` is published."""
        for name, store in stores.items():
            path = self.ratings[name]
            said = {"kind": name, "labels": output.main.name, "scale": _SCALES[name]}
            classes = tuple(labeller.names.values()) if RATINGS[name].each else ()
            about = About(**volume.placed, description=said, channels=classes, span=labeller.span)
            finish_grey(store, output.growing(path), about, self.form_of(path))
