"""``vemseg render``: a volume, with labels or without -> pictures."""

from __future__ import annotations

from vemseg.cli import options, parsing, reading, shell, words


def render(
    volume: options.Volume,
    *,
    labels: options.Labels = None,
    reference: options.ReferenceToDraw = None,
    names: options.Names = None,
    reference_names: options.ReferenceNames = None,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    channel: reading.Channel = None,
    time: reading.TimePoint = None,
    level: reading.Level = None,
    axes: reading.Axes = None,
    offline: options.Offline = False,
    out: options.PicturesOut,
    at: options.At = None,
    style: options.Style = words.LabelStyle.fill,
    alpha: options.Alpha = 0.5,
    slices: options.Slices = 8,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw a volume, its labels and a reference.

    Three planes through a point, a montage through the stack, and labels beside the reference.
    """
    legend, classes = parsing.names(names), parsing.names(reference_names)
    from vemseg.comparison import Scene
    from vemseg.drawing import Look
    from vemseg.pipeline.render import render as compute

    choice = parsing.choice(channel, time, level, axes)
    scene = Scene(volume, labels, reference, legend, classes, voxel_size, crop, choice)
    look = Look(at, style.value, alpha, slices)
    with shell.working(offline=offline) as context:
        pictures = compute(scene, out, look, overwrite=overwrite, context=context)
    shell.result(*pictures)
