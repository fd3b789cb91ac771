"""``refine`` and ``objects`` as processes of their own, one after the other."""

import csv

import numpy as np
import pytest
import tifffile


@pytest.fixture
def folder(tmp_path):
    """Return a folder with labels: two bodies of class 1, one of class 2 beside one of them, a speck."""
    array = np.zeros((20, 60, 60), np.uint8)
    array[4:14, 5:20, 5:20] = array[4:14, 30:50, 5:20] = 1
    array[4:14, 30:50, 20:40] = 2
    array[16, 55, 55] = 3
    tifffile.imwrite(
        tmp_path / "seg.tif",
        array,
        imagej=True,
        resolution=(0.1, 0.1),
        metadata={"spacing": 20, "unit": "nm"},
    )
    return tmp_path


def test_labels_are_refined_and_their_objects_measured(programs, folder):
    refined = programs.run(
        folder,
        *("refine", "seg.tif", "-o", "clean.ome.zarr", "--min-size", "0.00001um3"),
        *("--merge", "1,2=mitochondrion", "--names", "3=dust"),
    )
    assert (refined.code, refined.out) == (0, "clean.ome.zarr\n"), refined.err
    assert "1 mitochondrion, from 1 and 2; 2 dust, from 3" in refined.err.replace("\n", " ")
    measured = programs.run(
        folder, "objects", "clean.ome.zarr", "-o", "objects.tif", "--class", "mitochondrion"
    )
    assert (measured.code, measured.out) == (0, "objects.tif\n"), measured.err
    rows = list(csv.DictReader((folder / "objects.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["mitochondrion"] * 2
    assert [float(row["volume_um3"]) for row in rows] == pytest.approx([2250 * 2e-6, 7000 * 2e-6])
    assert tifffile.imread(folder / "objects.tif").max() == 2
    again = programs.run(folder, "objects", "clean.ome.zarr", "-o", "objects.tif", "--class", "mitochondrion")
    assert again.code == 0 and "is there already" in again.err


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (2, ["refine", "seg.tif", "-o", "o.png", "--fill-holes"], "name it .tif or .ome.zarr"),
        (2, ["refine", "seg.tif", "-o", "seg.tif", "--fill-holes"], "seg.tif is an input"),
        (2, ["refine", "seg.tif", "-o", "o.tif", "--merge", "2=x"], "'2=x' is not a merge"),
        (3, ["refine", "seg.tif", "-o", "o.tif", "--merge", "2,9"], "there is no class 9"),
        (3, ["refine", "none.tif", "-o", "o.tif", "--smooth", "1"], "none.tif"),
        (3, ["objects", "seg.tif", "-o", "o.tif", "--class", "4"], "there is no class '4'"),
        (4, ["objects", "seg.tif", "-o", "o.tif", "--max-memory", "1MiB"], "the least that works is"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(programs, code, words, said, folder):
    ended = programs.run(folder, "-q", *words)
    assert ended.code == code and said in ended.err
    assert "Traceback" not in ended.err and ended.out == ""
    assert [path.name for path in folder.iterdir()] == ["seg.tif"]
