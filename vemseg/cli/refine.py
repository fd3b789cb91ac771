"""``vemseg refine``: finished labels -> labels with classes merged, named and cleaned."""

from __future__ import annotations

from vemseg.cli import options, parsing, pointing, refining, shell, words, writing


def refine(
    labels: refining.Labels,
    *,
    merge: refining.Merge = None,
    mapping: refining.Map = None,
    names: options.Names = None,
    points: pointing.Table = None,
    unit: pointing.Unit = words.PointUnit.voxel,
    smooth: refining.Smooth = 0,
    fill_holes: refining.FillHoles = False,
    min_size: refining.MinSize = None,
    mask: refining.Mask = None,
    voxel_size: options.VoxelSize = None,
    offline: options.Offline = False,
    out: writing.ChangedOut = None,
    into: writing.Into = None,
    name: writing.Name = None,
    ngff: writing.Ngff = None,
    overwrite: options.Overwrite = False,
    max_memory: options.MaxMemory = None,
) -> None:
    """Merge, name and clean the classes of finished labels; nothing is segmented again.

    All numbers of classes that you give are those in LABELS. Names alone change no voxel. With --points, each
    class takes the name that most of its points have, and classes of the same name become one; --names then
    lists the names that points may have. After a stop, the same command goes on.
    """
    legend = parsing.legend(names) or parsing.Legend()
    merges, numbers = [*parsing.merges(merge), *legend.merges], parsing.mapping(mapping) or {}
    least = parsing.least(min_size)
    clicked = pointing.clicked(points, unit, legend.names, {"--merge": merge, "--map": mapping})
    with shell.stoppable(memory=parsing.memory(max_memory), offline=offline) as context:
        from vemseg.objects import Least, Refinement, named_by_points
        from vemseg.pipeline.refine import refine as compute
        from vemseg.volume import open_labels

        smallest = None if least is None else Least(*least)
        named = {} if clicked else legend.names
        wanted = Refinement(merges, numbers, named, smooth, fill_holes, smallest, colours=legend.colours)
        target, form = writing.output(out, into, name, ngff)
        volume = open_labels(labels, voxel_size=voxel_size, offline=offline)
        if clicked is not None:
            wanted = named_by_points(wanted, volume, clicked)
        compute(volume, target, wanted, mask=mask, form=form, overwrite=overwrite, context=context)
    shell.result(form.address(target))
