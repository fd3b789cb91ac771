"""``vemseg segment``: a volume -> labels."""

from __future__ import annotations

from typing import Any

from vemseg.cli import options, parsing, shell, tables
from vemseg.errors import UsageError


def segment(
    volume: options.VolumeOrFeatures,
    *,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    names: options.Names = None,
    k: options.Classes = None,
    model: options.Model = None,
    clusters: options.Clusters = None,
    out: options.LabelsOut = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    max_memory: options.MaxMemory = None,
    threads: options.Threads = None,
    plan: options.Plan = False,
    adapt: options.Adapt = None,
    placement: options.Placement = None,
    kept: options.Kept = None,
    stride: options.Stride = None,
    seed: options.Seed = None,
    set_: options.Settings = None,
) -> None:
    """Divide a volume into K classes; no labels are needed.

    Classes are numbered from the darkest, 1, to the brightest, K. Beside the labels go a picture to check
    them, a table of volumes, and how they were made. What was begun goes on with the same command.
    """
    if clusters is not None and k is not None:
        raise UsageError("-k and --clusters do not go together: the file holds its number of classes")
    covering = placement_settings(placement, kept, stride)
    settings = parsing.settings(set_, {"cluster.k": k, "cluster.seed": seed, **covering})
    legend = parsing.names(names)
    labels_out = out or parsing.default_labels(volume)
    seconds = parsing.duration(adapt) if adapt else None
    common: dict[str, Any] = {
        "model": model,
        "clusters": clusters,
        "settings": settings,
        "voxel_size": voxel_size,
        "crop": crop,
        "device": device,
        "max_memory": parsing.memory(max_memory),
        "threads": threads,
    }
    if plan:
        from vemseg.pipeline.plan import plan as compute_plan

        return shell.show(
            tables.plan_table(compute_plan(volume, labels_out, **common), seconds), as_result=True
        )
    with shell.stoppable() as (report, stopped):
        from vemseg.pipeline.segment import segment as compute

        labels = compute(
            volume,
            labels_out,
            names=legend,
            adapt_seconds=seconds,
            overwrite=overwrite,
            report=report,
            stopped=stopped,
            **common,
        )
    shell.result(labels)


def placement_settings(
    placement: options.PlacementName | None, kept: int | None, stride: int | None
) -> dict[str, object]:
    """Return what the options on placement set in a recipe; a number names its placement by itself.

    Raises
    ------
    UsageError
        Where a number belongs to another placement than the one given.
    """
    wanted = options.PlacementName
    for option, number, owner in (
        ("--kept", kept, wanted.cover_and_stride),
        ("--stride", stride, wanted.expand_stride),
    ):
        if number is not None and (placement or owner) is not owner:
            raise UsageError(f"{option} belongs to --placement {owner}, not to {placement}")
        if number is not None:
            placement = owner
    return {"embed.placement": placement, "embed.kept": kept, "embed.stride": stride}
