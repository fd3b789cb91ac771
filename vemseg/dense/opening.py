"""Open what a user names, a volume and a model or stored features, as a source of vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vemseg.comparison import open_subject
from vemseg.context import Context
from vemseg.dense.computed import ComputedVectors, Covering
from vemseg.dense.grid import Grid, lay_out, working_factors, working_grid
from vemseg.dense.regions import RegionVectors
from vemseg.dense.scale import best_grid
from vemseg.dense.sources import LatticeVectors, Maker, VectorSource
from vemseg.dense.stored import StoredVectors
from vemseg.errors import InputError, UsageError
from vemseg.features import Features, are_features
from vemseg.geometry import is_anisotropic
from vemseg.labelling import one_thread
from vemseg.models import Encoder, Filtered, Machine, Model, ThreePlanes, open_model, settle
from vemseg.models.model import pinned_name
from vemseg.recipe import Recipe, override, parse_recipe
from vemseg.run import same
from vemseg.sampling import Source, plain_windows, shown_source
from vemseg.volume import (
    Background,
    Choice,
    Intensity,
    Permuted,
    Volume,
    absolute,
    filled,
    intensity_of,
    sharp_plane_first,
)

_log = logging.getLogger("vemseg")

BATCH = {"cpu": 8, "cuda": 1024}
"""Fields of view per pass where the recipe names no number: few for a CPU's cache, enough to fill a GPU."""

NORMALISING_EDGE = 128
"""Longest edge, in pixels, of the windows on which an encoder is adjusted to a volume."""

NORMALISING_PIXELS = 2**20
"""Most pixels, in all windows together, on which an encoder is adjusted to a volume."""

NORMALISING_SLABS = 512
"""Most windows on which an encoder is adjusted to a volume."""


@dataclass(frozen=True)
class Wanted:
    """A volume and a model, or stored features, whose vectors are wanted; any process can open it.

    Attributes
    ----------
    path : str
        A volume, or features that ``embed`` stored.
    model : str or None
        As in ``open_model``.
    settings : tuple of str
        ``table.key=value`` laid over the model's recipe.
    voxel_size, crop : str or None
        As a user writes them.
    choice : Choice
        What is read where the volume's file holds more than one.
    background : Background
        Which voxels show nothing, as far as the user says.
    """

    path: str
    model: str | None = None
    settings: tuple[str, ...] = ()
    voxel_size: str | None = None
    crop: str | None = None
    choice: Choice = Choice()
    background: Background = Background()

    def pinned(self, machine: Machine) -> Wanted:
        """Return the same vectors as any process finds them: by absolute paths, in this machine's numbers."""
        precision = "bf16" if machine.dtype == torch.bfloat16 else "fp32"
        return replace(
            self,
            path=absolute(self.path),
            model=None if self.model is None else pinned_name(self.model),
            background=self.background.pinned(absolute),
            settings=(*self.settings, f"train.precision={precision}"),
        )

    def open(self, context: Context) -> VectorSource:
        """Open what :meth:`vectors` opens, divided into regions where the recipe asks for them.

        Raises
        ------
        UsageError, InputError, MissingError, ResourceError
            As there.
        """
        return as_wanted(self.vectors(context))

    def vectors(self, context: Context) -> LatticeVectors:
        """Open the volume and lay the model over it, or open stored features and the volume they are of.

        Raises
        ------
        UsageError
            Where options contradict what features were made with.
        InputError, MissingError
            Where something cannot be read.
        ResourceError
            Where the device cannot be used.
        """
        if not are_features(Path(self.path)):
            return lay_over(open_model(self.model, self.settings), self, context)
        how = (self.model, self.voxel_size, self.crop, self.choice.given)
        if any(how) or self.background != Background():
            raise UsageError(
                f"{self.path} holds features: what is read, and how, is what they were made with"
            )
        recipe = parse_recipe(Features(Path(self.path)).attributes["recipe"], self.path)
        machine = settle(context, recipe.train.precision)
        return open_features(Path(self.path), self.settings, machine, offline=context.offline)


def as_wanted(source: LatticeVectors) -> VectorSource:
    """Return vectors on a lattice, or those of regions where the recipe asks for regions."""
    table = source.maker.recipe.regions
    return RegionVectors(source, table) if table.wanted else source


def lay_over(model: Model, wanted: Wanted, context: Context) -> ComputedVectors:
    """Lay a model over a volume.

    Parameters
    ----------
    model : Model
    wanted : Wanted
        Names the volume; the model and settings that it names are not used.
    context : Context
    """
    how = wanted.voxel_size, wanted.crop, wanted.choice, wanted.background
    volume = open_subject(wanted.path, *how, offline=context.offline)
    return lay_over_volume(model, volume, context)


def lay_over_volume(
    model: Model, volume: Volume, context: Context, intensity: Intensity | None = None
) -> ComputedVectors:
    """Lay a model over a volume that is open already.

    Parameters
    ----------
    model : Model
    volume : Volume
    context : Context
    intensity : Intensity, optional
        What maps its voxels to [0, 1]; by default, what the model's recipe says.
    """
    recipe = model.recipe
    machine = settle(context, recipe.train.precision)
    oriented, order = sharp_plane_first(volume)
    intensity = intensity or intensity_of(volume, recipe.volume)
    oriented = filled(oriented, intensity)
    grid = working_grid(oriented, recipe.volume.voxel_size)
    if oriented.voxel_size is None and recipe.model.known_classes:
        with one_thread():
            grid = best_grid(model.load().eval(), oriented, intensity)
        _say_scale(grid)
    elif grid.volume is not oriented:
        _say_voxels(volume, [grid.factors[order.index(axis)] for axis in range(3)])
    three = recipe.embed.planes == "three" or (recipe.embed.planes == "auto" and _is_isotropic(oriented))
    encoder = _ready_encoder(model, grid, intensity, machine, three)
    batch = recipe.embed.batch or BATCH.get(machine.device.type, BATCH["cuda"])
    layout = lay_out(encoder.placements(recipe.embed), grid)
    covering = Covering(encoder, grid, layout, intensity, machine.device, batch, recipe.embed.smooth)
    maker = Maker(
        recipe,
        model.hash,
        model.title,
        codes=model.codes,
        inputs=volume.sources,
        parents=tuple(model.parents),
        classes=encoder.classes,
        learned=model.learned,
    )
    return ComputedVectors(volume, order, covering, maker, machine)


def training_source(volume: Volume, recipe: Recipe, labels: Volume | None = None) -> Source:
    """Return a volume, and the labels of its voxels if there are any, as training looks at them.

    Labels are not interpolated: a working voxel has the label of the voxel that its centre lies in.
    """
    oriented, order = sharp_plane_first(volume)
    intensity = intensity_of(volume, recipe.volume)
    grid = working_grid(filled(oriented, intensity), recipe.volume.voxel_size)
    if labels is None:
        return shown_source(grid.volume, intensity)
    turned = labels if order == (0, 1, 2) else Permuted(labels, order)
    return Source(grid.volume, intensity, grid.looked_up(turned))


def _say_scale(grid: Grid) -> None:
    """Say at which scale a volume of unknown voxel size is looked at."""
    planes = "one section at a time" if is_anisotropic(grid.spacing) else "neighbouring planes together"
    factor = grid.factors[1]
    scale = "at the original pixel size" if factor == 1 else f"with pixels enlarged {factor:g} times"
    _log.info(
        "%s: voxel size unknown; the encoder recognises most %s, looking at %s. Check the result, or give "
        "--voxel-size",
        grid.volume.name, scale, planes,
    )  # fmt: skip


def _say_voxels(volume: Volume, factors: Sequence[float]) -> None:
    """Say in which voxels a volume is read, where they are not its own."""
    size = volume.voxel_size or (1.0, 1.0, 1.0)
    read = " x ".join(f"{edge * factor:.4g}" for edge, factor in zip(size, factors, strict=True))
    own = " x ".join(f"{edge:.4g}" for edge in size)
    _log.info("%s: read at %s nm (it has %s), where the model works", volume.name, read, own)


def _ready_encoder(model: Model, grid: Grid, intensity: Intensity, machine: Machine, three: bool) -> Encoder:
    """Load a model's encoder, adjust it to the volume, bring it to the device; add its planes and filters."""
    table = model.recipe.embed
    encoder = model.load(grid.spacing)
    if table.normalise == "volume":
        _normalise(encoder, shown_source(grid.volume, intensity), three)
    encoder = encoder.prepare(machine.device, machine.dtype)
    if three:
        encoder = ThreePlanes(encoder, table.every)
    return Filtered(encoder, table.filters, grid.spacing) if table.filters else encoder


def _normalise(encoder: Encoder, source: Source, three: bool) -> None:
    """Adjust an encoder to the grey values of a volume, from windows at random places of it.

    Where the volume is too small for such windows, the encoder stays as training left it.
    """
    shape = source.volume.shape
    widest = max(min(shape[:axis] + shape[axis + 1 :]) for axis in (range(3) if three else [0]))
    window = encoder.slab(min(NORMALISING_EDGE, widest))
    if window is None:
        return
    size = min(NORMALISING_PIXELS // window[1] ** 2, NORMALISING_SLABS)
    windows = plain_windows(source, window, size, "auto" if three else "xy")
    with one_thread():
        encoder.normalise(windows)


def _is_isotropic(volume: Volume) -> bool:
    """Tell whether a volume is known to be isotropic and more than a plane."""
    return volume.voxel_size is not None and not is_anisotropic(volume.voxel_size) and volume.shape[0] > 1


def open_features(
    path: Path,
    settings: Sequence[str],
    machine: Machine,
    *,
    offline: bool = False,
    volume: Volume | None = None,
) -> StoredVectors:
    """Open stored features; their volume is opened, and checked for changes, once it is asked for.

    Parameters
    ----------
    path : Path
    settings : sequence of str
        ``table.key=value`` laid over the recipe that the features were made with.
    machine : Machine
        Device and type of numbers to compute with.
    offline : bool
        Whether to refuse a volume that lies on the network.
    volume : Volume, optional
        Their volume, where it is open already.

    Raises
    ------
    InputError
        Where the path holds no features; later, where the volume has changed since they were made.
    """
    features = Features(path)
    facts = features.attributes
    recipe = override(parse_recipe(facts["recipe"], str(path)), settings)
    maker = Maker(
        recipe,
        facts["model"],
        f"of {path}",
        codes=features.codes,
        inputs=(path,),
        parents=(),
        classes=features.classes,
        learned=features.learned,
    )
    z, y, x = facts["order"]
    size = features.voxel_size
    along = None if size is None else (size[z], size[y], size[x])
    factors = facts.get("factors") or working_factors(along, recipe.volume.voxel_size)
    opened = (lambda: _volume_of(features, offline)) if volume is None else (lambda: volume)
    return StoredVectors(
        opened,
        features.source_shape,
        (z, y, x),
        features,
        maker,
        machine,
        (factors[0], factors[1], factors[2]),
    )


def divide_stored(path: Path, volume: Volume, machine: Machine, context: Context) -> None:
    """Store the regions of a volume beside its stored vectors, where their recipe asks for regions.

    Raises
    ------
    Interrupted
        Where the work was stopped; the next call goes on with it.
    """
    source = as_wanted(open_features(path, (), machine, volume=volume))
    source.store_regions(Features(path, mode="r+"), context)


def _volume_of(features: Features, offline: bool) -> Volume:
    """Open the volume that stored features were made from."""
    origin = features.attributes["volume"]
    size = None if features.voxel_size is None else ",".join(map(str, features.voxel_size))
    background = Background("background" in origin, origin.get("mask"))
    how = size, origin["crop"], Choice(**origin.get("read", {})), background
    volume = open_subject(origin["path"], *how, offline=offline)
    for path, known in zip(volume.sources, features.state["inputs"], strict=False):
        if not same(known, path):
            raise InputError(f"{path} has changed since {features.path} was made from it")
    return volume
