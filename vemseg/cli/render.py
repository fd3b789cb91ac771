"""``vemseg render``: a volume, with labels or without -> pictures."""

from __future__ import annotations

from pathlib import Path

from vemseg.cli import options, parsing, reading, rendering, shell, words
from vemseg.errors import UsageError


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
    confidence: rendering.Confidence = None,
    features: rendering.Features = None,
    offline: options.Offline = False,
    out: rendering.PicturesOut = None,
    at: options.At = None,
    style: options.Style = words.LabelStyle.fill,
    alpha: options.Alpha = 0.5,
    slices: options.Slices = 8,
    formats: rendering.Formats = "png",
    meshes: rendering.Meshes = None,
    each: rendering.MeshEach = words.EachKind.class_,
    faces: rendering.Faces = 200_000,
    classes: rendering.Classes = None,
    solid: rendering.Solid = False,
    turntable: rendering.Turntable = False,
    neuroglancer: rendering.Neuroglancer = None,
    view: rendering.View = False,
    overwrite: options.Overwrite = False,
    max_memory: options.MaxMemory = None,
) -> None:
    """Draw a volume, its labels and a reference.

    The pictures are three planes through a point, a montage through the stack, and labels beside the
    reference. Options add confidence and features as colours, surfaces as meshes and in space, and views in
    other programs.
    """
    if out is None and not view:
        raise UsageError("give -o, a folder for the pictures, or --view")
    legend, numbers = parsing.names(names), parsing.names(reference_names)
    kept = parsing.words(classes) if classes else ()
    limit = parsing.memory(max_memory)
    with shell.stoppable(offline=offline, memory=limit) as context:
        from vemseg.comparison import Scene
        from vemseg.drawing import Look
        from vemseg.gallery import View, Wishes, check_window, show
        from vemseg.pipeline.render import render as compute

        if view:
            check_window()
        choice = parsing.choice(channel, time, level, axes)
        scene = Scene(volume, labels, reference, legend, numbers, voxel_size, crop, choice)
        look = Look(at, style.value, alpha, slices)
        wishes = Wishes(
            formats=tuple(parsing.words(formats)),
            confidence=confidence,
            features=features,
            meshes=None if meshes is None else meshes.value,
            each=each.value,
            faces=faces,
            classes=tuple(kept),
            solid=solid,
            turntable=turntable,
            neuroglancer=neuroglancer,
        )
        made = (
            []
            if out is None
            else compute(scene, out, look, wishes=wishes, overwrite=overwrite, context=context)
        )
    shell.result(*made)
    if view:
        show(View.of(scene, look, Wishes(), Path(), context))
