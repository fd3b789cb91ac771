"""``vemseg report``: labels and their image -> one HTML file to look at them, name them and merge them."""

from __future__ import annotations

from vemseg.cli import options, parsing, refining, shell


def report(
    labels: refining.Labels,
    *,
    volume: options.ImageOfLabels = None,
    names: options.Names = None,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    offline: options.Offline = False,
    out: options.ReportOut = None,
    overwrite: options.Overwrite = False,
    max_memory: options.MaxMemory = None,
) -> None:
    """Show labels in one HTML file, in which classes get names and colours and are merged.

    The file needs no network and no other file. What is edited in it is saved as names.toml, which 'refine',
    'segment', 'cluster' and 'evaluate' take as --names.
    """
    legend = parsing.legend(names) or parsing.Legend()
    with shell.stoppable(memory=parsing.memory(max_memory), offline=offline) as context:
        from vemseg.pipeline.report import Subject
        from vemseg.pipeline.report import report as compute

        known = legend.names, legend.colours, legend.merges
        subject = Subject(labels, volume, *known, voxel_size, crop)
        target = compute(subject, out, overwrite=overwrite, context=context)
    shell.result(target)
