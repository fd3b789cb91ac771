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
    from vemseg.pipeline.render import Look, Scene
    from vemseg.pipeline.render import render as compute

    scene = Scene(volume, labels, reference, legend, classes, voxel_size, crop)
    look = Look(at, style.value, alpha, slices)
    with shell.working() as context:
        pictures = compute(scene, out, look, overwrite=overwrite, context=context)
    shell.result(*pictures)
