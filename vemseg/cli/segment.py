"""``vemseg segment``: a volume -> labels."""

from __future__ import annotations

from vemseg.cli import options, parsing, reading, shell, tables, words, writing
from vemseg.cli.words import BackgroundKind
from vemseg.errors import UsageError


def segment(
    volume: options.VolumeOrFeatures,
    *,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    channel: reading.Channel = None,
    time: reading.TimePoint = None,
    level: reading.Level = None,
    axes: reading.Axes = None,
    background: reading.Background = BackgroundKind.auto,
    mask: reading.SpecimenMask = None,
    offline: options.Offline = False,
    names: options.Names = None,
    k: options.Classes = None,
    k_range: options.ClassesRange = None,
    classes: options.WhichClasses = None,
    regions: options.Regions = None,
    model: options.Model = None,
    clusters: options.Clusters = None,
    out: writing.LabelsOut = None,
    into: writing.Into = None,
    name: writing.Name = None,
    ngff: writing.Ngff = None,
    confidence: writing.Confidence = None,
    scores: writing.Scores = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    max_memory: options.MaxMemory = None,
    threads: options.Threads = None,
    plan: options.Plan = False,
    shard: options.Shard = None,
    finalize: options.Finalize = False,
    processes: options.Processes = None,
    dask: options.Dask = None,
    adapt: options.Adapt = None,
    placement: options.Placement = None,
    kept: options.Kept = None,
    stride: options.Stride = None,
    seed: options.Seed = None,
    set_: options.Settings = None,
) -> None:
    """Divide a volume into K classes; no labels are needed.

    Classes are numbered by brightness: 1 is the darkest, K the brightest. With --classes named they keep the
    model's numbers. Beside the labels you get a picture to check them, a table of how large each class is,
    and a file that says how they were made. After a stop, the same command goes on.
    """
    numbers = {"-k": k, "--k-range": k_range, "--classes": classes}
    if clusters is not None and (given := [name for name, value in numbers.items() if value is not None]):
        raise UsageError(f"{given[0]} and --clusters do not go together: the file holds its classes")
    chosen, covering = class_settings(classes, k, k_range), placement_settings(placement, kept, stride)
    settings = parsing.settings(set_, {**chosen, "cluster.seed": seed, **covering, "regions.method": regions})
    seconds = parsing.duration(adapt) if adapt else None
    if adapt and shard:
        raise UsageError("--adapt and --shard do not go together: adapt on a part of the volume first")
    how = parsing.computing(device, threads, max_memory, offline, shard, finalize)
    how = parsing.spread(how, processes, dask)
    with (shell.working if plan else shell.stoppable)(**how) as context:
        from vemseg.dense import Wanted
        from vemseg.pipeline.beside import classes_of
        from vemseg.pipeline.extras import Extras
        from vemseg.pipeline.plan import plan as foresee
        from vemseg.pipeline.segment import segment as compute

        default = None if into else parsing.default_labels(volume)
        labels, form = writing.output(out or default, into, name, ngff)
        choice = parsing.choice(channel, time, level, axes)
        blank = parsing.background(background, mask)
        wanted = Wanted(volume, model, tuple(settings), voxel_size, crop, choice, blank)
        extras = Extras(parsing.names(names), confidence, scores, form)
        if plan:
            found = foresee(wanted, labels, clusters=clusters, extras=extras, context=context)
            return shell.show(tables.plan_table(found, seconds), as_result=True)
        made = compute(
            wanted,
            labels,
            clusters=clusters,
            extras=extras,
            adapt_seconds=seconds,
            overwrite=overwrite,
            context=context,
        )
    if made is None:  # other processes do the rest
        return
    shell.show(tables.class_table(classes_of(labels)), as_result=False)
    shell.result(form.address(labels))


def class_settings(classes: words.ClassKind | None, k: str | None, k_range: str | None) -> dict[str, object]:
    """Return the settings of a recipe that options on classes change.

    Raises
    ------
    UsageError
        As ``parsing.classes``; where a number of classes, "auto" or a range is given for classes whose number
        the model knows.
    """
    numbers = parsing.classes(k, k_range)
    named = classes is words.ClassKind.named
    if named and (k is not None or k_range is not None):
        option = "-k" if k is not None else "--k-range"
        raise UsageError(
            f"{option} and --classes named do not go together: the model has its number of classes"
        )
    return {**numbers, "cluster.method": "named" if named else None}


def placement_settings(
    placement: words.PlacementName | None, kept: int | None, stride: int | None
) -> dict[str, object]:
    """Return the settings of a recipe that options on placement change; a number alone implies its placement.

    Raises
    ------
    UsageError
        Where a number belongs to another placement than the one given.
    """
    wanted = words.PlacementName
    for option, number, owner in (
        ("--kept", kept, wanted.cover_and_stride),
        ("--stride", stride, wanted.expand_stride),
    ):
        if number is not None and (placement or owner) is not owner:
            raise UsageError(f"{option} belongs to --placement {owner}, not to {placement}")
        if number is not None:
            placement = owner
    return {"embed.placement": placement, "embed.kept": kept, "embed.stride": stride}
