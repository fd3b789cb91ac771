"""A model laid over a volume: what ``embed`` and ``segment`` share before they part."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.dense import (
    DenseEncoder,
    PatchMean,
    SampleCell,
    lay_out,
    sample_cells,
    working_grid,
)
from vemseg.errors import Interrupted
from vemseg.features import Features, HeldFeatures
from vemseg.geometry import ZYX, is_anisotropic
from vemseg.models import Filtered, ThreePlanes, for_inference
from vemseg.models.layers import pick_device
from vemseg.pipeline.common import Model, Report, Stopped, intensity_of
from vemseg.recipe import EmbedTable, FovTable
from vemseg.sampling import Sampler, Source
from vemseg.tiling import Placement
from vemseg.volume import Volume

log = logging.getLogger("vemseg")

BATCH = {"cpu": 8, "cuda": 1024}
"""Fields of view per pass where the recipe leaves it open: what stays in a CPU's cache, what fills a GPU."""


NORMALISING_EDGE = 128
NORMALISING_PIXELS = 2**20
NORMALISING_SLABS = 512
NORMALISING_BYTES = 2**27
"""What batch normalisation is measured on: edge of a slab, pixels of all, slabs at most, memory of the
boxes they are cut from."""


def lay_model(model: Model, volume: Volume, device: str) -> DenseEncoder:
    """Load a model and lay it over a volume whose sharp plane is (y, x)."""
    target = pick_device(device)
    grid = working_grid(volume, model.recipe.volume.voxel_size)
    table = model.recipe.embed
    intensity = intensity_of(volume, model.recipe)
    three = table.planes == "three" or (table.planes == "auto" and _is_isotropic(volume))
    encoder: Any = model.load(grid.spacing)
    if table.normalise == "volume" and hasattr(encoder, "normalise"):
        _normalise(encoder, Source(grid.volume, intensity), three)
    encoder = for_inference(encoder, target, model.recipe.train.precision)
    if three:
        encoder = ThreePlanes(encoder)
    if table.filters:
        encoder = Filtered(encoder, table.filters, grid.spacing)
    layout = lay_out(placements(encoder, table), grid)
    if grid.volume is not volume:
        factors = ", ".join(f"{factor:.3g}" for factor in grid.factors)
        log.info("%s: resampled by %s (z, y, x) to the model's voxel size", volume.name, factors)
    batch = table.batch or BATCH.get(target.type, BATCH["cuda"])
    return DenseEncoder(encoder, grid, layout, intensity, target, batch, table.smooth)


def _normalise(encoder: Any, source: Source, three: bool) -> None:
    """Set an encoder's batch normalisation right for a volume, from slabs at random places of it.

    Of a volume that is too small for slabs, the statistics of training are kept.
    """
    shape, unit = source.volume.shape, encoder.align[1]
    widest = max(min(shape[:axis] + shape[axis + 1 :]) for axis in (range(3) if three else [0]))
    edge = min(NORMALISING_EDGE, widest) // unit * unit
    if not edge:
        return
    plain = FovTable(
        axes="auto" if three else "xy", crop="off", flips="off", rotate90=False, pool_bytes=NORMALISING_BYTES
    )
    sampler = Sampler([source], (encoder.slices, edge, edge), plain, seed=0, device=pick_device("cpu"))
    slabs = sampler.batch(0, min(NORMALISING_PIXELS // edge**2, NORMALISING_SLABS))
    encoder.normalise(slabs.images[:, 0])


def _is_isotropic(volume: Volume) -> bool:
    """Tell whether a volume is known to be isotropic and more than a plane."""
    return volume.voxel_size is not None and not is_anisotropic(volume.voxel_size) and volume.shape[0] > 1


def placements(encoder: Any, table: EmbedTable) -> tuple[Placement, Placement, Placement]:
    """Return the placement of an encoder's fields of view along z, y and x."""
    z, y, x = (
        _placement(fov, patch, encoder.halo, table)
        for fov, patch in zip(encoder.fov, encoder.patch, strict=True)
    )
    return z, y, x


def _placement(fov: int, patch: int, halo: ZYX | None, table: EmbedTable) -> Placement:
    if fov == patch or halo is not None:
        return Placement(fov, patch, patch, patch)
    match table.placement:
        case "cover-and-stride":
            return Placement(fov, patch, table.kept * patch, 1)
        case "whole-slice":
            return Placement(fov, patch, fov, patch)
        case _:
            return Placement(fov, patch, table.stride, patch)


def draw_sample(
    dense: DenseEncoder, n: int, seed: int, report: Report, stopped: Stopped = lambda: False
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Compute the vectors of a sample, (n, d), and the mean intensity of each one's patch, (n,).

    Raises
    ------
    Interrupted
        Where it was stopped; nothing of it is kept.
    """
    means = dense.with_encoder(PatchMean(dense.encoder))
    cells = sample_cells(dense.layout.inside, dense.layout.cell, n, seed)
    vectors, grey = [], []
    for i, cell in enumerate(cells):
        if stopped():
            raise Interrupted("stopped while it drew a sample: the same command starts again")
        vectors.append(_points(dense.values(cell.cells).numpy(), cell))
        grey.append(_points(means.values(cell.cells).numpy(), cell)[:, 0])
        report("sampling", (i + 1) / len(cells), f"{i + 1}/{len(cells)} places")
    return np.concatenate(vectors), np.concatenate(grey).astype(np.float32)


def stored_sample(
    features: Features | HeldFeatures, n: int, seed: int, report: Report
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Read the sample that :func:`draw_sample` would compute from stored features."""
    cells = sample_cells(features.inside, features.cell, n, seed)
    vectors, grey = [], []
    for i, cell in enumerate(cells):
        vectors.append(_points(features.vectors(cell.cells), cell))
        grey.append(features.intensities(cell.cells).reshape(-1)[cell.points])
        report("sampling", (i + 1) / len(cells), f"{i + 1}/{len(cells)} places")
    return np.concatenate(vectors), np.concatenate(grey).astype(np.float32)


def _points(values: NDArray[Any], cell: SampleCell) -> NDArray[Any]:
    return values.reshape(-1, values.shape[-1])[cell.points]
