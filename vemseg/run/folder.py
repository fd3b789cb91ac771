"""A run: one directory with the settings, the origin, the progress and the result of a training."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from vemseg.errors import InputError, OutputExistsError, UsageError
from vemseg.files import TEMPORARY, write_text, writing
from vemseg.foreign import Form, read_text, reading
from vemseg.recipe import Recipe, diff, parse_recipe
from vemseg.run.card import card
from vemseg.run.conflicts import refuse_inputs
from vemseg.run.files import Json, plain, read_json, write_json
from vemseg.run.fingerprint import fingerprint, same, sha256
from vemseg.run.locks import Lock
from vemseg.run.origin import now, peak_memory, provenance

_log = logging.getLogger(__name__)

_RECIPE, _INFO, _LOCK, _CARD = "recipe.toml", "run.json", ".lock", "rdf.yaml"
_BEFORE_RECIPE = (_INFO, _LOCK, TEMPORARY)
"""Patterns of the files that an interrupted creation leaves in a new directory."""
_COURSE = (
    _CARD,
    "metrics.jsonl",
    "model.safetensors",
    "model-*.safetensors",
    "checkpoint.safetensors",
    "curve.png",
    "chart-*.png",
    "reconstruction-*.png",
)
"""Patterns of the files that starting again removes; all others belong to the user."""
_BEGINNING = "beginning"
"""A key that ``run.json`` has while a run begins; whatever an earlier run left is given up then."""
_LINE = Form({"step": int})
"""A line of the metrics."""
_INFO_FORM = Form(
    {
        "inputs?": list[dict[str, str | int | None]],
        "parents?": list[dict[str, str | int | None]],
        "volumes?": list[dict[str, object]],
        "finished?": str | None,
        "resumed?": list[dict[str, str]],
        "imported?": {"sha256?": str},
        "start?": {"model": str, "hash": str},
        "teacher?": {"model": str, "hash": str},
    }
)
"""What ``run.json`` says that is read again."""
_COMPARED = ("shape", "voxel_size_nm", "crop", "background", "intensity", "label_values", "unlabelled")
"""The facts on a volume and its labels, beside their content, that change what a model learns from it."""


class Run:
    """A directory that can explain itself. Make one with ``create``, read one with ``open``.

    ``recipe.toml`` holds the settings, ``run.json`` where the run comes from, ``metrics.jsonl`` its progress,
    ``model.safetensors`` the encoder as it is now (``model-<step>.safetensors`` as it was),
    ``checkpoint.safetensors`` what an exact resume needs, ``rdf.yaml`` the card of a finished run.
    A created run is locked until it is closed: use it as a context manager.

    Attributes
    ----------
    path : Path
        The directory.
    recipe : Recipe
        Its settings.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self._lock = Lock(path / _LOCK, f"another process trains in {path}")

    @classmethod
    def create(
        cls,
        path: Path,
        recipe: Recipe,
        *,
        inputs: Sequence[Path] = (),
        parents: Sequence[Path] = (),
        details: Json | None = None,
        overwrite: bool = False,
    ) -> Self:
        """Make a run to train in, or take up the one that is there if its settings and inputs are the same.

        Parameters
        ----------
        path : Path
            The directory.
        recipe : Recipe
            Settings.
        inputs : sequence of Path
            The volumes; only their content is compared, not where they lie.
        parents : sequence of Path
            Artifacts the run starts from; only their content is compared.
        details : mapping, optional
            More for ``run.json``, such as the device. ``volumes`` holds facts on each volume, of which
            shape, voxel size, crop and intensity must be those of the run that is there; ``start`` and
            ``teacher`` name the models that it starts from and learns from.
        overwrite : bool
            Start again, whatever was there.

        Raises
        ------
        UsageError
            Where the directory holds what the run starts from or reads, or lies in it.
        OutputExistsError
            Where the directory holds another run or no run at all, or another process trains in it.
        ResourceError
            Where it cannot be written.
        """
        refuse_inputs([path], [*inputs, *parents])
        _refuse_foreign(path)
        run = cls(path, recipe)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            run._lock.acquire()
        try:
            if overwrite or not (path / _RECIPE).exists() or _BEGINNING in run.info:
                run._begin(inputs, parents, details or {})
            else:
                run._take_up(inputs, parents, details or {})
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run to read it; it may be in training.

        Raises
        ------
        InputError
            Where the directory is not a run.
        """
        if not (path / _RECIPE).is_file():
            what = f"no {_RECIPE} in" if path.is_dir() else "no directory"
            raise InputError(f"not a vemseg run: {what} {path}")
        try:
            recipe = parse_recipe(read_text(path / _RECIPE, "no text"), str(path / _RECIPE))
        except UsageError as error:
            raise InputError(f"cannot read run {path}: {error}") from error
        return cls(path, recipe)

    @property
    def model(self) -> Path:
        """The encoder as it is now."""
        return self.path / "model.safetensors"

    def snapshot(self, step: int) -> Path:
        """Return where the encoder is kept as it was after a step."""
        return self.path / f"model-{step:07d}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The state that an exact resume needs."""
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        """One line of JSON per report."""
        return self.path / "metrics.jsonl"

    @property
    def info(self) -> Json:
        """Where the run comes from: the content of ``run.json``."""
        path = self.path / _INFO
        found: Json = _INFO_FORM.check(read_json(path), f"cannot read {path}")
        return found

    @property
    def finished(self) -> bool:
        """Whether the training reached its end."""
        return self.info.get("finished") is not None

    def finish(self, **details: object) -> None:
        """Note that the training reached its end, with anything else worth knowing (plain JSON types)."""
        changes = {"finished": now(), "peak_memory_bytes": peak_memory(), **details}
        if self.model.exists():
            write_json(self.path / _CARD, card(self.recipe, self.info, self.model))
        write_json(self.path / _INFO, self.info | changes)

    def append_metrics(self, metrics: Mapping[str, object]) -> None:
        """Add one line; ``metrics`` has a ``step``. Numbers that are not finite become null."""
        line = json.dumps({key: _finite(value) for key, value in metrics.items()}, default=plain)
        with writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read_metrics(self) -> list[Json]:
        """Return all lines; a last line that a crash cut off is left out."""
        if not self.metrics.exists():
            return []
        complaint = f"cannot read {self.metrics}"
        lines = read_text(self.metrics, complaint).splitlines(keepends=True)
        with reading(complaint):
            found: list[Json] = [json.loads(line) for line in lines if line.endswith("\n")]
        for line in found:
            _LINE.check(line, complaint)
        return found

    def truncate_metrics(self, step: int) -> None:
        """Forget what was reported after a step, before going on from there."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def close(self) -> None:
        """Let others train in this directory."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _remove(self, patterns: Iterable[str]) -> None:
        with writing(self.path):
            for file in [file for pattern in patterns for file in self.path.glob(pattern)]:
                file.unlink()

    def _begin(self, inputs: Sequence[Path], parents: Sequence[Path], details: Json) -> None:
        """Remove what an earlier run left, write the settings, then where the run comes from.

        Meanwhile ``run.json`` says that the run begins, so that all this is repeated if it is interrupted.
        """
        info = provenance(
            "run",
            recipe=self.recipe,
            seed=self.recipe.train.seed,
            parents=parents,
            inputs=map(fingerprint, inputs),
            extra={**details, "finished": None},
        )
        write_json(self.path / _INFO, {"kind": "run", _BEGINNING: now()})
        self._remove((*_COURSE, TEMPORARY))
        write_text(self.path / _RECIPE, self.recipe.to_toml())
        write_json(self.path / _INFO, info)

    def _take_up(self, inputs: Sequence[Path], parents: Sequence[Path], details: Json) -> None:
        """Check that the existing run is the one asked for, and note that it goes on."""
        there, info = Run.open(self.path).recipe, self.info
        way_out = "give another -o, or -f to start again"
        if differing := diff(there, self.recipe):
            shown = "; ".join(
                f"{key} {_show(old)} there, {_show(new)} now" for key, (old, new) in differing.items()
            )
            raise OutputExistsError(f"{self.path} was made with other settings ({shown}): {way_out}")
        known = info.get("inputs") or []
        if len(known) != len(inputs) or not all(map(same, known, inputs)):
            names = ", ".join(Path(str(entry.get("path"))).name for entry in known)
            raise OutputExistsError(f"{self.path} was made from other volumes ({names}): {way_out}")
        if changed := _changed(info.get("volumes"), details.get("volumes")):
            raise OutputExistsError(f"{self.path} read its volumes in another way ({changed}): {way_out}")
        if change := _other_origin(info, parents, details):
            raise OutputExistsError(f"{self.path} began otherwise ({change}): {way_out}")
        self._remove([TEMPORARY])
        if info.get("finished"):
            return
        entry = {"started": now(), "command": shlex.join(sys.argv), "host": platform.node()}
        write_json(self.path / _INFO, info | {"resumed": [*info.get("resumed", []), entry]})
        if self.metrics.exists() and not self.checkpoint.exists():
            self.truncate_metrics(-1)


def _refuse_foreign(path: Path) -> None:
    """Refuse a path that is there but was not made by ``Run.create``."""
    with writing(path):
        if not path.exists() or ((path / _RECIPE).is_file() and (path / _INFO).is_file()):
            return
    if not path.is_dir():
        raise OutputExistsError(f"{path} is a file: give a directory for the run with -o")
    with contextlib.suppress(InputError, TypeError):
        if _BEGINNING in read_json(path / _INFO):
            return
    others = [entry.name for entry in path.iterdir() if not any(entry.match(p) for p in _BEFORE_RECIPE)]
    if others:
        raise OutputExistsError(f"{path} is not a vemseg run, and not empty ({others[0]}): give another -o")


def _changed(there: Sequence[Json] | None, wanted: Sequence[Json] | None) -> str | None:
    """Say in which of the facts volumes differ, or return None; where no facts are known, nothing differs."""
    found = [
        f"{key} of {Path(new.get('path') or 'a volume').name} "
        f"{_show(old.get(key))} there, {_show(new.get(key))} now"
        for old, new in zip(there or (), wanted or (), strict=False)
        for key in _COMPARED
        if _show(old.get(key)) != _show(new.get(key))
    ]
    return "; ".join(found) or None


def _finite(value: object) -> object:
    return None if isinstance(value, float | np.floating) and not math.isfinite(value) else value


def _other_origin(there: Json, parents: Sequence[Path], details: Json) -> str | None:
    """Say from which models a run began and is to begin now, or return None where these are the same."""
    before = there.get("parents") or []
    teachers = [(facts.get("teacher") or {}).get("hash") for facts in (there, details)]
    if [one.get("sha256") for one in before] == list(map(sha256, parents)) and teachers[0] == teachers[1]:
        return None
    was, now = (
        ", ".join(f"{role} {facts[role]['model']}" for role in ("start", "teacher") if role in facts)
        for facts in (there, details)
    )
    paths = ", ".join(str(one.get("path")) for one in before)
    return f"{was or paths or 'no other model'} there, {now or 'no other model'} now"


def _show(value: object) -> str:
    return "absent" if value is None else json.dumps(value, default=plain)
