"""The seams are real: what is defined in this file alone goes through every verb.

An encoder with its objective, a way of clustering and a file format are each one class, one table and one
registration; no other file of the package is changed. So is a labeller that looks at the neighbours of a
region. A second process that writes blocks of the same labels stands for what comes later.
"""

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from laying import MACHINE
from torch import nn

from vemseg.blocks import EXECUTORS, here
from vemseg.budget import Need
from vemseg.cli import app
from vemseg.context import Context
from vemseg.dense import Maker, RegionVectors, StoredVectors, Wanted
from vemseg.features import HeldFeatures
from vemseg.geometry import Box
from vemseg.labelling import Labeller, fit, load
from vemseg.models import Encoder, Objective
from vemseg.models.encoder import Memory
from vemseg.phantom import Phantom
from vemseg.pipeline.segment import segment
from vemseg.recipe import KINDS, METHODS, ClusterTable, Kind, Method, ModelTable, RegionsTable, load_recipe
from vemseg.run import Run
from vemseg.volume import FORMATS, ArrayVolume, Format, Volume, open_volume

SHAPE = (12, 40, 48)
HERE = Path(__file__).stem


# An encoder and its objective


class ToyTable(ModelTable):
    encoder_settings: ClassVar = ("edge", "dim")

    kind: Literal["toy"] = "toy"
    edge: int = 2
    dim: int = 4


class ToyEncoder(Encoder):
    """One linear map of cubes of ``edge`` voxels."""

    def __init__(self, table, spacing):
        super().__init__()
        edge = table.edge
        self.dim, self.patch, self.fov = table.dim, (edge,) * 3, (edge,) * 3
        self.linear = nn.Conv3d(1, table.dim, edge, stride=edge)

    def encode(self, windows, kept=None):
        vectors = self.linear(windows.to(self.linear.weight.dtype)).movedim(1, -1)
        return vectors if kept is None else vectors[:, kept[0], kept[1], kept[2]]

    def memory(self, batch):
        return Memory(encoding=Need(point=8.0 * self.dim), encoded=Need(point=4.0 * self.dim))


class ToyObjective(Objective):
    """Reconstruct cubes from their vectors."""

    def __init__(self, table):
        super().__init__()
        self.window = (4, 16, 16)
        self.encoder = ToyEncoder(table, (1.0, 1.0, 1.0))
        self.decoder = nn.ConvTranspose3d(table.dim, 1, table.edge, stride=table.edge)

    def forward(self, batch, generator):
        windows = batch.images
        assert windows.shape[1:] == (1, *self.window)
        made = self.decoder(self.encoder.encode(windows).movedim(-1, 1))
        return {"loss": (made - windows).square().mean()}


# A way of clustering


class ToyClusters(ClusterTable):
    method: Literal["toy"] = "toy"
    k: int = 3


@dataclass(frozen=True, eq=False)
class ToyLabeller(Labeller):
    """Classes are quantiles of the first number of a vector."""

    middles: np.ndarray
    length: np.ndarray

    @property
    def k(self):
        return len(self.middles)

    @property
    def dim(self):
        return int(self.length)

    def scores(self, vectors):
        return -(vectors[..., :1].float() - torch.from_numpy(self.middles)).square()

    def reordered(self, order):
        return type(self)(self.middles[order], self.length, metadata=self.metadata)

    @classmethod
    def fit(cls, table, sample, source, context):
        first = sample.vectors[:, 0].astype(np.float64)
        middles = np.quantile(first, (np.arange(table.k) + 0.5) / table.k)
        return cls(middles.astype(np.float32), np.array(sample.vectors.shape[1]))


# A file format


class ToyVolume(Volume):
    """An array of numpy in a file."""

    def __init__(self, path, wish):
        self.array = np.load(path, mmap_mode="r")
        super().__init__(
            self.array.shape, self.array.dtype, voxel_size=wish.voxel_size or (16.0, 16.0, 16.0),
            voxel_size_from="file", name=path.stem, path=path,
        )  # fmt: skip

    def _read(self, box):
        return np.array(self.array[box.slices])


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(KINDS, "toy", Kind(ToyTable, f"{HERE}:ToyEncoder", f"{HERE}:ToyObjective"))
    monkeypatch.setitem(METHODS, "toy", Method(ToyClusters, f"{HERE}:ToyLabeller"))
    monkeypatch.setitem(FORMATS, "toy", Format(lambda path: path.suffix == ".npy", ToyVolume))


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "cell.npy"
    np.save(path, Phantom(SHAPE, 3).read(Box.whole(SHAPE)))
    return path


RECIPE = """
[model]
kind = "toy"
dim = 5

[train]
steps = 6
batch = 4
log_every = 2
lr = 1e-2

[cluster]
method = "toy"
k = 3
sample = 2000
"""


def vemseg(*arguments):
    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments], prog_name="vemseg")
    assert ended.value.code in (0, None)


def labels_of(path):
    found = open_volume(path)
    return found.read(found.box)


def test_what_is_defined_here_goes_through_every_verb(registered, volume, tmp_path):
    recipe, model = tmp_path / "toy.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    vemseg("train", volume, "-c", recipe, "-o", model)
    found = Run.open(model)
    assert found.finished and found.recipe.model == ToyTable(dim=5)
    assert [line["step"] for line in found.read_metrics()] == [2, 4, 6]

    features, clusters = tmp_path / "features.zarr", tmp_path / "clusters.safetensors"
    vemseg("embed", volume, "-m", model, "-o", features)
    vemseg("cluster", features, "-o", clusters)
    assert isinstance(load(clusters), ToyLabeller) and load(clusters).k == 3
    whole, apart, stored = (tmp_path / name for name in ("whole.tif", "apart.ome.zarr", "stored.tif"))
    vemseg("segment", volume, "-m", model, "-o", whole)
    vemseg("segment", volume, "-m", model, "--clusters", clusters, "-o", apart)
    vemseg("segment", features, "--clusters", clusters, "-o", stored)
    assert set(np.unique(labels_of(whole))) == {1, 2, 3}
    np.testing.assert_array_equal(labels_of(apart), labels_of(whole))
    np.testing.assert_array_equal(labels_of(stored), labels_of(whole))

    scores = tmp_path / "scores.json"
    vemseg("evaluate", whole, "--reference", apart, "-o", scores)
    assert json.loads(scores.read_text())["protocols"][0]["mean"]["dice"] == 1.0


# Regions


def source_of(shape, order):
    """Return random vectors on a coarse lattice of a volume whose axes it has in another order."""
    rng = np.random.default_rng(1)
    grey = ArrayVolume(rng.integers(0, 255, shape, np.uint8))
    positions = tuple(
        np.arange(-0.5, shape[axis] + 2, pitch) for axis, pitch in zip(order, (2, 3, 4), strict=True)
    )
    points = Box.whole(tuple(map(len, positions)))
    held = HeldFeatures(positions, 3, points, points.shape)
    for_vectors, for_grey = (*points.shape, 3), points.shape
    held.write(points, *(rng.normal(size=s).astype(np.float16) for s in (for_vectors, for_grey)))
    maker = Maker(load_recipe("classical"), "model", "random vectors", None, (), ())
    return StoredVectors(lambda: grey, shape, order, held, maker, MACHINE)


REGIONS = RegionsTable(method="slic", size=12.0, tile=16)


class Smoothing(ToyLabeller):
    """Scores of a region are the mean over itself and the regions it touches: no map of single vectors."""

    def graph_scores(self, graph):
        own = self.scores(graph.features(torch.float32))
        total, count = own.clone(), torch.ones(len(own), 1)
        for a, b in torch.from_numpy(graph.edges).T, torch.from_numpy(graph.edges).T.flip(0):
            total.index_add_(0, a, own[b])
            count.index_add_(0, a, torch.ones(len(a), 1))
        return total / count

    @classmethod
    def fit(cls, table, sample, source, context):
        assert sum(map(len, sample.graphs)) == len(sample.vectors)  # what a graph network would learn from
        return super().fit(table, sample, source, context)


def test_a_labeller_may_look_at_a_region_and_its_neighbours(registered, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", Method(ToyClusters, f"{HERE}:Smoothing"))
    found = RegionVectors(source_of((5, 16, 23), (0, 1, 2)), REGIONS)
    sample = found.sample(1000, 0, Context())
    labeller = fit(ToyClusters(k=3, sample=1000), sample, found)
    painted = found.labels(found.volume.box, found.read(found.volume.box), labeller)
    changed, classes, grey = 0, [], []
    for part in (found.divided(number) for number in range(len(found.parts))):
        graph, edges = part.graph, part.graph.edges
        own = labeller.scores(graph.features(torch.float32)).numpy()
        for i in range(len(graph)):
            near = [i, *(b for a, b in edges if a == i), *(a for a, b in edges if b == i)]
            expected = 1 + own[near].mean(axis=0).argmax()
            assert np.unique(painted[part.box.slices][part.numbers == i]).tolist() == [expected]
            changed += expected != 1 + own[i].argmax()
            classes.append(expected)
        grey.append(graph.intensities)
    assert changed  # or neighbours had nothing to say
    sizes = np.bincount(classes, minlength=4)[1:]
    assert labeller.metadata["sizes"] == sizes.tolist()
    means = [np.concatenate(grey)[np.array(classes) == c + 1].mean() for c in range(3) if sizes[c]]
    assert means == sorted(means)  # classes are numbered from dark to bright as they are painted


# A second process


def work(job, numbers):
    """Do some blocks of a job; called in a process of its own."""
    here.run(job, Context(threads=1, device="cpu"), numbers=numbers)


def in_two_processes(job, context, stages=None):
    """Do the blocks of even number here and the others in a new process: an executor."""
    even, odd = (range(first, len(job.boxes), 2) for first in (0, 1))
    process = multiprocessing.get_context("spawn").Process(target=work, args=(job, odd))
    process.start()
    here.run(job, context, stages, even)
    process.join(300)
    assert process.exitcode == 0
    return here.run(job, context, stages)  # every block has its marker by now: nothing is computed


@pytest.mark.slow
def test_a_second_process_writes_its_blocks_of_the_same_labels(tmp_path, monkeypatch):
    import tifffile

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EXECUTORS, "two", f"{HERE}:in_two_processes")
    monkeypatch.setattr("vemseg.budget.MOST_VOXELS", 2**12)
    grey = Phantom(SHAPE, 3).read(Box.whole(SHAPE))
    tifffile.imwrite("cell.tif", grey, imagej=True, metadata={"axes": "ZYX", "spacing": 16, "unit": "nm"})
    wanted = Wanted("cell.tif", None, ("cluster.k=3", "cluster.sample=2000", "cluster.restarts=1"))
    whole = segment(wanted, Path("whole.tif"))
    apart = segment(wanted, Path("apart.ome.zarr"), context=Context(executor="two"))
    np.testing.assert_array_equal(labels_of(apart), labels_of(whole))
    classes = [json.loads(Path(f"{stem}.json").read_text())["classes"] for stem in ("whole", "apart")]
    assert classes[0] == classes[1]
