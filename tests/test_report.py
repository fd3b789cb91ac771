"""The report: what its page holds, compared with the volumes; and the page itself, in a browser."""

import base64
import csv
import io
import json
import math
import re
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vemseg.cli import parsing
from vemseg.context import Context
from vemseg.dense import Wanted, located
from vemseg.errors import InputError, Interrupted, MissingError, UsageError
from vemseg.labelling import load
from vemseg.objects import Refinement
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.evaluate import Comparison, evaluate
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.objects import objects
from vemseg.pipeline.refine import refine
from vemseg.pipeline.report import report
from vemseg.pipeline.segment import segment
from vemseg.report import Beside, Subject, distributions
from vemseg.report import slices as slices_of_page
from vemseg.report.points import PATCH, neighbourly, principal
from vemseg.volume import ArrayVolume, LabelInfo, LabelStore, finish_labels, open_labels, open_volume, record
from vemseg.volume.writing import write_volume

SHAPE = (11, 40, 52)
SIZE = (20.0, 10.0, 10.0)
NAMES = {1: "nucleus", 2: "</script><b>", 7: "class 7", 9: "class 9"}
NOTHING = Beside(points=0)


def smooth(shape, seed=0):
    """Return smooth noise, uint8."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2)
    return np.uint8(255 * (field - field.min()) / np.ptp(field))


def classes_of(grey):
    """Return labels 0, 1, 2 and 7 of grey values; no voxel has label 9."""
    return np.array([0, 1, 2, 7], np.uint8)[np.digitize(grey, (60, 120, 190))]


def written(folder, grey, labels, **about):
    """Write an image, and labels as segment does; return the paths of both."""
    image, path = folder / "cell.tif", folder / "cell_seg.tif"
    write_volume(ArrayVolume(grey, SIZE), image)
    store = LabelStore.create(folder / "store", labels.shape, (32, 32, 64), np.dtype(labels.dtype), SIZE)
    for box in store.box.split(store.block_shape):
        store.write(box, labels[box.slices])
    told = {"kind": "segmentation", "vemseg": "0.1.0", "volume": {"path": str(image)}} | about
    info = LabelInfo(voxel_size=SIZE, names=NAMES, colours={1: (1, 2, 3)}, description=told)
    finish_labels(store, path, info)
    return image, path


@pytest.fixture
def cell(tmp_path):
    grey = smooth(SHAPE)
    return *written(tmp_path, grey, classes_of(grey)), grey, classes_of(grey)


def parts(path):
    """Return what a page holds: its data and its slices."""
    found = re.findall(r'<script type="application/json" (?:id|class)="\w+">(.*?)</script>', path.read_text())
    page, *slices = map(json.loads, found)
    return page, slices


def pixels(entry):
    """Return the image and the places of classes that a slice holds."""
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["grey"]))))
    return grey, np.frombuffer(zlib.decompress(base64.b64decode(entry["labels"])), np.uint8).reshape(
        entry["shape"]
    )


def test_a_page_holds_what_the_volumes_hold(cell, tmp_path):
    _, path, grey, labels = cell
    page, slices = parts(report(Subject(str(path)), tmp_path / "r.html", beside=NOTHING))
    assert [row["label"] for row in page["classes"]] == [1, 2, 7, 9]
    counts = np.bincount(labels.ravel(), minlength=10)
    voxel = math.prod(SIZE) / 1e9
    for row in page["classes"]:
        assert row["voxels"] == counts[row["label"]]
        assert row["volume_um3"] == pytest.approx(row["voxels"] * voxel, abs=1e-6)
    assert [row["name"] for row in page["classes"]] == list(NAMES.values())
    assert page["classes"][0]["colour"] == "#010203"
    assert page["extent"] == list(SHAPE) and page["voxel_size"] == list(SIZE)
    shares = np.array(page["through"])
    np.testing.assert_allclose(shares[:, 1], (labels == 2).mean(axis=(1, 2)), atol=1e-5)
    assert [entry["z"] for entry in slices] == list(range(SHAPE[0]))
    for entry in slices:
        seen, places = pixels(entry)
        np.testing.assert_array_equal(np.array([0, 1, 2, 7])[places], labels[entry["z"]])
        assert np.abs(seen.astype(int) - grey[entry["z"]]).mean() < 5  # JPEG
    assert page["provenance"]["report"]["kind"] == "report"


def test_a_page_asks_the_network_for_nothing_and_no_name_ends_its_data(cell, tmp_path):
    out = report(Subject(str(cell[1])), tmp_path / "r.html", beside=NOTHING)
    text = out.read_text()
    assert "http" not in text.replace("http-equiv", "") and "<link" not in text and "@import" not in text
    assert not re.search(r'(src|href)\s*=\s*"', text)
    assert "default-src 'none'" in text
    assert "</script><b>" not in text and parts(out)[0]["classes"][1]["name"] == "</script><b>"


def test_a_page_stays_small_whatever_it_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(slices_of_page, "BYTES", 60_000)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (60, 130, 140), np.uint8)
    _, path = written(tmp_path, grey, rng.choice([0, 1, 2, 7], grey.shape).astype(np.uint8))
    out = report(Subject(str(path)), tmp_path / "r.html", beside=NOTHING)
    _, slices = parts(out)
    assert len(slices) == slices_of_page.MOST_SLICES
    assert sum(len(entry["grey"]) + len(entry["labels"]) for entry in slices) <= 60_000 * 4 / 3 + 8 * len(
        slices
    )
    labels = open_volume(path)
    every = -(-130 // slices[3]["shape"][0])
    _, places = pixels(slices[3])
    plane = labels.read(labels.box)[slices[3]["z"]][::every, ::every]
    np.testing.assert_array_equal(np.array([0, 1, 2, 7])[places], plane[: places.shape[0], : places.shape[1]])
    assert every > 1 and out.stat().st_size < 200_000


def test_one_slice_without_a_voxel_size_is_shown(tmp_path):
    grey = smooth((1, 20, 30))
    write_volume(ArrayVolume(grey), tmp_path / "a.tif")
    write_volume(ArrayVolume(classes_of(grey)), tmp_path / "b.tif")
    subject = Subject(str(tmp_path / "b.tif"), str(tmp_path / "a.tif"))
    page, slices = parts(report(subject, tmp_path / "r.html", beside=NOTHING))
    assert len(slices) == 1 and page["voxel_size"] is None
    assert [row["label"] for row in page["classes"]] == [1, 2, 7]
    assert page["classes"][0]["volume_um3"] is None and page["classes"][0]["name"] == "class 1"


def test_the_same_report_is_made_once_and_a_stop_leaves_nothing(cell, tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(Interrupted):
        report(Subject(str(cell[1])), out, beside=NOTHING, context=Context(stopped=lambda: True))
    assert not list(tmp_path.glob("r.*"))
    before = report(Subject(str(cell[1])), out, beside=NOTHING).read_bytes()
    made = out.stat().st_mtime_ns
    report(Subject(str(cell[1])), out, beside=NOTHING)
    assert out.stat().st_mtime_ns == made
    report(Subject(str(cell[1])), out, beside=NOTHING, overwrite=True)
    assert re.sub("<script.*", "", out.read_text()) == re.sub("<script.*", "", before.decode())


def test_an_image_that_moved_with_its_labels_is_found(cell, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    path = shutil.move(cell[1], moved / "cell_seg.tif")
    with pytest.raises(MissingError, match="give the image with --volume"):
        cell[0].rename(tmp_path / "other.tif")
        report(Subject(str(path)), tmp_path / "r.html", beside=NOTHING)
    (tmp_path / "other.tif").rename(moved / "cell.tif")
    page, _ = parts(report(Subject(str(path)), tmp_path / "r.html", beside=NOTHING))
    assert page["facts"]["Image"] == "cell"


def test_what_cannot_be_shown_is_refused_in_one_line(cell, tmp_path):
    grey, plain = cell[2], tmp_path / "plain.tif"
    write_volume(ArrayVolume(classes_of(grey), SIZE), plain)
    with pytest.raises(MissingError, match="does not say which image it shows"):
        report(Subject(str(plain)), tmp_path / "r.html", beside=NOTHING)
    with pytest.raises(InputError, match="there is no class 3; the labels have 1, 2, 7, 9"):
        report(Subject(str(cell[1]), names={3: "golgi"}), tmp_path / "r.html", beside=NOTHING)
    many = tmp_path / "many"
    many.mkdir()
    ids = np.arange(1, 1 + grey.size, dtype=np.uint32).reshape(grey.shape) % 300
    _, path = written(many, grey, ids)
    with pytest.raises(InputError, match="and a report shows at most 255"):
        report(Subject(str(path)), tmp_path / "r.html", beside=NOTHING)
    single = objects(open_labels(cell[1]), tmp_path / "single.tif")
    with pytest.raises(InputError, match=r"single\.tif holds objects, not classes"):
        report(Subject(str(single)), tmp_path / "r.html", beside=NOTHING)
    with pytest.raises(UsageError, match="--points"):
        Beside(points=10**6)
    with pytest.raises(MissingError, match="no table at"):
        report(Subject(str(cell[1])), tmp_path / "r.html", beside=Beside(0, objects=tmp_path / "no.csv"))
    assert not list(tmp_path.glob("r.*"))


# Names, colours and merges


def test_a_file_of_names_says_colours_and_merges(tmp_path):
    path = tmp_path / "names.toml"
    path.write_text('1 = "nucleus"\n2 = "gran"\n7 = "gran"\nmerge = [[2, 7]]\n[colours]\n1 = "#ff0080"\n')
    found = parsing.legend(str(path))
    assert found.names == {1: "nucleus", 2: "gran", 7: "gran"} == parsing.names(str(path))
    assert found.colours == {1: (255, 0, 128)} and found.merges == [((2, 7), None)]
    assert parsing.legend("1=a").merges == [] and parsing.legend(None) is None


NONSENSE = [
    *("merge = [[2]]", "merge = [[2, 2]]", 'merge = [[2, "5"]]', "merge = 3", "merge = [[true, 2]]"),
    *(
        "[colours]\n1 = 3",
        '[colours]\n1 = "red"',
        '[colours]\nx = "#000000"',
        "colours = 3",
        "[other]\n1 = 2",
    ),
]


@pytest.mark.parametrize("text", NONSENSE)
def test_a_file_of_names_that_makes_no_sense_is_refused(text, tmp_path):
    path = tmp_path / "names.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"names\.toml"):
        parsing.legend(str(path))


def test_refine_applies_colours_and_merges(cell, tmp_path):
    names = {2: "granule", 7: "granule"}
    wanted = Refinement([((2, 7), None)], {}, names, colours={1: (9, 9, 9), 2: (8, 8, 8)})
    refine(open_labels(cell[1]), tmp_path / "out.tif", wanted)
    told, volume = record(tmp_path / "out.tif"), open_volume(tmp_path / "out.tif")
    table = np.zeros(8, int)
    table[[1, 2, 7]] = 1, 2, 2
    np.testing.assert_array_equal(volume.read(volume.box), table[cell[3]])
    assert told["names"]["2"] == "granule" and told["colours"]["1"] == [9, 9, 9]
    assert told["colours"]["2"] == [8, 8, 8]
    page, _ = parts(report(Subject(str(tmp_path / "out.tif")), tmp_path / "r.html", beside=NOTHING))
    assert [row["name"] for row in page["classes"]] == ["nucleus", "granule", "class 3"]  # which was 9
    with pytest.raises(InputError, match="no class 4"):
        refine(open_labels(cell[1]), tmp_path / "no.tif", Refinement(colours={4: (1, 1, 1)}))


def test_merges_that_are_known_already_are_shown(cell, tmp_path):
    subject = Subject(str(cell[1]), merges=[((7, 2), None)])
    page, _ = parts(report(subject, tmp_path / "r.html", beside=NOTHING))
    assert [row["leader"] for row in page["classes"]] == [1, 2, 2, 9]


# Vectors


def test_principal_components_are_those_of_the_singular_values():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))).astype(np.float16)
    plane, shares = principal(vectors)
    centred = vectors.astype(float) - vectors.astype(float).mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    for axis in range(2):
        slow = centred @ directions[axis]
        assert abs(np.corrcoef(slow, plane[:, axis])[0, 1]) == pytest.approx(1)
        assert shares[axis] == pytest.approx(values[axis] ** 2 / (values**2).sum(), abs=1e-4)
    assert np.abs(plane).max() == pytest.approx(1)
    ratio = np.ptp(plane, axis=0) / np.ptp(centred @ directions[:2].T, axis=0)
    assert ratio[0] == pytest.approx(ratio[1])  # one scale for both


@pytest.mark.slow
def test_umap_keeps_neighbours_together_and_repeats():
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(6)[:3] * 40, 60, axis=0) + rng.standard_normal((180, 6))
    plane = neighbourly(groups)
    assert plane.shape == (180, 2) and np.abs(plane).max() == 1.0
    middles = plane.reshape(3, 60, 2).mean(axis=1)
    near = np.linalg.norm(plane[:, None] - middles, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(near, np.repeat(range(3), 60))
    np.testing.assert_array_equal(plane, neighbourly(groups))
    with pytest.raises(InputError, match="3 vectors are too few"):
        neighbourly(groups[:3])


def test_umap_that_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(
        InputError, match=r"--umap needs umap-learn; install the extra umap: pip install '\.\[umap\]'"
    ):
        neighbourly(np.zeros((9, 4)))
    with pytest.raises(InputError, match="--umap needs umap-learn"):  # before anything is computed
        Beside(umap=True)


def test_vectors_of_one_entry_or_without_any_difference_have_a_place():
    assert principal(np.arange(4.0)[:, None])[0][:, 1].tolist() == [0] * 4
    assert np.isfinite(principal(np.ones((3, 4)))[0]).all()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """Return the paths of a small phantom, its reference and labels of it."""
    folder = tmp_path_factory.mktemp("phantom")
    image, truth = fetch_phantom(folder / "cell.tif", (16, 64, 64), 3, (16.0, 16.0, 16.0))
    wanted = Wanted(str(image), "classical", ("cluster.k=4", "cluster.sample=2000", "cluster.restarts=1"))
    return image, truth, segment(wanted, folder / "cell_seg.tif")


def test_vectors_lie_where_the_source_has_them(segmented):
    source = Wanted(str(segmented[0]), "classical", crop="2:10,0:32,8:40").vectors(Context())
    found = located(source, 40, 1, Context())
    assert found.vectors.shape == (40, source.dim)
    lattice = source.inside
    everything = source.values(lattice).numpy()
    for vector, place in zip(found.vectors, found.places, strict=True):
        along = [place[source.order[axis]] for axis in range(3)]
        index = [int(np.abs(p - at).argmin()) for p, at in zip(source.positions, along, strict=True)]
        assert all(p[i] == pytest.approx(at) for p, i, at in zip(source.positions, index, along, strict=True))
        inner = tuple(i - first for i, first in zip(index, lattice.start, strict=True))
        np.testing.assert_allclose(vector, everything[inner], atol=2e-3)


def test_a_page_shows_vectors_their_patches_and_objects(segmented, tmp_path):
    image, _, labels = segmented
    objects(open_labels(labels), tmp_path / "things.tif")
    beside = Beside(120, model="classical", objects=tmp_path / "things.csv")
    page, _ = parts(report(Subject(str(labels)), tmp_path / "r.html", beside=beside))
    points, painted, grey = page["points"], open_volume(labels), open_volume(image)
    seen, raw = painted.read(painted.box), grey.read(grey.box)
    at = np.array(points["at"])
    assert len(at) == 120 == len(points["x"]) and (np.abs(points["x"]) <= 1).all()
    assert points["classes"] == seen[tuple(at.T)].tolist()
    atlas = np.asarray(Image.open(io.BytesIO(base64.b64decode(points["patches"]))))
    inside = [i for i, (_, y, x) in enumerate(at) if 20 <= y < 44 and 20 <= x < 44]
    for i in inside[:3]:
        row, column = (PATCH * place for place in divmod(i, points["columns"]))
        z, y, x = at[i]
        patch = raw[z, y - 20 : y + 20, x - 20 : x + 20].astype(int)
        assert np.abs(atlas[row : row + PATCH, column : column + PATCH] - patch).mean() < 8
    assert inside and sum(one["count"] for one in page["objects"]["classes"]) == len(open_table(tmp_path))
    with pytest.raises(InputError, match="vectors of another model"):
        report(Subject(str(labels)), tmp_path / "s.html", beside=Beside(10, model="vemseg"))
    page, _ = parts(report(Subject(str(labels)), tmp_path / "s.html", beside=Beside(10)))
    assert page["points"] is None  # the bundled model did not make these labels


def test_stored_vectors_are_shown_and_clusters_have_names(segmented, tmp_path):
    image, _, labels = segmented
    part = Wanted(str(image), "classical", ("cluster.k=3", "cluster.restarts=1"), crop="0:4,0:32,0:32")
    features = embed(part, tmp_path / "cell.zarr")
    clusters = cluster([features], tmp_path / "classes.safetensors", names={2: "granule"})
    assert load(clusters).names == {1: "class 1", 2: "granule", 3: "class 3"}
    with pytest.raises(InputError, match="names for classes"):
        cluster([features], tmp_path / "no.safetensors", names={4: "granule"})
    small = segment(part, tmp_path / "small.tif")
    page, _ = parts(report(Subject(str(small)), tmp_path / "r.html", beside=Beside(30, str(features))))
    assert len(page["points"]["at"]) == 30 and page["extent"] == [4, 32, 32]
    page, _ = parts(report(Subject(str(labels)), tmp_path / "s.html", beside=Beside(30, str(features))))
    assert page["points"] is None  # they are of a part alone


def open_table(folder):
    return list(csv.DictReader((folder / "things.csv").read_text().splitlines()))


def test_distributions_are_those_of_the_table(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        (k, n, v, b)
        for k in (1, 3)
        for n, v, b in zip(rng.integers(1, 99, 50), rng.random(50), [0, 1] * 25, strict=True)
    ]
    table = tmp_path / "a.csv"
    lines = [
        "object,class,voxels,sphericity,touches_border",
        *(f"{i},{k},{n},{v},{b}" for i, (k, n, v, b) in enumerate(rows)),
    ]
    table.write_text("\n".join(lines))
    found = distributions(table)
    assert [one["key"] for one in found["measures"]] == ["voxels", "sphericity"]
    for one in found["classes"]:
        voxels = [n for k, n, _, _ in rows if k == one["label"]]
        assert one["count"] == 50 and one["touching"] == 25
        np.testing.assert_allclose(one["voxels"]["quartiles"], np.percentile(voxels, (25, 50, 75)), rtol=1e-5)
        round_ = [v for k, _, v, _ in rows if k == one["label"]]
        assert one["sphericity"]["bins"] == np.histogram(round_, 40, (0, 1))[0].tolist()
        assert sum(one["voxels"]["bins"]) == 50
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="as a table that 'vemseg objects' wrote"):
        distributions(table)


# In a browser


@pytest.fixture
def browser():
    """Return a page of a browser that keeps what goes wrong in ``page.failures``."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("the browser test needs Chromium on the path")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = running.new_page(viewport={"width": 1240, "height": 1400})
        page.failures = []
        page.on(
            "console",
            lambda said: page.failures.append(said.text) if said.type == "error" else None,
        )
        page.on("pageerror", lambda error: page.failures.append(str(error)))
        page.on("request", lambda asked: page.failures.append(asked.url) if asked.url[:4] == "http" else None)
        yield page
        running.close()


def dot(page, points, i):
    """Return where a vector lies on the screen."""
    box = page.locator("#scatter").bounding_box()
    width, height = box["width"], box["height"]
    x, y = points["x"][i] * (width / 2 - 26 * width / 520), points["y"][i] * (height / 2 - 26 * height / 440)
    return box["x"] + width / 2 + x, box["y"] + height / 2 - y


def painted(page):
    """Return the colours of the classes in the slice that is seen, uint8 (h, w, 4)."""
    code = (
        "(() => { const c = document.getElementById('paint'); return [c.height, c.width, "
        "Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]; })()"
    )
    height, width, data = page.evaluate(code)
    return np.array(data, np.uint8).reshape(height, width, 4)


@pytest.mark.slow
def test_the_whole_loop_in_a_browser(segmented, browser, tmp_path, monkeypatch):
    _, truth, labels = segmented
    objects(open_labels(labels), tmp_path / "things.tif")
    beside = Beside(150, model="classical", objects=tmp_path / "things.csv")
    out = report(Subject(str(labels)), tmp_path / "r.html", beside=beside)
    points = parts(out)[0]["points"]
    browser.goto(out.as_uri())
    browser.wait_for_selector("body[data-ready=yes]")
    shown = open_volume(labels)
    plane = shown.read(shown.box)[8]
    assert browser.inner_text("#where") == "z 8 of 16"
    seen = painted(browser)
    assert seen.shape[:2] == plane.shape and len({tuple(c) for c in seen[plane == 2]}) == 1

    browser.mouse.click(*dot(browser, points, 7))
    z, y, x = points["at"][7]
    assert f"at {z}, {y}, {x} (z, y, x)" in browser.inner_text("#picked-text")
    assert browser.inner_text("#where") == f"z {z} of 16"

    right, top = dot(browser, points, 20)
    corners = [(right + 25 * math.cos(a), top + 25 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 20)]
    places = np.array([dot(browser, points, i) for i in range(150)])
    within = np.hypot(*(places - (right, top)).T)
    browser.mouse.move(*corners[0])
    browser.mouse.down()
    for corner in corners[1:]:
        browser.mouse.move(*corner)
    browser.mouse.up()
    chosen = int(browser.inner_text("#lasso-text p").split()[0])
    assert (within < 23).sum() <= chosen <= (within < 26).sum() and chosen

    browser.fill("[aria-label='Name of class 1']", 'vesicle "dark"')
    browser.press("[aria-label='Name of class 1']", "Tab")
    browser.check("[aria-label='Tick class 3']")
    browser.check("[aria-label='Tick class 4']")
    browser.click("#merge")
    browser.fill("[aria-label='Name of class 3']", "cytosol")
    browser.press("[aria-label='Name of class 3']", "Tab")
    colour = browser.locator("[aria-label='Colour of class 3']")
    colour.evaluate("box => { box.value = '#123456'; box.dispatchEvent(new Event('change')); }")
    seen = painted(browser)
    now = shown.read(shown.box)[int(browser.inner_text("#where").split()[1])]
    assert (seen[(now == 3) | (now == 4)] == (0x12, 0x34, 0x56, 255)).all()
    with browser.expect_download() as saved:
        browser.click("#save")
    names = tmp_path / "names.toml"
    saved.value.save_as(names)
    assert not browser.failures

    said = parsing.legend(str(names))
    assert said.names == {1: 'vesicle "dark"', 3: "cytosol", 4: "cytosol"} and said.merges == [((3, 4), None)]
    assert said.colours[3] == said.colours[4] == (0x12, 0x34, 0x56)
    wanted = Refinement(said.merges, {}, said.names, colours=said.colours)
    refined = open_volume(refine(open_labels(labels), tmp_path / "named.ome.zarr", wanted))
    whole = shown.read(shown.box)
    np.testing.assert_array_equal(refined.read(refined.box), np.array([0, 1, 2, 3, 3])[whole])
    assert record(refined.address)["colours"]["3"] == [0x12, 0x34, 0x56]
    scores = evaluate(Comparison(str(refined.path), str(truth), names=said.names))
    assert scores.clusters == [1, 2, 3]
    monkeypatch.chdir(tmp_path)
    assert objects(open_labels(refined.path), Path("again.tif")).exists()
