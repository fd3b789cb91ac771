"""``vemseg evaluate``: labels against a reference -> scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vemseg.cli import options, parsing, reading, shell, tables
from vemseg.errors import ThresholdError

if TYPE_CHECKING:
    from vemseg.pipeline.evaluate import Evaluation


def evaluate(
    prediction: options.Prediction,
    *,
    reference: options.Reference,
    mask: options.Mask = None,
    ignore: options.Ignore = None,
    mapping: options.Map = None,
    names: options.EvaluateNames = None,
    crop: options.ReferenceCrop = None,
    ignore_place: reading.IgnorePlace = False,
    offline: options.Offline = False,
    out: options.ScoresOut = None,
    json: options.Json = False,
    fail_under: options.FailUnder = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Score labels against a reference: Dice, IoU and more.

    Labels that a computer found have no names, so each is matched to a class of the reference, in three
    ways. All three use the reference, so on new data expect lower scores.
    """
    from vemseg.metrics import MEASURES
    from vemseg.pipeline.evaluate import Comparison
    from vemseg.pipeline.evaluate import evaluate as compute

    limit = parsing.threshold(fail_under, MEASURES) if fail_under else None
    comparison = Comparison(
        prediction,
        reference,
        mask,
        crop,
        parsing.ids(ignore),
        parsing.mapping(mapping) or {},
        parsing.names(names) or {},
        by_place=not ignore_place,
    )
    with shell.working(offline=offline) as context:
        found = compute(comparison, out=out, overwrite=overwrite, context=context)
    shell.show(tables.score_tables(found), as_result=not (json or found.path))
    if json:
        shell.result(tables.as_json(found.to_dict()))
    elif found.path:
        shell.result(found.path)
    if limit:
        _check(found, *limit)


def _check(found: Evaluation, measure: str, limit: float) -> None:
    """Refuse a mean below the limit: under the given map, or else under the one-to-one matching."""
    by_name = {scores.assignment.name: scores for scores in found.tables}
    judged = by_name.get("manual", by_name["hungarian"])
    mean = judged.mean(measure)
    if not mean >= limit:  # NaN fails too
        raise ThresholdError(f"mean {measure} {mean:.4f} ({judged.assignment.name}) is under {limit:g}")
