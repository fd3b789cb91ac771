"""Points that somebody clicked: read, refused in one line, naming labels, teaching a read-out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from sklearn.linear_model import LogisticRegression

from vemseg.cli import app
from vemseg.context import Context
from vemseg.dense import RegionVectors, Wanted, interpolated, open_features
from vemseg.errors import InputError, UsageError
from vemseg.labelling import Examples, Sample, fit, load
from vemseg.models import settle
from vemseg.objects import Refinement, Votes, named_by_points
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.refine import refine
from vemseg.pipeline.segment import segment
from vemseg.points import PointFile, values_at
from vemseg.recipe import PointsTable
from vemseg.volume import open_labels, open_volume, record

CELL = SimpleNamespace(shape=(6, 40, 50), voxel_size=(20.0, 10.0, 10.0), origin=None)
NAMES = {1: "mitochondrion", 2: "membrane"}


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table of points."""

    def write(*lines, heads="z,y,x,class"):
        path = tmp_path / "points.csv"
        path.write_text("\n".join([heads, *lines]) + "\n")
        return path

    return write


# Reading


def test_points_are_voxels_by_default_and_nm_when_they_are_said_to_be(table):
    path = table("1,2,3,rest", "5,39,49,square", "1,2,3,rest", "")
    found = PointFile(path).read(CELL)
    assert found.voxels.tolist() == [[1, 2, 3], [5, 39, 49]]
    assert found.names == ("rest", "square") and found.classes.tolist() == [0, 1]
    path = table("100,394.9,494,a", "-10,0,-5,b")
    assert PointFile(path, "nm").read(CELL).voxels.tolist() == [[5, 39, 49], [0, 0, 0]]
    placed = SimpleNamespace(shape=CELL.shape, voxel_size=CELL.voxel_size, origin=(1000.0, 0.0, 500.0))
    path = table("1040,10,520,a", "1000,0,500,b")
    assert PointFile(path, "nm").read(placed).voxels.tolist() == [[2, 1, 2], [0, 0, 0]]


def test_columns_stand_in_any_order_beside_others_and_may_be_parted_by_semicolons(table):
    path = table("3;rest;0.5;2;1", heads="\ufeffX;Class;note; Y ;z")
    assert PointFile(path).read(CELL).voxels.tolist() == [[1, 2, 3]]


def test_classes_follow_the_numbers_that_the_user_gives(table):
    path = table("0,0,0,membrane", "0,0,1,1", "0,0,2,2")
    found = PointFile(path, names=NAMES).read(CELL)
    assert found.names == ("mitochondrion", "membrane") and found.classes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("lines", "unit", "names", "complaint"),
    [
        (["0,0,0,a", "6,0,0,b"], "voxel", {}, "line 3: 6, 0, 0 voxel .* outside the volume of 6 x 40 x 50"),
        (["-1,0,0,a"], "voxel", {}, "line 2: .* outside"),
        (["100,400,500,a"], "voxel", {}, r"outside .*; if places are in nm, add --unit nm"),
        (["120,0,0,a"], "nm", {}, "120, 0, 0 nm .* outside"),
        (["1,2.5,3,a"], "voxel", {}, "2.5 is not a whole voxel; if places are in nm, add --unit nm"),
        (["1,2,3,mitochondrio"], "voxel", NAMES, r"line 2: there is no class 'mitochondrio' \(did you mean"),
        (["1,2,3,7"], "voxel", NAMES, "line 2: there is no class '7'; --names has 1=mitochondrion, 2=membr"),
        (["1,2,3,"], "voxel", {}, "line 2: the point has no class"),
        (["1,2,3,a", "0,0,0,b", "1,2,3,b"], "voxel", {}, "voxel 1, 2, 3 is a in line 2 and b in line 4"),
        (["20,10,10,a", "21,11,11,b"], "nm", {}, "voxel 1, 1, 1 is a in line 2 and b in line 3"),
        (["1,two,3,a"], "voxel", {}, "line 2: y is 'two', which is not a number"),
        (["1,nan,3,a"], "voxel", {}, "line 2: y is 'nan', which is not a number"),
        (["1,2"], "voxel", {}, "line 2: it has 2 columns"),
        ([], "voxel", {}, "there is no point"),
    ],
)
def test_what_is_wrong_with_points_is_said_in_one_line(table, lines, unit, names, complaint):
    with pytest.raises(InputError, match=complaint) as told:
        PointFile(table(*lines), unit, names).read(CELL)
    assert "\n" not in str(told.value) and "points.csv" in str(told.value)


def test_files_that_are_no_tables_of_points_are_refused(table, tmp_path):
    with pytest.raises(InputError, match=r"has no 'z' \(z_um, y, x, class\); for nm"):
        PointFile(table("1,2,3,a", heads="z_um,y,x,class")).read(CELL)
    with pytest.raises(InputError, match=r"has no 'z' \(it is empty\)"):
        PointFile(table(heads="")).read(CELL)
    with pytest.raises(InputError, match="cannot read points"):
        PointFile(tmp_path / "nowhere.csv").read(CELL)
    bare = SimpleNamespace(shape=CELL.shape, voxel_size=None, origin=None)
    with pytest.raises(UsageError, match="needs the voxel size"):
        PointFile(table("1,2,3,a"), "nm").read(bare)


def test_values_at_voxels_are_those_of_the_whole_volume():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 9, (5, 12, 13))
    places = rng.integers(0, (5, 12, 13), (40, 3))
    found = values_at(lambda box: whole[box.slices], places)
    assert found.tolist() == [int(whole[tuple(place)]) for place in places]


# Naming labels


@pytest.fixture
def labels(tmp_path):
    """Four stripes of labels 1..4 over a border of label 0, as a file."""
    array = np.zeros((6, 40, 50), np.uint8)
    for k in range(1, 5):
        array[:, 10 * (k - 1) : 10 * k, 5:] = k
    path = tmp_path / "seg.tif"
    tifffile.imwrite(path, array, imagej=True, resolution=(0.1, 0.1), metadata={"spacing": 20, "unit": "nm"})
    return path


def test_each_class_takes_the_name_of_most_of_its_points_and_equal_names_become_one(
    labels, table, tmp_path, caplog
):
    points = table(
        *("0,5,10,rest", "0,5,11,rest", "0,5,12,membrane"),  # label 1: rest
        *("1,15,10,membrane", "1,25,10,rest", "2,26,40,rest"),  # 2: membrane; 3: rest
        "3,3,2,rest",  # label 0 does not count
    )
    volume = open_labels(str(labels))
    with caplog.at_level("INFO", "vemseg"):
        wanted = named_by_points(Refinement(smooth=0), volume, PointFile(points))
    assert "named by points: 1 rest (2 of 3 points); 2 membrane (1 of 1 points)" in caplog.text
    assert "1 points lie where the labels are 0" in caplog.text
    out = refine(volume, tmp_path / "out.tif", wanted)
    before, after = tifffile.imread(labels), tifffile.imread(out)
    names = {int(k): v for k, v in record(out)["names"].items()}
    expected = np.array(["", "rest", "membrane", "rest", "class 3"])[before]
    assert (np.array(["", *(names[k] for k in sorted(names))])[after] == expected).all()
    told = json.loads((tmp_path / "out.json").read_text())["state"]["refined"]["points"]
    assert told["votes"]["1"] == {"rest": 2, "membrane": 1} and len(told["sha256"]) == 64


def test_a_tie_goes_to_the_first_class_and_is_said(labels, table, caplog):
    points = table("0,5,10,b", "0,5,11,a", "0,15,10,c")
    found = named_by_points(Refinement(), open_labels(str(labels)), PointFile(points))
    assert found.names == {1: "b", 2: "c"} and not found.merges
    assert "class 1 has equally many points of two classes: it becomes b" in caplog.text
    assert "no class has most of its points in a" in caplog.text


def test_points_outside_all_classes_name_nothing(labels, table):
    with pytest.raises(InputError, match="all points lie where the labels are 0"):
        named_by_points(Refinement(), open_labels(str(labels)), PointFile(table("0,5,0,a")))


def test_what_was_refined_without_points_says_nothing_of_them():
    assert "points" not in Refinement(names={1: "a"}).state()


# Learning from vectors


def test_the_readout_is_logistic_regression_on_scaled_vectors():
    rng = np.random.default_rng(1)
    vectors = rng.normal(3, (1, 5, 0.2), (400, 3)).astype(np.float16)
    for n in (2, 3):
        classes = np.arange(12) % n
        given = vectors[:12].astype(np.float32) + 2 * classes[:, None]
        sample = Sample(
            vectors, np.zeros(400, np.float32), examples=Examples(given, classes, ("a", "b", "c")[:n])
        )
        found = fit(PointsTable(scale="standardise"), sample)
        wide = vectors.astype(np.float64)
        scaled = [(part - wide.mean(axis=0)) / wide.std(axis=0) for part in (given, wide)]
        slow = LogisticRegression(class_weight="balanced", max_iter=1000).fit(scaled[0], classes)
        scores = found.scores(torch.from_numpy(vectors.astype(np.float32)))
        np.testing.assert_allclose(scores.softmax(-1).numpy(), slow.predict_proba(scaled[1]), atol=2e-3)
        assert found.names == dict(enumerate(("a", "b", "c")[:n], start=1))


@pytest.mark.parametrize(
    ("examples", "kind", "complaint"),
    [
        (None, UsageError, "learns from points"),
        (
            Examples(np.ones((1, 2), np.float32), np.zeros(1, np.int64), ("a",)),
            InputError,
            "all points are a",
        ),
        (
            Examples(np.full((2, 2), np.nan, np.float32), np.arange(2), ("a", "b")),
            InputError,
            "hold NaN or infinity",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(examples, kind, complaint):
    sample = Sample(np.ones((4, 2), np.float16), np.zeros(4, np.float32), examples=examples)
    with pytest.raises(kind, match=complaint):
        fit(PointsTable(), sample)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Features of a bright square in dark noise: the volume, and what embed stored of it."""
    folder = tmp_path_factory.mktemp("stored")
    rng = np.random.default_rng(2)
    grey = rng.normal(80, 6, (4, 40, 40))
    grey[:, 10:30, 10:30] += 90
    tifffile.imwrite(folder / "cell.tif", grey.astype(np.uint8), photometric="minisblack")
    wanted = Wanted(str(folder / "cell.tif"), "classical", ("cluster.sample=2000",), "16,16,16")
    return embed(wanted, folder / "cell.zarr", context=Context("cpu", 1))


def test_vectors_at_voxels_are_those_that_labels_are_made_of(stored):
    source = open_features(stored, (), settle(Context("cpu", 1), "fp32"))
    box = source.volume.box
    places = np.array([[0, 0, 0], [3, 39, 39], [1, 12, 31]])
    whole = source.values(source.points_of(box)).float()
    slow = np.zeros((*box.shape, source.dim), np.float32)
    for plane, rows, strip in interpolated(whole, source.interpolations(box)):
        slow[plane, rows] = strip.numpy()
    np.testing.assert_allclose(source.at(places), slow[tuple(places.T)], rtol=1e-5)


def test_the_vector_at_a_voxel_of_a_region_is_that_of_the_region(stored):
    source = open_features(
        stored, ("regions.method=slic", "regions.size=40"), settle(Context("cpu", 1), "fp32")
    )
    regions = RegionVectors(source, source.maker.recipe.regions)
    places = np.array([[0, 0, 0], [3, 39, 39], [1, 12, 31], [1, 12, 30], [3, 0, 7]])
    found = regions.at(places)
    for place, vector in zip(places, found, strict=True):
        part = regions.divided(int(place[0]))  # whole slices are parts
        number = part.numbers[0, place[1], place[2]]
        assert (vector == part.graph.vectors[number]).all()


def test_a_few_points_teach_classes_that_segment_then_knows_by_name(stored, table, tmp_path):
    points = PointFile(table("1,20,20,square", "1,2,2,rest", "2,37,5,rest"))
    context = Context("cpu", 1)
    found = cluster(
        [stored],
        tmp_path / "c.safetensors",
        settings=["cluster.method=points"],
        points=points,
        context=context,
    )
    assert load(found).names == {1: "square", 2: "rest"}
    out = segment(Wanted(str(stored)), tmp_path / "seg.tif", clusters=found, context=context)
    labels = open_volume(out).read(open_volume(out).box)
    assert (labels[:, 14:26, 14:26] == 1).all() and (labels[:, :5] == 2).all()
    assert record(out)["names"] == {"1": "square", "2": "rest"}
    again = cluster(
        [stored],
        tmp_path / "d.safetensors",
        settings=["cluster.method=points"],
        points=points,
        context=context,
    )
    assert (load(again).weight == load(found).weight).all()
    with pytest.raises(UsageError, match="points of one volume"):
        cluster([stored, stored], tmp_path / "e.safetensors", points=points, context=context)
    with pytest.raises(UsageError, match="vemseg cluster FEATURES --points"):
        segment(Wanted(str(stored), settings=("cluster.method=points",)), tmp_path / "s.tif", context=context)


# The command line


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["refine", "a.tif", "--points", "p.csv", "--merge", "1,2", "-o", "b.tif"], "--points and --merge"),
        (["refine", "a.tif", "--unit", "nm", "-o", "b.tif"], "--unit is about points"),
        (["cluster", "a.zarr", "--points", "p.csv", "-k", "4", "-o", "c.safetensors"], "--points and -k"),
    ],
)
def test_options_that_do_not_go_with_points_are_refused(words, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        app(words, standalone_mode=True)
    assert ended.value.code == 2 and complaint in capsys.readouterr().err


def test_points_on_the_command_line_name_labels(labels, table, tmp_path, capsys):
    points = table("0,50,100,2", "20,150,100,membrane", "0,250,100,mitochondrion")
    words = [
        "refine",
        str(labels),
        "--points",
        str(points),
        "--unit",
        "nm",
        "--names",
        "1=mitochondrion,2=membrane",
    ]
    with pytest.raises(SystemExit) as ended:
        app([*words, "-o", str(tmp_path / "out.tif")], standalone_mode=True)
    assert ended.value.code == 0, capsys.readouterr().err
    assert set(record(tmp_path / "out.tif")["names"].values()) == {"membrane", "mitochondrion", "class 3"}


def test_votes_are_counted_by_label():
    points = SimpleNamespace(classes=np.array([0, 1, 1, 0]), names=("a", "b"))
    votes = Votes.of(np.array([2, 2, 2, 0]), points)
    assert votes.counts.tolist() == [[1, 0], [0, 0], [1, 2]] and votes.winners == {2: 1} and votes.ties == []
