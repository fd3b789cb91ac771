"""A volume divided into regions once, on disk, and what labels of its regions are worth.

Vectors are computed once for each volume and encoder, and slices are divided once. Every method, number of
classes and seed then works on the same vectors of the same regions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import key_of
from numpy.typing import NDArray
from pairs import Pair, open_pair
from scipy.ndimage import distance_transform_cdt

from vemseg import metrics
from vemseg.context import Context
from vemseg.dense import RegionVectors, StoredVectors, Wanted, open_features
from vemseg.geometry import Box
from vemseg.graphs import Graph
from vemseg.labelling import Sample
from vemseg.models import settle
from vemseg.pipeline.embed import embed
from vemseg.recipe import Recipe
from vemseg.run import load_tensors, save_tensors

PROTOCOLS = {"hungarian": metrics.match_hungarian, "greedy": metrics.merge_greedy}
NEAR = 3
"""Voxels from a border between classes."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """A graph of regions, and where its regions lie.

    Attributes
    ----------
    box : Box
        Its voxels inside the volume, axes as the lattice has them.
    numbers : int (z, y, x)
        The region of each voxel of the box.
    graph : Graph
    """

    box: Box
    numbers: NDArray[np.integer]
    graph: Graph


@dataclass(frozen=True)
class Divided:
    """A volume with reference labels, the vectors of an encoder, and its regions.

    Attributes
    ----------
    pair : Pair
    folder : Path
        Holds features.zarr and the parts.
    recipe : Recipe
        Says what a region is.
    context : Context
    """

    pair: Pair
    folder: Path
    recipe: Recipe
    context: Context

    @classmethod
    def open(
        cls, work: Path, text: str, crop: str | None, encoder: Sequence[str], recipe: Recipe, context: Context
    ) -> Divided:
        """Open a volume, and compute its vectors and its parts where they are not there yet.

        Parameters
        ----------
        work : Path
        text, crop : str
            As ``open_pair`` takes them.
        encoder : sequence of str
            A model, and settings of its own.
        recipe : Recipe
            For the vectors of this model.
        context : Context
        """
        pair = open_pair(text, crop)
        folder = work / f"{pair.name}-{key_of([text, crop, *encoder, recipe.of_vectors])}"
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(pair, folder, recipe, context)
        told = recipe.embed.model_dump(include={"placement", "kept", "stride", "planes"})
        settings = [f"embed.{name}={json.dumps(value)}" for name, value in told.items()]
        wanted = Wanted(pair.wanted.path, encoder[0], (*settings, *encoder[1:]), pair.wanted.voxel_size, crop)
        if not (folder / "features.zarr").exists():  # it appears when it is whole
            embed(wanted, folder / "features.zarr", context=context)
        for whole in (True, False):
            made.parts(whole)
        return made

    @cached_property
    def source(self) -> StoredVectors:
        """The vectors of voxels."""
        machine = settle(self.context, "fp32")
        told = self.recipe.regions.model_dump(mode="json")
        settings = [f"regions.{name}={json.dumps(value)}" for name, value in told.items()]
        return open_features(self.folder / "features.zarr", settings, machine)

    def regions(self, whole: bool) -> RegionVectors:
        """Return the vectors of the regions of ``parts(whole)``."""
        table = self.recipe.regions
        if whole:
            return RegionVectors(self.source, table)
        half = table if table.whole else table.model_copy(update={"tile": table.tile // 2})
        return RegionVectors(self.source, half, whole=False)

    def parts(self, whole: bool) -> list[Part]:
        """Return the parts of the volume: its slices, or its tiles.

        Where the recipe wants tiles instead of slices (regions.whole = false), these are the tiles, and tiles
        of half their edge.
        """
        path = self.folder / ("slices.safetensors" if whole else "tiles.safetensors")
        if not path.exists():
            self._divide(whole, path)
        arrays, facts = load_tensors(path)
        parts = []
        for i, (start, stop) in enumerate(facts["boxes"]):
            vectors, grey, edges, numbers = (arrays[f"{name}{i}"] for name in "vgen")
            parts.append(Part(Box(tuple(start), tuple(stop)), numbers, Graph(vectors, grey, edges)))
        return parts

    def _divide(self, whole: bool, path: Path) -> None:
        """Divide all parts and write them."""
        regions = self.regions(whole)
        arrays: dict[str, Any] = {}
        boxes = []
        for i in range(len(regions.parts)):
            part = regions.divided(i)
            inside = part.box.clip(Box.whole(self.reference.shape))
            numbers = part.numbers[inside.relative_to(part.box).slices].astype(np.int32)
            graph = part.graph
            arrays |= {f"v{i}": graph.vectors, f"g{i}": graph.intensities, f"e{i}": graph.edges}
            arrays[f"n{i}"] = np.ascontiguousarray(numbers)
            boxes.append([inside.start, inside.stop])
        growing = path.with_suffix(".new")
        save_tensors(growing, arrays, {"boxes": boxes})
        growing.replace(path)

    @cached_property
    def reference(self) -> NDArray[np.generic]:
        """The reference labels, axes as the lattice has them."""
        volume = self.pair.reference
        return volume.read(volume.box).transpose(self.source.order)

    @cached_property
    def near(self) -> NDArray[np.bool_]:
        """Which voxels lie within ``NEAR`` voxels, in their slice, of one of another class."""
        near = np.zeros(self.reference.shape, bool)
        for number in np.unique(self.reference):
            for plane, out in zip(self.reference == number, near, strict=True):
                if plane.any() and not plane.all():
                    out |= plane & (distance_transform_cdt(plane, "chessboard") <= NEAR)
        return near

    def sample(self, parts: Sequence[Part], n: int, seed: int) -> Sample:
        """Return whole graphs with ``n`` regions or more together, in random order."""
        graphs: list[Graph] = []
        for number in np.random.default_rng([seed, 0x5E6]).permutation(len(parts)):
            graphs.append(parts[number].graph)
            if sum(map(len, graphs)) >= n:
                break
        vectors = np.concatenate([graph.vectors for graph in graphs])
        grey = np.concatenate([graph.intensities for graph in graphs])
        return Sample(vectors, grey, graphs=tuple(graphs))

    def painted(self, parts: Sequence[Part], classes: Callable[[Graph], torch.Tensor]) -> Labels:
        """Paint the regions of parts with their classes, 0 to K - 1."""
        labels = np.zeros(self.reference.shape, np.uint8)
        for part in parts:
            labels[part.box.slices] = classes(part.graph).numpy().astype(np.uint8)[part.numbers]
        return labels

    def scores(self, labels: Labels, tiles: Labels | None = None) -> list[dict[str, Any]]:
        """Return one entry for each protocol: Dice of all classes and near borders, and how consistent.

        Parameters
        ----------
        labels : uint8 (z, y, x)
            Classes 0 to K - 1, axes as the lattice has them.
        tiles : uint8 (z, y, x), optional
            The same where every tile was labelled alone.
        """
        same = None if tiles is None else round(float((labels == tiles).mean()), 4)
        facts = {"tiles": same, "slices": across_slices(labels)}
        found = []
        for protocol, assign in PROTOCOLS.items():
            dice, mean = self._dice(labels, self.reference, assign)
            _, border = self._dice(labels[self.near], self.reference[self.near], assign)
            found.append({"protocol": protocol, "dice": dice, "mean": mean, "border": border, **facts})
        return found

    def _dice(
        self, labels: Labels, reference: NDArray[np.generic], assign: Any
    ) -> tuple[dict[str, float], float]:
        classes = self.pair.classes
        table = metrics.contingency(labels, reference, n_pred=int(labels.max()) + 1, n_ref=max(classes) + 1)
        scores = metrics.score(table, assign(table))
        return {classes[g]: round(float(scores.dice[g]), 4) for g in scores.present}, round(scores.mean(), 4)


def across_slices(labels: NDArray[np.generic]) -> float | None:
    """Return the share of voxels that have the class of the voxel in the next slice; None for one slice."""
    return round(float((labels[1:] == labels[:-1]).mean()), 4) if len(labels) > 1 else None
