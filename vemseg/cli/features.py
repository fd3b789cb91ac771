"""``vemseg embed`` and ``vemseg cluster``: the two stages of ``segment`` one by one."""

from __future__ import annotations

from vemseg.cli import options, parsing, pointing, reading, shell, tables, words
from vemseg.cli.segment import class_settings, placement_settings
from vemseg.cli.words import BackgroundKind


def embed(
    volume: options.Volume,
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
    model: options.Model = None,
    out: options.FeaturesOut,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    max_memory: options.MaxMemory = None,
    threads: options.Threads = None,
    shard: options.Shard = None,
    finalize: options.Finalize = False,
    processes: options.Processes = None,
    dask: options.Dask = None,
    placement: options.Placement = None,
    kept: options.Kept = None,
    stride: options.Stride = None,
    set_: options.Settings = None,
) -> None:
    """Store the features that a model computes from a volume.

    'segment' does not need them. They serve to try several clusterings, or to cluster several volumes
    together.
    """
    settings = parsing.settings(set_, placement_settings(placement, kept, stride))
    how = parsing.computing(device, threads, max_memory, offline, shard, finalize)
    how = parsing.spread(how, processes, dask)
    with shell.stoppable(**how) as context:
        from vemseg.dense import Wanted
        from vemseg.pipeline.embed import embed as compute

        choice = parsing.choice(channel, time, level, axes)
        blank = parsing.background(background, mask)
        wanted = Wanted(volume, model, tuple(settings), voxel_size, crop, choice, blank)
        features = compute(wanted, out, overwrite=overwrite, context=context)
    if features is not None:  # else other processes do the rest
        shell.result(features)


def cluster(
    features: options.StoredFeatures,
    *,
    names: options.Names = None,
    k: options.Classes = None,
    k_range: options.ClassesRange = None,
    classes: options.WhichClasses = None,
    points: pointing.Table = None,
    unit: pointing.Unit = words.PointUnit.voxel,
    offline: options.Offline = False,
    out: options.ClustersOut,
    overwrite: options.Overwrite = False,
    sample: options.Sample = None,
    restarts: options.Restarts = None,
    seed: options.Seed = None,
    set_: options.Settings = None,
) -> None:
    """Find classes in stored features, or learn them from a few points (--points).

    Classes mean the same in every volume that is segmented with them: vemseg segment VOLUME --clusters FILE
    """
    legend = parsing.names(names)
    clicked = pointing.clicked(points, unit, legend, {"-k": k, "--k-range": k_range, "--classes": classes})
    shortcuts = {
        **class_settings(classes, k, k_range),
        **({} if clicked is None else {"cluster.method": "points"}),
        "cluster.sample": sample,
        "cluster.restarts": restarts,
        "cluster.seed": seed,
    }
    settings = parsing.settings(set_, shortcuts)
    with shell.stoppable(offline=offline) as context:
        from vemseg.labelling import load
        from vemseg.labelling.telling import choice_of
        from vemseg.pipeline.cluster import cluster as compute

        clusters = compute(
            features,
            out,
            settings=settings,
            points=clicked,
            names=None if clicked else legend,
            overwrite=overwrite,
            context=context,
        )
    if choice := choice_of(load(clusters)):
        shell.show(tables.choice_table(choice), as_result=False)
    shell.result(clusters)
