"""``vemseg report``: labels and their image -> one HTML file to look at them, name them and merge them."""

from __future__ import annotations

from vemseg.cli import options, parsing, refining, reporting, shell


def report(
    labels: refining.Labels,
    *,
    volume: reporting.ImageOfLabels = None,
    objects: reporting.ObjectsTable = None,
    features: reporting.FeaturesOfLabels = None,
    points: reporting.Points = 2000,
    umap: reporting.Umap = False,
    model: reporting.ModelOfLabels = None,
    names: options.Names = None,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    offline: options.Offline = False,
    out: reporting.ReportOut = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    max_memory: options.MaxMemory = None,
    threads: options.Threads = None,
) -> None:
    """Show labels in one HTML file, in which classes get names and colours and are merged.

    The file needs no network and no other file. What is edited in it is saved as names.toml, which 'refine',
    'segment', 'cluster' and 'evaluate' take as --names.
    """
    legend = parsing.legend(names) or parsing.Legend()
    limit = parsing.memory(max_memory)
    with shell.stoppable(device=device, threads=threads, memory=limit, offline=offline) as context:
        from vemseg.pipeline.report import report as compute
        from vemseg.report import Beside, Subject

        known = legend.names, legend.colours, legend.merges
        subject = Subject(labels, volume, *known, voxel_size, crop)
        beside = Beside(points, features, model, objects, umap)
        target = compute(subject, out, beside=beside, overwrite=overwrite, context=context)
    shell.result(target)
