"""``vemseg objects``: labels of classes -> every object by itself, and a table of them."""

from __future__ import annotations

from vemseg.cli import options, parsing, refining, shell, writing


def objects(
    labels: refining.Labels,
    *,
    classes: refining.Which = None,
    split: refining.Split = None,
    names: options.Names = None,
    voxel_size: options.VoxelSize = None,
    offline: options.Offline = False,
    out: writing.ChangedOut = None,
    into: writing.Into = None,
    name: writing.Name = None,
    ngff: writing.Ngff = None,
    parquet: refining.Parquet = False,
    overwrite: options.Overwrite = False,
    max_memory: options.MaxMemory = None,
    shard: options.Shard = None,
    finalize: options.Finalize = False,
    processes: refining.Processes = None,
) -> None:
    """Find the objects in labels and measure them.

    An object is a group of touching voxels of one class; --split cuts objects at their necks. The result is a
    volume in which each object has its own number. Beside it lie a table (volume, surface, shape, place,
    contacts) and a file that says how both were made. After a stop, the same command goes on.
    """
    which, legend = parsing.words(classes) if classes else [], parsing.names(names)
    given = parsing.spread(parsing.sharing(max_memory, offline, shard, finalize), processes, None)
    with shell.stoppable(**given) as context:
        from vemseg.objects import Asked
        from vemseg.pipeline.objects import objects as compute
        from vemseg.volume import open_labels

        target, form = writing.output(out, into, name, ngff)
        volume = open_labels(labels, voxel_size=voxel_size, offline=offline)
        made = compute(
            volume,
            target,
            asked=Asked(tuple(which), parquet, split),
            names=legend,
            form=form,
            overwrite=overwrite,
            context=context,
        )
    if made is not None:  # else other processes do the rest
        shell.result(form.address(target))
