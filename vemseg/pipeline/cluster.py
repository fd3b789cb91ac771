"""``cluster``: stored vectors -> classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vemseg.context import Context
from vemseg.dense import as_wanted, check_sample, examples, open_features
from vemseg.errors import InputError
from vemseg.labelling import Labeller, Sample, find_classes
from vemseg.labelling.telling import PLOT, TABLE, choice_of, draw_choice, say_choice, write_choice
from vemseg.models import settle
from vemseg.pipeline.beside import beside
from vemseg.points import PointFile
from vemseg.recipe import sets
from vemseg.run import Output, State, lasting, provenance, sidecar, write_json

_log = logging.getLogger("vemseg")


def cluster(
    paths: Sequence[Path],
    out: Path,
    *,
    settings: Sequence[str] = (),
    points: PointFile | None = None,
    names: Mapping[int, str] | None = None,
    overwrite: bool = False,
    context: Context = Context(),
) -> Path:
    """Fit classes to stored features of one volume, or of several that count equally.

    Parameters
    ----------
    paths : sequence of Path
        Features that ``embed`` stored.
    out : Path
        A safetensors file (``labelling.Labeller``); ``<out>.json`` beside it says how it was made. Where the
        number of classes is chosen, ``<stem>_k.png`` and ``<stem>_k.csv`` show what it was chosen from.
    settings : sequence of str
        ``table.key=value`` laid over the recipe of the first features.
    points : PointFile, optional
        Points in the one volume of the features, for a method that learns from them.
    names : mapping of int to str, optional
        Names of classes, which labels made with them get.
    overwrite : bool
        Replace classes that are there.
    context : Context
        Classes do not depend on it.

    Raises
    ------
    OutputExistsError
        Where classes made with other settings or of other features are there and ``overwrite`` is not set.
    InputError
        Where the features were made by different models; as ``PointFile.read``.
    UsageError
        Where points are given for features of several volumes.
    ResourceError
        Where the memory is not enough.
    """
    machine = settle(context, "fp32")
    sources = [as_wanted(open_features(path, settings, machine, offline=context.offline)) for path in paths]
    if (models := len({source.maker.model for source in sources})) > 1:
        raise InputError(f"features of {models} different models cannot be clustered together")
    first, table = sources[0], sources[0].maker.recipe.cluster
    given = examples(points, sources)
    each = -(-check_sample(table, sources, context.limit, pointed=given is not None) // len(sources))
    state: State = {
        "output": out.name,
        "settings": first.maker.recipe.of_classes,
        "model": first.maker.model,
        **({} if points is None else {"points": points.state()}),
        **({} if names is None else {"names": {str(k): name for k, name in names.items()}}),
    }
    output = Output(
        out,
        state=state,
        inputs=paths,
        beside=[sidecar(out), beside(out, PLOT), beside(out, TABLE)],
        overwrite=overwrite,
    )
    with output:
        if output.done:
            _log.info("%s is there already, made with the same settings", out)
            return out
        if table.finds and not (table.k_range or sets(settings, "cluster.k")):
            _log.info("no number of classes given (-k): taking %d", table.k)
        samples = [
            source.sample(each, table.seed, context, output.partial / f"sample-{i}.safetensors")
            for i, source in enumerate(sources)
        ]
        alone = first if len(sources) == 1 else None
        found = find_classes(table, replace(Sample.joined(samples), examples=given), alone, context)
        labeller = found if names is None else found.named(names)
        origin = provenance("clusters", seed=table.seed, inputs=output.inputs, extra={"state": output.state})
        write_json(output.growing(sidecar(out)), origin)
        _write(output, labeller.noting({"model": first.maker.model, "provenance": lasting(origin)}))
        output.publish()
    return out


def _write(output: Output, labeller: Labeller) -> None:
    """Write the classes and, where their number was chosen, what it was chosen from."""
    say_choice(labeller)
    if choice := choice_of(labeller):
        draw_choice(output.growing(beside(output.path, PLOT)), choice)
        write_choice(output.growing(beside(output.path, TABLE)), choice)
    labeller.save(output.growing(output.path))
