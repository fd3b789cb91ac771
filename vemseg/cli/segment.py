"""``vemseg segment``: a volume -> labels."""

from __future__ import annotations

from vemseg.cli import options, parsing, shell, tables
from vemseg.errors import UsageError


def segment(
    volume: options.VolumeOrFeatures,
    *,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    names: options.Names = None,
    k: options.Classes = None,
    k_range: options.ClassesRange = None,
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
    them, a table of volumes, and how they were made. After a stop, the same command goes on.
    """
    if clusters is not None and (k or k_range):
        raise UsageError("-k and --clusters do not go together: the file holds its number of classes")
    covering = placement_settings(placement, kept, stride)
    settings = parsing.settings(set_, {**parsing.classes(k, k_range), "cluster.seed": seed, **covering})
    legend = parsing.names(names)
    out = out or parsing.default_labels(volume)
    seconds = parsing.duration(adapt) if adapt else None
    surroundings: shell.Surroundings = {
        "device": device,
        "threads": threads,
        "memory": parsing.memory(max_memory),
    }
    with (shell.working if plan else shell.stoppable)(**surroundings) as context:
        from vemseg.dense import Wanted
        from vemseg.pipeline.plan import plan as foresee
        from vemseg.pipeline.segment import segment as compute

        wanted = Wanted(volume, model, tuple(settings), voxel_size, crop)
        if plan:
            table = tables.plan_table(foresee(wanted, out, clusters=clusters, context=context), seconds)
            return shell.show(table, as_result=True)
        labels = compute(
            wanted,
            out,
            clusters=clusters,
            names=legend,
            adapt_seconds=seconds,
            overwrite=overwrite,
            context=context,
        )
    shell.result(labels)


def placement_settings(
    placement: options.PlacementName | None, kept: int | None, stride: int | None
) -> dict[str, object]:
    """Return the settings of a recipe that options on placement change; a number alone implies its placement.

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
