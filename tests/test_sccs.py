"""SCCS from a volume to labels: one loop trains it, it resumes exactly, its classes stay the same."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import tiny
import torch
from test_seams import source_of

from vemseg import labelling
from vemseg.batch import Batch
from vemseg.cache import Cache
from vemseg.cli import app
from vemseg.context import Context
from vemseg.dense import GraphSampler, RegionVectors, Wanted
from vemseg.errors import InputError, Interrupted, UsageError
from vemseg.features import Features
from vemseg.geometry import Box
from vemseg.graphs import Affinity, Graph, Kernel
from vemseg.labelling import Sample, check, find_classes, fit, load
from vemseg.labelling.cuts import DeepCutLabeller, SpectralLabeller
from vemseg.models import build_encoder, build_labeller, open_model
from vemseg.phantom import Phantom
from vemseg.pipeline.embed import embed
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import (
    ClassicalTable,
    DeepCutTable,
    DsmTable,
    KMeansTable,
    RegionsTable,
    SccsTable,
    SpectralTable,
    load_recipe,
)
from vemseg.run import Run, load_tensors
from vemseg.volume import open_volume

SHAPE = (5, 40, 48)
SMALL = [
    "cluster.k=3", "cluster.warmup=6", "cluster.widths=[8, 6, 4]", "cluster.every=2",
    "regions.tile=32", "regions.size=20", "regions.parts=6",
    "train.steps=24", "train.log_every=6",
    "cluster.density=0.3",  # in small graphs a tenth of all pairs leaves many regions alone
]  # fmt: skip


def cell(path, seed=3, shape=SHAPE):
    grey = Phantom(shape, seed).read(Box.whole(shape))
    about = {"axes": "ZYX", "spacing": 16, "unit": "nm"}
    tifffile.imwrite(path, grey, imagej=True, resolution=(1 / 16, 1 / 16), metadata=about)
    return path


def learn(volumes, out, context=Context(), settings=()):
    recipe = load_recipe("sccs", [*SMALL, *settings])
    encoder = open_model("classical", ["model.sigmas=[1.0]"])
    return train(Training([str(volume) for volume in volumes], out, recipe, encoder=encoder), context)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sccs")
    volumes = [cell(folder / f"cell{seed}.tif", seed) for seed in (3, 4)]
    return volumes, learn(volumes, folder / "run")


def test_the_scale_joins_the_stated_share_of_pairs_and_stays_that_of_the_run(trained):
    volumes, run = trained
    model = open_model(str(run))
    kappa = float(model.learned["kappa"])
    sources = [Wanted(str(volume), str(run)).vectors(Context()) for volume in volumes]
    reference = GraphSampler(sources, model.recipe).reference.features(torch.float64)
    assert Affinity.of(reference, Kernel(kappa, 4.0, "plain")).density == pytest.approx(0.3, abs=0.01)
    for source in sources:  # the scale is not that of each volume
        labeller = fit(model.recipe.cluster, source.sample(0, 0, Context()))
        assert float(labeller.kappa) == kappa
    fixed = open_model(str(run), [f"cluster.kappa={2 * kappa}"])
    graph = graph_of(dim=len(model.learned["first"][0]))
    other = fit(fixed.recipe.cluster, Sample(graph.vectors[:0], graph.intensities[:0], learned=fixed.learned))
    assert not torch.equal(other.graph_scores(graph), labeller.graph_scores(graph))
    bare = {name: value for name, value in model.learned.items() if name != "kappa"}
    with pytest.raises(UsageError, match=r"a cluster\.kappa of its own"):
        fit(model.recipe.cluster, Sample(graph.vectors[:0], graph.intensities[:0], learned=bare))


def voxels(path):
    found = open_volume(path)
    return found.read(found.box)


def test_a_run_says_what_it_learned_and_every_step_can_be_read(trained):
    run = Run.open(trained[1])
    assert run.finished and run.recipe.model == ClassicalTable(sigmas=(1.0,)) and run.recipe.regions.wanted
    assert run.info["encoder"]["model"] == "classical"
    lines = run.read_metrics()
    assert [line["step"] for line in lines] == [6, 12, 18, 24]
    assert "clustering" not in lines[0] and lines[0]["loss"] == pytest.approx(lines[0]["spectral"])
    for line in lines[1:]:
        expected = line["spectral"] + line["clustering"] + 0.1 * line["smoothness"]
        assert line["loss"] == pytest.approx(expected, rel=1e-4)
    assert 0 < lines[0]["density"] <= 1
    assert set(open_model(str(run.path)).learned) == {
        "first", "second", "third", "hidden", "hidden_bias", "out", "out_bias", "middle", "kappa"
    }  # fmt: skip


def test_training_again_or_in_two_parts_gives_the_same_bytes(trained, tmp_path):
    volumes, run = trained
    calls = iter(range(10**6))
    stop_later = Context(stopped=lambda: next(calls) >= 14)  # after the classes are anchored
    with pytest.raises(Interrupted, match="state saved"):
        learn(volumes, tmp_path / "parts", stop_later)
    learn(volumes, tmp_path / "parts")
    for name in ("model.safetensors", "checkpoint.safetensors"):
        whole, parts = (load_tensors(folder / name)[0] for folder in (run, tmp_path / "parts"))
        assert whole.keys() == parts.keys()
        for key in whole:
            np.testing.assert_array_equal(whole[key], parts[key], err_msg=key)


def test_labels_are_those_of_the_network_and_the_same_wherever_blocks_are_cut(trained, tmp_path, monkeypatch):
    volumes, run = trained
    out = segment(Wanted(str(volumes[0]), str(run)), tmp_path / "seg.tif")
    labels, labeller = voxels(out), load(tmp_path / "seg_clusters.safetensors")
    source = Wanted(str(volumes[0]), str(run)).open(Context())
    assert isinstance(source, RegionVectors) and labeller.k == 3
    for part in (source.divided(number) for number in range(len(source.parts))):
        classes = 1 + labeller.graph_scores(part.graph).argmax(dim=-1).numpy()
        np.testing.assert_array_equal(labels[part.box.slices], classes[part.numbers])
        alone = labeller.scores(part.graph.features(torch.float32))
        np.testing.assert_array_equal(alone, labeller.graph_scores(part.graph))
    monkeypatch.setattr("vemseg.budget.MOST_VOXELS", 2**11)
    again = segment(
        Wanted(str(volumes[0]), str(run)), tmp_path / "again.ome.zarr", context=Context(threads=1)
    )
    np.testing.assert_array_equal(voxels(again), labels)


def test_classes_keep_their_numbers_in_every_volume(trained, tmp_path):
    volumes, run = trained
    labellers = []
    for i, volume in enumerate(volumes):
        segment(Wanted(str(volume), str(run)), tmp_path / f"{i}.tif")
        labellers.append(load(tmp_path / f"{i}_clusters.safetensors"))
    np.testing.assert_array_equal(labellers[0].out, labellers[1].out)  # not put in order by each volume
    saved = tmp_path / "0_clusters.safetensors"
    by_file = segment(Wanted(str(volumes[1]), str(run)), tmp_path / "file.tif", clusters=saved)
    np.testing.assert_array_equal(voxels(by_file), voxels(tmp_path / "1.tif"))


def test_stored_features_give_the_same_labels(trained, tmp_path):
    volumes, run = trained
    wanted = Wanted(str(volumes[0]), str(run))
    features = embed(wanted, tmp_path / "features.zarr")
    assert set(Features(features).learned) == set(open_model(str(run)).learned)
    direct = segment(wanted, tmp_path / "direct.tif")
    stored = segment(Wanted(str(features)), tmp_path / "stored.tif")
    np.testing.assert_array_equal(voxels(stored), voxels(direct))


def graph_of(n=40, dim=6):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(3, dim))[np.arange(n) % 3] + 0.2 * rng.normal(size=(n, dim))).astype(
        np.float16
    )
    return Graph(values, (np.arange(n) % 3).astype(np.float32), np.zeros((0, 2), np.int64))


def test_gradients_reach_only_what_they_should():
    table = SccsTable(k=3, warmup=1, widths=(5, 4, 3), dropout=0.0)
    encoder = build_encoder(load_recipe("vemseg", tiny.RECIPES["vemseg"]).model)
    objective = build_labeller(table, 0, encoder, 6)
    graph = graph_of()
    batch = Batch(torch.zeros(1, 1, 1, 4, 4), graphs=(graph,), find_reference=lambda: graph)
    generator = torch.Generator().manual_seed(0)
    objective(batch, generator)["loss"].backward()  # warming up: the spectral loss alone
    network = objective.network
    head = [network.hidden.weight, network.hidden.bias, network.out.weight, network.out.bias]
    assert all(part.grad is None for part in head)
    assert all(weight.grad.abs().sum() > 0 for weight in network.convolutions)
    objective.zero_grad(set_to_none=True)
    terms = objective(batch, generator)
    (terms["clustering"] + terms["smoothness"]).backward()
    assert all(part.grad.abs().sum() > 0 for part in [*head, *network.convolutions])
    weights = list(encoder.parameters())
    assert weights and all(each.grad is None and not each.requires_grad for each in weights)
    assert not any(buffer.requires_grad for buffer in objective.means.buffers())


def test_a_short_training_warms_up_for_a_quarter_of_it():
    objective = build_labeller(SccsTable(k=3, warmup=500), 0, build_encoder(ClassicalTable()), 6)
    graph, generator = graph_of(), torch.Generator().manual_seed(0)
    batch = Batch(torch.zeros(1, 1, 1, 4, 4), graphs=(graph,), find_reference=lambda: graph)
    for fraction, terms in ((0.0, False), (0.24, False), (0.25, True)):
        objective.after_step(fraction, generator)
        assert ("clustering" in objective(batch, generator)) == terms


def test_graphs_are_made_before_the_training_and_it_can_be_stopped_there(trained, tmp_path):
    volumes, _ = trained
    told = []
    with pytest.raises(Interrupted, match="vectors were computed"):
        stop = Context(report=lambda *say: told.append(say), stopped=lambda: len(told) >= 3)
        learn(volumes, tmp_path / "run", stop)
    assert [words for stage, _, words in told if stage == "encoding"] == [f"graph {i}/6" for i in (1, 2, 3)]
    learn(volumes, tmp_path / "run")
    whole, again = (load_tensors(run / "model.safetensors")[0] for run in (trained[1], tmp_path / "run"))
    assert all((whole[name] == again[name]).all() for name in whole)


def test_seconds_of_training_do_not_hold_those_of_the_graphs(trained, tmp_path, monkeypatch):
    volumes, _ = trained
    made, hours = GraphSampler._graphs, iter(range(0, 10**9, 3600))
    monkeypatch.setattr("vemseg.training.time.monotonic", lambda: clock[0])
    clock = [0.0]

    def slow(self, context):
        for graph in made(self, context):
            clock[0] = float(next(hours))
            yield graph

    monkeypatch.setattr(GraphSampler, "_graphs", slow)
    run = Run.open(learn(volumes, tmp_path / "run"))
    assert clock[0] >= 3600 and run.read_metrics()[-1]["seconds"] == 0.0


def test_its_network_stays_in_float32_where_vectors_come_in_bfloat16(trained, tmp_path):
    run = learn(trained[0], tmp_path / "run", settings=["train.precision=bf16", "train.steps=4"])
    arrays = load_tensors(run / "model.safetensors")[0]
    learned = [arrays[f"labeller.{name}"] for name in ("first", "second", "third", "hidden", "out", "middle")]
    assert all(array.dtype == np.float32 for array in learned)
    assert any((array.view(np.uint32) & 0xFFFF).any() for array in learned)


@pytest.mark.parametrize("centred", [True, False])
def test_vectors_that_all_point_one_way_are_told_apart_where_they_are_centred(centred):
    table = SccsTable(k=3, warmup=30, widths=(8, 6, 4), every=2, dropout=0.0, centred=centred)
    graph = graph_of(60)
    shared = 40 * np.random.default_rng(1).normal(size=6)
    aside = Graph((graph.vectors + shared).astype(np.float16), graph.intensities, graph.edges)
    label, lines = learned_labels(table, aside, 300)
    assert (lines[-1]["spectral"] < 0.5 * lines[0]["spectral"]) == centred
    assert (len(np.unique(label)) == 3) == centred
    if centred:
        np.testing.assert_array_equal(label, np.arange(60) % 3)


def test_the_network_learns_the_groups_of_a_graph():
    table = SccsTable(k=3, warmup=30, widths=(8, 6, 4), every=2, dropout=0.0)
    label, lines = learned_labels(table, graph_of(60), 150)
    assert lines[29]["spectral"] < 0.7 * lines[0]["spectral"]
    assert lines[-1]["clustering"] < 0.3 * lines[30]["clustering"]
    np.testing.assert_array_equal(label, np.arange(60) % 3)  # from dark to bright


def learned_labels(table, graph, steps):
    """Return the labels of a network that was trained on one graph, and the terms of its loss."""
    objective = build_labeller(table, 0, build_encoder(ClassicalTable()), 6)
    batch = Batch(torch.zeros(1, 1, 1, 4, 4), graphs=(graph,), find_reference=lambda: graph)
    adam = torch.optim.Adam(objective.network.parameters(), lr=1e-2)
    lines = []
    for step in range(steps):
        terms = objective(batch, torch.Generator().manual_seed(step))
        adam.zero_grad()
        terms["loss"].backward()
        adam.step()
        lines.append({name: float(value.detach()) for name, value in terms.items()})
    arrays = {name.split(".")[1]: value.detach().numpy() for name, value in objective.tensors().items()}
    labeller = fit(table, Sample(graph.vectors[:0], graph.intensities[:0], learned=arrays))
    return labeller.graph_scores(graph).argmax(dim=1).numpy(), lines


def test_a_sampler_of_graphs_repeats_itself_and_takes_volumes_equally(trained):
    volumes, run = trained
    recipe = Run.open(run).recipe
    sources = [Wanted(str(volume), str(run)).vectors(Context()) for volume in volumes]
    sampler, poor = (GraphSampler(sources, recipe) for _ in range(2))
    poor.room = 0  # nothing is kept: the same graphs are made again
    seen = []
    for step in range(6):
        one, other = sampler.batch(step, 1), poor.batch(step, 1)
        np.testing.assert_array_equal(one.graphs[0].vectors, other.graphs[0].vectors)
        assert one.images.shape == (1, 1, 1, 32, 32)
        seen.append((int(one.volume), one.graphs[0].vectors.tobytes()))
    assert len(set(seen)) == 6 and [volume for volume, _ in seen].count(0) == 3
    most = max(sampler.parts, key=lambda part: sampler.sources[part[0]].divided(part[1]).graph.variety)
    expected = sampler.sources[most[0]].divided(most[1]).graph
    np.testing.assert_array_equal(sampler.batch(0, 1).reference().vectors, expected.vectors)


def test_a_batch_may_hold_graphs_of_volumes_of_other_voxel_sizes():
    recipe = load_recipe("sccs", ["regions.tile=16", "regions.size=12", "regions.parts=4"])
    sources = [source_of(SHAPE, (0, 1, 2)) for _ in range(2)]
    sources[1].factors = (1.0, 2.0, 2.0)
    batch = GraphSampler(sources, recipe).batch(0, 4)
    assert sorted(batch.volume.tolist()) == [0, 0, 1, 1] and len(batch.graphs) == 4
    assert batch.images.shape == (4, 1, 1, 16, 16)


def refused(*arguments):
    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments], prog_name="vemseg")
    return ended.value.code


def test_what_does_not_go_together_is_refused_in_one_line(trained, tmp_path, capfd):
    volume, run = trained[0][0], trained[1]
    cases = [
        (["train", volume, "-c", "sccs", "-o", tmp_path / "r"], "name it with --encoder"),
        (["train", volume, "-c", "sccs", "--from", run, "-o", tmp_path / "r"], "--encoder instead of --from"),
        (["train", volume, "--from", run, "-o", tmp_path / "r"], "--encoder instead of --from"),
        (["segment", volume, "-m", run, "--adapt", "1m", "-o", tmp_path / "s.tif"], "that were trained"),
        (["train", volume, "-c", "maester", "--encoder", "classical", "-o", tmp_path / "r"], "add -c sccs"),
        (["segment", volume, "-m", run, "-k", "5", "-o", tmp_path / "s.tif"], "trained for 3 classes"),
        (["segment", volume, "-m", "classical", "--set", "cluster.method=dsm", "-o", tmp_path / "s.tif"],
         "add --regions slic"),
        (["segment", volume, "-m", "classical", "--regions", "slic", "--set", "cluster.method=sccs",
          "-o", tmp_path / "s.tif"], "-c sccs --encoder MODEL"),
    ]  # fmt: skip
    for arguments, words in cases:
        assert refused(*arguments) == 2
        found = capfd.readouterr().err
        assert words in " ".join(found.split()) and "Traceback" not in found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "method", ["kmeans", "incremental", "spectral", "dsm", pytest.param("deepcut", marks=pytest.mark.slow)]
)
def test_every_method_labels_regions_and_its_saved_classes_give_the_same(trained, tmp_path, method):
    k = 2 if method == "deepcut" else 3  # it decides itself into how many segments it cuts
    settings = (
        "regions.method=slic", "regions.size=20", "model.sigmas=[1.0]", "cluster.sample=200",
        f"cluster.k={k}", f"cluster.method={method}", "cluster.restarts=1",
    )  # fmt: skip
    wanted = Wanted(str(trained[0][0]), "classical", settings)
    out = segment(wanted, tmp_path / "seg.tif")
    labels = voxels(out)
    assert set(np.unique(labels)) <= {1, 2, 3} and len(np.unique(labels)) > 1
    saved = tmp_path / "seg_clusters.safetensors"
    again = segment(wanted, tmp_path / "again.tif", clusters=saved)
    np.testing.assert_array_equal(voxels(again), labels)
    grey = json.loads((tmp_path / "seg.json").read_text())["classes"]
    means = [row["mean_intensity_in_sample"] for row in grey if row["mean_intensity_in_sample"] is not None]
    assert means == sorted(means)


def test_a_method_of_graphs_refuses_a_sample_without_any():
    table = load_recipe("classical", ["cluster.method=dsm", "regions.method=slic"]).cluster
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
    with pytest.raises(UsageError, match="works on regions"):
        fit(table, Sample(vectors, np.zeros(50, np.float32)))


def test_the_cosine_tells_nodes_apart_whose_vectors_all_point_one_way():
    chance = np.random.default_rng(0)
    vectors = (np.repeat(np.eye(3, 6), 20, axis=0) + chance.normal(0, 0.02, (60, 6)) + 4).astype(np.float16)
    graph = Graph(vectors, np.linspace(0, 1, 60, dtype=np.float32), np.empty((0, 2), np.int64))
    sample = Sample(vectors, graph.intensities, graphs=(graph,))
    for table in (DeepCutTable(k=3, segments=3, epochs=60), DsmTable(k=3, segments=3, eigenvectors=3)):
        classes = fit(table, sample).graph_scores(graph).argmax(dim=1)
        np.testing.assert_array_equal(classes, np.repeat([0, 1, 2], 20))
    with pytest.raises(InputError, match="only 1 segments"):
        fit(DeepCutTable(k=3, segments=3, epochs=60, centred=False), sample)


class Watched:
    """A table that notes which of its settings are read."""

    def __init__(self, table):
        self._table, self.seen = table, set()

    def __getattr__(self, name):
        self.seen.add(name)
        return getattr(self._table, name)


@pytest.mark.parametrize("loss", ["ncut", "cc"])
@pytest.mark.parametrize("kappa", ["auto", 2.0])
def test_what_a_cut_reads_is_what_its_key_holds(loss, kappa):
    for made, table in (
        (DeepCutLabeller, DeepCutTable(epochs=1, loss=loss)),
        (SpectralLabeller, SpectralTable(kappa=kappa)),
        (SpectralLabeller, DsmTable(kappa=kappa)),
    ):
        watched = Watched(table)
        made.cut(watched, graph_of())
        assert watched.seen <= made.reads <= set(type(table).model_fields)


@pytest.mark.parametrize(
    "table", [DeepCutTable(k=2, epochs=20), SpectralTable(k=2, kappa=2.0), DsmTable(k=2)]
)
def test_equal_graphs_are_cut_once_and_labelled_as_if_they_were_cut_again(table, monkeypatch):
    kept = Cache(10**6)
    monkeypatch.setattr(labelling.cuts, "_cuts", kept)
    made = DeepCutLabeller if table.method == "deepcut" else SpectralLabeller
    cut, asked = made.cut.__func__, []
    monkeypatch.setattr(made, "cut", classmethod(lambda *given: asked.append(given[1]) or cut(*given)))

    @labelling.one_thread()  # another number of threads is another key
    def scores(graph, **changes):
        other = table.model_copy(update=changes)
        return fit(other, Sample(graph.vectors, graph.intensities, graphs=(graph,))).graph_scores(graph_of())

    first, many = scores(graph_of()), scores(graph_of(), k=3, restarts=2)
    assert len(asked) == 1
    forgetful = SimpleNamespace(get=lambda key: None, put=lambda key, array: None)
    monkeypatch.setattr(labelling.cuts, "_cuts", forgetful)
    assert torch.equal(scores(graph_of()), first)
    assert torch.equal(scores(graph_of(), k=3, restarts=2), many)
    assert len(asked) > 3
    monkeypatch.setattr(labelling.cuts, "_cuts", kept)
    for changes in ({"seed": 1}, {"segments": 4}, {"centred": False}):
        before = len(asked)
        scores(graph_of(), **changes)
        assert len(asked) == before + 1
    before = len(asked)
    scores(graph_of(n=41))
    assert len(asked) == before + 1


def test_a_number_of_classes_is_chosen_among_regions_but_not_for_graphs():
    source = RegionVectors(source_of((9, 20, 23), (0, 1, 2)), RegionsTable(method="slic", size=12.0))
    sample = source.sample(1000, 0, Context())
    table = KMeansTable(k_range=(2, 3), k=3, sample=1000, restarts=1)
    labeller = find_classes(table, sample, source, Context())
    assert labeller.k == labeller.metadata["choice"]["k"]
    assert sum(labeller.metadata["sizes"]) == len(sample.vectors)
    with pytest.raises(UsageError, match="cannot choose how many classes"):
        check(DsmTable(k_range=(2, 3), k=3), None)  # before a sample is drawn
    with pytest.raises(UsageError, match="leave out --k-range and -k auto"):
        find_classes(DsmTable(k_range=(2, 3), k=3), sample, source, Context())


def test_the_table_of_regions_is_checked():
    assert not RegionsTable().wanted and RegionsTable(method="slic").wanted
    for setting in ("regions.size=1", "regions.tile=4", "regions.method=felzenszwalb", "regions.depth=0"):
        with pytest.raises(UsageError, match="regions"):
            load_recipe("sccs", [setting])
