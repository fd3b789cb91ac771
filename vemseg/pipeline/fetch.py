"""``fetch``: volumes to work with, and weights that others have trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vemseg.context import Context
from vemseg.datasets.betaseg import PAPERS, PARTS, Cell, check, fill, find_archive
from vemseg.datasets.phantom import write_phantom
from vemseg.errors import OutputExistsError
from vemseg.geometry import ZYX, VoxelSize
from vemseg.phantom import Phantom
from vemseg.run import Run, sha256
from vemseg.volume import LabelForm

CLUSTERS = "clusters.safetensors"
"""File, in a run of imported weights, with the classes of the cluster centres that came with them."""


def fetch_phantom(
    out: Path,
    shape: ZYX,
    seed: int,
    voxel_size: VoxelSize,
    overwrite: bool = False,
    context: Context = Context(),
) -> tuple[Path, Path]:
    """Write a phantom and its exact labels.

    Parameters
    ----------
    out : Path
        The grey volume, .tif or .ome.zarr; the labels lie beside it, ``<stem>_labels``, and the names of
        their classes, ``<stem>_classes.toml``.
    shape : (int, int, int)
        Voxels, z y x.
    seed : int
        Same seed, same phantom.
    voxel_size : (float, float, float)
        nm, z y x.
    overwrite : bool
        Replace what is there.
    context : Context

    Raises
    ------
    OutputExistsError
        Where one of the files exists, is not of this very phantom, and ``overwrite`` is not set.
    UsageError
        Where ``out`` has no suffix of a volume, or there is no such phantom.

    Returns
    -------
    Path, Path
        The grey volume and the labels.
    """
    phantom = Phantom(shape, seed, voxel_size)
    LabelForm().check(out)
    return write_phantom(phantom, out, overwrite=overwrite, context=context)


def fetch_betaseg(
    out: Path,
    *,
    cells: Sequence[str] = PAPERS,
    parts: Sequence[str] = PARTS[:2],
    source: str | None = None,
    sha256: str | None = None,
    overwrite: bool = False,
    context: Context = Context(),
) -> list[Path]:
    """Fetch cells of BetaSeg: download, unpack, make the reference.

    Parameters
    ----------
    out : Path
        A folder; each cell gets one of its own in it: ``<cell>_source.tif``, ``<cell>_labels.tif`` (eight
        classes), ``<cell>_labels4.tif`` (the four of the papers), ``<cell>_cell.tif`` (1 in the annotated
        cell), and the names of their classes in ``.toml`` files.
    cells : sequence of str
        Names from ``vemseg.datasets.betaseg.CELLS``.
    parts : sequence of str
        Names from ``vemseg.datasets.betaseg.PARTS``; "masks" keeps the masks as published, too.
    source : str, optional
        Another URL of the archive, or a local copy of it.
    sha256 : str, optional
        Hash of that archive, where it is not the published one.
    overwrite : bool
        Make again what is there.
    context : Context
        Where it is offline, the archive must be in the cache already, or a local copy be given.

    Returns
    -------
    list of Path
        For every cell the grey volume, then the labels that were asked for.

    Raises
    ------
    UsageError
        For a cell or part that does not exist.
    MissingError, ResourceError, Interrupted
        As ``vemseg.catalog.download`` and ``unpack`` raise them.
    InputError
        Where the archive has another layout, or a mask another shape than its volume.
    OutputExistsError
        Where a cell's folder holds files of another archive, or of unknown origin, and ``overwrite`` is
        not set.
    """
    expected = check(cells, parts, sha256)
    wanted = [Cell(out / name, name) for name in dict.fromkeys(cells)]
    todo = [cell for cell in wanted if overwrite or not cell.holds(parts, expected)]
    for cell in wanted:
        if cell not in todo:
            cell.sweep(context.stopped)
    if todo:
        archive = find_archive(source, expected, context)
        fill(todo, parts, archive, expected, overwrite=overwrite, context=context)
    return [path for cell in wanted for path in cell.results(parts)]


def import_weights(checkpoint: Path, centroids: Path | None, out: Path, *, overwrite: bool) -> list[Path]:
    """Turn a checkpoint of the reference code of MAESTER into a run directory.

    Parameters
    ----------
    checkpoint : Path
        A state dict (.pt); nothing in it is executed.
    centroids : Path, optional
        Text, one cluster centre per line, as numbers between spaces or commas. The classes keep the order of
        the file.
    out : Path
        The run directory.
    overwrite : bool
        Replace a run, or clusters, that are there.

    Returns
    -------
    list of Path
        The run, and the clusters, for ``segment --clusters``, where centres were given.

    Raises
    ------
    MissingError, InputError
        Where a file is missing, or does not hold what it should.
    OutputExistsError
        Where ``out`` holds another run, or other clusters, and ``overwrite`` is not set.
    """
    from vemseg.labelling import keep_centres, read_centres
    from vemseg.models import import_maester, open_model, reference_recipe, save_encoder

    table, objective = import_maester(checkpoint)
    centres = None if centroids is None else read_centres(centroids, table.dim)
    source = sha256(checkpoint)
    with Run.create(out, reference_recipe(table), parents=[checkpoint], overwrite=overwrite) as run:
        if run.finished and run.info.get("imported", {}).get("sha256") != source:
            raise OutputExistsError(f"{out} holds another run: name another -o, or -f to replace it")
        if not run.finished:
            save_encoder(run.model, objective, {})
            run.finish(imported={"file": checkpoint.name, "sha256": source})
    if centroids is None or centres is None:
        return [out]
    about: dict[str, object] = {
        "imported": True,
        "scale": "none",
        "k": len(centres),
        "model": open_model(str(out.absolute())).hash,
        "centroids": sha256(centroids),
    }
    keep_centres(centres, about, out / CLUSTERS, overwrite)
    return [out, out / CLUSTERS]
