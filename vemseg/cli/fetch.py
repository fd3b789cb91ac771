"""``vemseg fetch``: volumes and weights, and a list of what is at hand."""

from __future__ import annotations

from pathlib import Path

from vemseg.cli import fetching, options, parsing, reading, shell, tables
from vemseg.errors import UsageError
from vemseg.geometry import parse_voxel_size


def phantom(
    *,
    out: fetching.PhantomOut = Path("phantom.tif"),
    shape: fetching.PhantomShape = "64,256,256",
    voxel_size: fetching.PhantomVoxelSize = "16,16,16",
    seed: fetching.PhantomSeed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a practice volume: a synthetic cell with exact labels.

    Nothing is downloaded. The labels lie beside the volume, as NAME_labels.
    """
    from vemseg.pipeline.fetch import fetch_phantom

    size = parsing.shape(shape)
    with shell.working() as context:
        made = fetch_phantom(out, size, seed, parse_voxel_size(voxel_size), overwrite, context)
    shell.result(*made)


def betaseg(
    *,
    out: fetching.BetasegOut = Path("betaseg"),
    cells: fetching.Cells = "high_c1,high_c2,high_c3,high_c4",
    only: fetching.Only = "source,labels",
    source: fetching.From = None,
    sha256: options.Sha256 = None,
    offline: options.Offline = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Fetch mouse beta cells (FIB-SEM, 16 nm) with reference labels.

    The archive holds all cells and is large; it stays in the cache ($VEMSEG_CACHE_DIR). An interrupted
    download goes on where it was. Labels: eight classes (_labels), the four of the papers (_labels4), and
    the annotated cell (_cell), for evaluate --mask.
    """
    from vemseg.datasets.betaseg import CELLS
    from vemseg.pipeline.fetch import fetch_betaseg

    wanted = list(CELLS) if cells == "all" else parsing.words(cells)
    with shell.stoppable(offline=offline) as context:
        made = fetch_betaseg(
            out,
            cells=wanted,
            parts=parsing.words(only),
            source=source,
            sha256=sha256,
            overwrite=overwrite,
            context=context,
        )
    shell.result(*made)


def openorganelle(
    dataset: fetching.DatasetName,
    *,
    crop: options.Crop = None,
    array: fetching.Array = None,
    level: reading.Level = None,
    root: fetching.Root = None,
    out: fetching.CropOut = None,
    offline: options.Offline = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Fetch a crop of a volume of OpenOrganelle (FIB-SEM of cells and tissues).

    Only the chunks that the crop meets are read. Labels lie under labels/..., such as --array
    labels/mito_seg. Names of data sets: https://openorganelle.janelia.org
    """
    if crop is None:
        raise UsageError("these volumes are terabytes: give --crop z0:z1,y0:y1,x0:x1, in voxels")
    what = (array or "em").strip("/").rpartition("/")[2]
    target = out or Path(f"{dataset}_{what}.ome.zarr")
    with shell.stoppable(offline=offline) as context:
        from vemseg.catalog.openorganelle import ROOT
        from vemseg.datasets.openorganelle import Part, write_part

        part = Part(dataset, crop, array, level, root or ROOT)
        made = write_part(part, target, overwrite=overwrite, context=context)
    shell.result(made)


def weights(
    name: fetching.WeightsName = None,
    *,
    checkpoint: fetching.Checkpoint = None,
    centroids: fetching.Centroids = None,
    out: fetching.ImportOut = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """List weights, say where bundled ones are, or import the released MAESTER.

    Import: vemseg fetch weights --from model.pt --centroids k6.txt -o maester-betaseg
    """
    if checkpoint is None:
        if centroids or out:
            raise UsageError("--centroids and -o belong to an import: add --from model.pt")
        _show_weights(name, json)
        return
    if json:
        raise UsageError("--json lists weights: an import prints its paths")
    if name or out is None:
        raise UsageError("an import takes no NAME, but needs -o RUN, the folder for its weights")
    from vemseg.pipeline.fetch import import_weights

    shell.result(*import_weights(checkpoint, centroids, out, overwrite=overwrite))


def _show_weights(name: str | None, json: bool) -> None:
    from vemseg.catalog import find_weights

    entries = [entry for entry in tables.catalogue() if entry["kind"] == "weights"]
    if name is not None:
        path = find_weights(name)
        if json:
            shell.result(tables.as_json(next(entry for entry in entries if entry["name"] == name)))
        else:
            shell.result(path)
        return
    if json:
        shell.result(tables.as_json(entries))
    else:
        shell.show(tables.catalogue_table(entries), as_result=True)


def fetch_list(*, json: options.Json = False) -> None:
    """List weights, recipes and volumes."""
    entries = tables.catalogue()
    if json:
        shell.result(tables.as_json(entries))
    else:
        shell.show(tables.catalogue_table(entries), as_result=True)
