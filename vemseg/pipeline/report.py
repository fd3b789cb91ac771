"""``report``: labels and their image -> one HTML file."""

from __future__ import annotations

import logging
from pathlib import Path

from vemseg.context import Context
from vemseg.dense import located_again
from vemseg.report import Beside, Page, Subject, count_classes, scatter, slices_of, write_page
from vemseg.run import Output, lasting, provenance, sidecar, write_json
from vemseg.volume import describe, identity

_log = logging.getLogger("vemseg")


def report(
    subject: Subject,
    out: Path | None = None,
    *,
    beside: Beside = Beside(),
    overwrite: bool = False,
    context: Context = Context(),
) -> Path:
    """Write a report on labels; returns its path.

    Parameters
    ----------
    subject : Subject
        Labels, and what a user says of them.
    out : Path, optional
        An HTML file; ``<labels>_report.html``, here, where left out. ``<stem>.json`` beside it says how it
        was made.
    beside : Beside
        What is shown beside them.

    Raises
    ------
    MissingError, InputError, OutputExistsError, Interrupted
        As ``Subject.open``, ``count_classes``, ``located_again``, ``Output`` and ``slices_of``.
    """
    image, labels, told = subject.open(context)
    out, table = out or Path(f"{subject.title}_report.html"), beside.table(subject.labels)
    read = [labels.path, image.path, beside.features and Path(beside.features), table]
    output = Output(
        out,
        state={
            "output": out.name,
            **subject.state(),
            **beside.state(),
            "image": describe(image),
            **identity(labels),
        },
        inputs=[path for path in read if path],
        beside=[sidecar(out)],
        overwrite=overwrite,
        resumable=False,
    )
    with output:
        if output.done:
            _log.info("%s is there already, made with the same settings", out)
            return out
        counts = count_classes(labels, subject.known(told), context)
        origin = provenance("report", inputs=output.inputs, extra={"state": output.state})
        page = Page.of(subject, image, counts, told, lasting(origin))
        found = located_again(told, image, beside.points, beside.features, beside.model, context)
        vectors = None if found is None else (found.vectors, found.places)
        points = vectors and scatter(image, labels, counts, *vectors, context, beside.umap)
        page = page.showing(points, table)
        write_page(output.growing(out), page, slices_of(image, labels, counts, context))
        write_json(output.growing(sidecar(out)), origin)
        output.publish()
    return out
