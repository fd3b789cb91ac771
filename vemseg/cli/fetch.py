"""``vemseg fetch``: a practice volume, and a list of what is at hand."""

from __future__ import annotations

from pathlib import Path

from vemseg.cli import options, parsing, shell, tables
from vemseg.geometry import parse_voxel_size


def phantom(
    *,
    out: options.PhantomOut = Path("phantom.tif"),
    shape: options.PhantomShape = "64,256,256",
    voxel_size: options.PhantomVoxelSize = "16,16,16",
    seed: options.PhantomSeed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a practice volume: a synthetic cell with exact labels.

    Nothing is downloaded. The labels lie beside the volume, as NAME_labels.
    """
    from vemseg.pipeline.fetch import fetch_phantom

    size = parsing.shape(shape)
    shell.result(*fetch_phantom(out, size, seed, parse_voxel_size(voxel_size), overwrite))


def fetch_list(*, json: options.Json = False) -> None:
    """List weights, recipes and the practice volume."""
    entries = tables.catalogue()
    if json:
        shell.result(tables.as_json(entries))
    else:
        shell.show(tables.catalogue_table(entries), as_result=True)
