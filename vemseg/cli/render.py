"""``vemseg render``: a volume, with labels or without -> pictures."""

from __future__ import annotations

from vemseg.cli import options, parsing, shell


def render(
    volume: options.Volume,
    *,
    labels: options.Labels = None,
    reference: options.ReferenceToDraw = None,
    names: options.Names = None,
    reference_names: options.ReferenceNames = None,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    out: options.PicturesOut,
    at: options.At = None,
    style: options.Style = options.LabelStyle.fill,
    alpha: options.Alpha = 0.5,
    slices: options.Slices = 8,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw a volume, its labels and a reference.

    Three planes through a point, a montage through the stack, and labels beside the reference.
    """
    legend, classes = parsing.names(names), parsing.names(reference_names)
    from vemseg.pipeline.render import render as compute

    with shell.reporting() as report:
        pictures = compute(
            volume,
            out,
            labels=labels,
            reference=reference,
            names=legend,
            reference_names=classes,
            voxel_size=voxel_size,
            crop=crop,
            at=at,
            style=style.value,
            alpha=alpha,
            slices=slices,
            overwrite=overwrite,
            report=report,
        )
    shell.result(*pictures)
