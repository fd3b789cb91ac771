import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from vemseg import drawing
from vemseg.drawing import colours, layout, pictures, pixels, plots
from vemseg.drawing.pictures import MASKED
from vemseg.errors import InputError, UsageError

ORANGE, SKY_BLUE = (230, 159, 0), (86, 180, 233)


def slab(shape=(20, 40, 60)):
    """A volume of grey noise and labels 0, 1, 2 in thirds along x."""
    raw = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.broadcast_to(np.arange(shape[2]) * 3 // shape[2], shape).astype(np.uint8)
    return raw, labels


def planes(volume, z=0, y=0, x=0):
    return volume[z], volume[:, y], volume[:, :, x]


def inches(axes):
    return axes.get_position().size * axes.figure.get_size_inches()


def legend_names(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def scale_bars(axes):
    return [patch for patch in axes.patches if patch.get_gid() == "scale bar"]


def picture(figure, tmp_path, dpi=100):
    drawing.save(figure, tmp_path / "picture.png", dpi=dpi)
    return np.asarray(Image.open(tmp_path / "picture.png").convert("RGB"))


def longest_run(row):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return int(np.max(edges[1::2] - edges[::2], initial=0))


# -- colours and pixels --


def test_palette_is_stable_and_distinct():
    everything = drawing.palette(255)
    assert len(everything) == len(set(everything)) == 255
    for n in (0, 1, 8, 9, 60):
        assert drawing.palette(n) == everything[:n]
    okabe_ito = {"e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7", "000000"}
    assert {colours.css(c)[1:] for c in everything[:8]} == okabe_ito
    with pytest.raises(UsageError, match="256 colours"):
        drawing.palette(256)


def test_generated_colours_are_neither_grey_nor_alike():
    generated = np.array(drawing.palette(40)[8:], dtype=float)
    assert (np.ptp(generated, axis=1) > 25).all()
    apart = np.linalg.norm(generated[:, None] - generated, axis=-1)[np.triu_indices(32, 1)]
    assert apart.min() > 40


def test_overlay_mixes_pixel_by_pixel():
    raw = np.array([[0, 100, 200]], dtype=np.uint8)
    labels = np.array([[0, 1, 2]])
    image = drawing.overlay(raw, labels, alpha=0.5)
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0, 0, 0], [165, 130, 50], [143, 190, 216]]]
    assert drawing.overlay(raw, labels, alpha=1.0)[0, 1:].tolist() == [list(ORANGE), list(SKY_BLUE)]
    assert raw.tolist() == [[0, 100, 200]], "the input must stay as it was"


def test_contour_is_the_rim_inside_a_region():
    labels = np.zeros((9, 9), dtype=np.uint8)
    labels[2:7, 2:7] = 1
    painted = drawing.overlay(np.zeros((9, 9), np.uint8), labels, style="contour", alpha=1.0).any(-1)
    rim = labels == 1
    rim[3:6, 3:6] = False
    np.testing.assert_array_equal(painted, rim)
    large = np.zeros((600, 600), np.uint8)
    large[100:500, 100:500] = 1
    thick = drawing.overlay(large * 0, large, style="contour", alpha=1.0).any(-1)
    assert thick.sum() == 400**2 - 396**2
    at_edge = drawing.overlay(np.zeros((9, 9), np.uint8), labels * 0 + 1, style="contour", alpha=1.0)
    assert not at_edge.any(), "the edge of the image is no border"


def test_grey_keeps_uint8_and_stretches_the_rest():
    bytes_ = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(drawing.grey(bytes_), bytes_)
    wide = drawing.grey(np.linspace(1000, 3000, 10001).astype(np.uint16))
    assert (wide.min(), wide.max()) == (0, 255)
    assert wide[5000] in (127, 128)
    assert drawing.grey(np.array([0.0, 0.5, 2.0, np.nan]), (0.0, 1.0)).tolist() == [0, 128, 255, 0]
    assert drawing.grey(np.full((3, 3), 7.0)).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 4), int), r"raw \(3, 3\), labels \(3, 4\): shapes differ"),
        (np.full((3, 3), 256), r"labels 256\.\.256 do not fit 255 colours"),
        (np.full((3, 3), -1), r"labels -1\.\.-1 do not fit"),
    ],
)
def test_overlay_names_what_is_wrong(labels, message):
    with pytest.raises(InputError, match=message):
        drawing.overlay(np.zeros((3, 3), np.uint8), labels)


def test_error_map_colours_each_case():
    labels, reference = np.array([[0, 1, 1, 0, 2]]), np.array([[0, 1, 0, 1, 1]])
    assert [tuple(c) for c in drawing.error_map(labels, reference)[0].tolist()] == [
        *pixels.ERROR_COLOURS.values()
    ]


# -- scale bars --


@pytest.mark.parametrize(
    ("width", "pixel", "length", "text"),
    [
        (100, 10.0, 20.0, "200 nm"),
        (200, 20.0, 50.0, "1 µm"),
        (1082, 16.0, 125.0, "2 µm"),
        (80, 16.0, 12.5, "200 nm"),
        (400, None, 100.0, "100 px"),
        (80, None, 20.0, "20 px"),
    ],
)
def test_scale_bar_length(width, pixel, length, text):
    found, label = drawing.scale_bar_length(width, pixel)
    assert (found, label) == (pytest.approx(length), text)


def test_scale_bars_are_round_and_a_tenth_to_a_quarter_of_the_width():
    rng = np.random.default_rng(3)
    for width, pixel in zip(rng.integers(16, 5000, 300), rng.uniform(0.5, 900, 300), strict=True):
        length, text = drawing.scale_bar_length(int(width), float(pixel))
        assert 0.0999 <= length / width <= 0.2501
        number, unit = text.split()
        assert float(number) * {"nm": 1, "µm": 1000}[unit] == pytest.approx(length * pixel)
        assert f"{float(number):e}"[0] in "125"


def test_scale_bar_has_its_length_in_the_written_image(tmp_path):
    black = np.zeros((1, 100, 200), np.uint8)
    image = picture(drawing.montage(black, None, [0], (20.0, 20.0)), tmp_path, dpi=200)
    dark, white = (image < 60).all(-1), (image > 250).all(-1)
    left, right = np.flatnonzero(dark.any(0))[[0, -1]]
    top, bottom = np.flatnonzero(dark.any(1))[[0, -1]]
    inside = white[top + 30 : bottom, left : right + 1]
    assert max(longest_run(row) for row in inside) == pytest.approx((right - left + 1) * 50 / 200, abs=4)


# -- pictures --


@pytest.mark.parametrize("voxel_size", [(50.0, 5.0, 10.0), (4.0, 4.0, 4.0), None])
def test_three_planes_keep_physical_proportions(voxel_size):
    raw, labels = slab()
    figure = drawing.three_planes(planes(raw), planes(labels), voxel_size)
    dz, dy, dx = voxel_size or (1, 1, 1)
    assert len(figure.axes) == 6
    scale = inches(figure.axes[0])[0] / (60 * dx)
    for axes, size in zip(
        figure.axes, 2 * [(60 * dx, 40 * dy), (60 * dx, 20 * dz), (20 * dz, 40 * dy)], strict=True
    ):
        np.testing.assert_allclose(inches(axes), np.multiply(size, scale), rtol=1e-6)
    assert max(figure.get_size_inches()) <= layout.PAGE_HEIGHT + 1e-6


def test_three_planes_show_the_planes():
    raw, labels = slab()
    figure = drawing.three_planes(
        planes(raw, 3, 7, 50),
        planes(labels, 3, 7, 50),
        (8, 5, 4),
        {2: "granule"},
        manner=drawing.Manner(alpha=1),
    )
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown[0], raw[3])
    np.testing.assert_array_equal(shown[1], raw[:, 7])
    np.testing.assert_array_equal(shown[2], raw[:, :, 50].T)
    assert shown[5].shape == (40, 20, 3)
    assert (shown[5] == SKY_BLUE).all()
    np.testing.assert_array_equal(shown[3][:, :20], np.repeat(raw[3, :, :20, None], 3, -1))
    assert legend_names(figure) == ["class 1", "granule"]
    assert [len(scale_bars(axes)) for axes in figure.axes] == [1, 0, 0, 1, 0, 0]
    assert scale_bars(figure.axes[0])[0].get_width() == drawing.scale_bar_length(60, 4)[0] == 12.5


def test_three_planes_of_one_slice_is_one_plane():
    raw, labels = slab((1, 40, 60))
    figure = drawing.three_planes(planes(raw), planes(labels), (50, 5, 5), position=(0, 20, 30))
    assert len(figure.axes) == 2


def test_three_planes_mark_where_they_cross():
    raw, labels = slab()
    figure = drawing.three_planes(planes(raw), planes(labels), position=(3, 7, 50))
    at = [(axes.lines[0].get_ydata()[0], axes.lines[1].get_xdata()[0]) for axes in figure.axes[:3]]
    assert at == [(7, 50), (3, 50), (7, 3)]
    assert not any(axes.lines for axes in figure.axes[3:]), "labels are drawn without lines"


def test_three_planes_refuse_planes_of_different_volumes():
    raw, _ = slab()
    mixed = (raw[0], raw[:, 0], raw[:5, :, 0])
    with pytest.raises(InputError, match="of one volume"):
        drawing.three_planes(mixed, mixed)


def test_montage_is_a_titled_grid(monkeypatch):
    monkeypatch.setattr(pictures, "COLUMNS", 3)
    raw, labels = slab()
    at = [0, 4, 8, 12, 16]
    figure = drawing.montage(raw[at], labels[at], at, (5, 10), {1: "a", 2: "b"})
    assert len(figure.axes) == 5
    assert [t.get_text() for t in figure.texts] == [f"z = {z}" for z in at]
    wide, high = inches(figure.axes[0])
    assert high / wide == pytest.approx(40 * 5 / (60 * 10))
    boxes = [axes.get_position() for axes in figure.axes]
    assert boxes[0].x0 == boxes[3].x0 < boxes[1].x0 < boxes[2].x0
    assert boxes[0].y0 == boxes[2].y0 > boxes[3].y1
    assert legend_names(figure) == ["a", "b"]
    assert [len(scale_bars(axes)) for axes in figure.axes] == [0, 0, 0, 0, 1]


def test_montage_stretches_all_slices_alike():
    raw = np.stack([np.full((8, 8), 100), np.full((8, 8), 900)]).astype(np.uint16)
    figure = drawing.montage(raw, None, [0, 1])
    assert [int(axes.images[0].get_array().mean()) for axes in figure.axes] == [0, 255]
    assert figure.axes[1].texts[0].get_text() == "2 px"


def test_a_long_legend_says_how_many_more():
    labels = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)
    names = legend_names(drawing.montage(labels, labels, [0]))
    assert len(names) == layout.MOST_ENTRIES + 1
    assert names[-1] == "and 59 more"


def test_comparison_panels_and_legends():
    raw, labels = slab()
    reference = labels.copy()
    reference[:, :5] = 0
    figure = drawing.comparison(raw[0], labels[0], reference[0], {1: "er", 2: "golgi"}, (4, 4))
    assert [t.get_text() for t in figure.texts] == ["input", "prediction", "reference", "error"]
    assert legend_names(figure) == ["er", "golgi", "correct, background", "correct, class", "false positive"]
    error = figure.axes[3].images[0].get_array()
    np.testing.assert_array_equal(error, drawing.error_map(labels[0], reference[0]))
    assert (error[:5, 20:] == pixels.ERROR_COLOURS["false positive"]).all()


def test_legends_lie_below_the_panels_and_inside_the_page():
    raw, labels = slab()
    names = {1: "a long name of a class", 2: "another name that is long"}
    for figure in (
        drawing.three_planes(planes(raw), planes(labels), (9, 4, 4), names),
        drawing.montage(raw[:6], labels[:6], range(6), names=names),
        drawing.comparison(raw[0], labels[0], labels[0] * 0, names),
    ):
        figure.canvas.draw()
        floor = min(axes.get_window_extent().y0 for axes in figure.axes)
        boxes = [legend.get_window_extent() for legend in figure.legends]
        assert all(box.y1 < floor and box.y0 >= 0 for box in boxes)
        assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(boxes))


@pytest.mark.parametrize(("n", "across"), [(1, 3), (3, 3), (4, 6), (9, 9)])
def test_reconstructions_are_triplets(n, across):
    images = np.random.default_rng(1).random((n, 10, 10))
    masked = images.copy()
    masked[:, :5] = np.nan
    figure = drawing.reconstructions(images, masked, images + 5)
    assert len(figure.axes) == 3 * n
    assert len({round(axes.get_position().x0, 6) for axes in figure.axes}) == across
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert (shown[1][:5] == MASKED).all()
    np.testing.assert_array_equal(shown[1][5:], shown[0][5:])
    assert (shown[2] == 255).all(), "values above 1 are white"
    assert [t.get_text() for t in figure.texts][:3] == ["input", "masked", "reconstruction"]


# -- plots --


def test_confusion_writes_shares_and_counts():
    counts = np.array([[3, 1], [0, 4_500_000], [0, 0]])
    rows, columns = ["er", "golgi", "unassigned"], ["er", "golgi"]

    def cells(**options):
        axes = drawing.confusion(counts, rows, columns, **options).axes[0]
        assert [t.get_text() for t in axes.get_yticklabels()] == rows
        assert [t.get_text() for t in axes.get_xticklabels()] == columns
        return [t.get_text() for t in axes.texts]

    assert cells() == ["3", "1", "0", "4.5M", "0", "0"]
    assert cells(normalise="row") == ["0.75", "0.25", "0.00", "1.00", "0.00", "0.00"]
    assert cells(normalise="column") == ["1.00", "0.00", "0.00", "1.00", "0.00", "0.00"]
    with pytest.raises(InputError, match="2 row and 2 column names"):
        drawing.confusion(counts, rows[:2], columns)


def test_confusion_of_many_clusters_has_a_colour_bar_instead_of_numbers():
    figure = drawing.confusion(np.ones((255, 4), int), [str(p) for p in range(255)], list("abcd"), "row")
    assert not figure.axes[0].texts
    assert figure.axes[1].get_ylabel() == "share"
    assert len(figure.axes[0].get_yticklabels()) < 60


@pytest.mark.parametrize(
    ("n", "text"), [(7, "7"), (999, "999"), (1234, "1.23k"), (10**7, "10M"), (3 * 10**9, "3G")]
)
def test_counts_are_short(n, text):
    assert plots._short(n) == text


def test_moving_average_equals_the_weighted_mean():
    values = np.array([3.0, 1.0, np.nan, 4.0, 1.0, 5.0])
    smooth = plots.moving_average(values, 0.8)
    seen = []
    for value, found in zip(values, smooth, strict=True):
        if np.isnan(value):
            assert np.isnan(found)
            continue
        seen.append(value)
        weights = 0.8 ** np.arange(len(seen))[::-1]
        assert found == pytest.approx(np.average(seen, weights=weights))
    np.testing.assert_array_equal(plots.moving_average(values, 0.0), values)


def test_curve_draws_losses_and_learning_rate():
    steps = np.arange(50)
    losses = {"reconstruction": 1.0 / (1 + steps), "codebook": 2.0 / (1 + steps)}
    figure = drawing.curve(steps, losses, lr=np.full(50, 3e-4))
    left, right = figure.axes
    labelled = [f"{name}, {way}" for name in losses for way in ("smoothed", "each step")]
    assert [line.get_label() for line in left.lines] == labelled
    np.testing.assert_allclose(
        left.lines[0].get_ydata(), plots.moving_average(losses["reconstruction"], 0.95)
    )
    np.testing.assert_array_equal(left.lines[1].get_ydata(), losses["reconstruction"])
    assert right.get_ylim()[0] == 0
    assert 3e-4 < right.get_ylim()[1] < 4e-4
    named = [text.get_text() for text in left.get_legend().get_texts()]
    assert named == [*labelled, "learning rate"]
    assert len(drawing.curve(steps, 1.0 / (1 + steps), smoothing=0).axes[0].lines) == 1


def test_slice_dice_leaves_gaps_and_empty_classes_out():
    dice = np.array([[0.9, np.nan, 0.5], [0.8, np.nan, np.nan], [0.7, np.nan, 0.6]])
    axes = drawing.slice_dice(dice, {0: "rest", 2: "golgi"}).axes[0]
    assert [line.get_label() for line in axes.lines] == ["rest", "golgi"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), dice[:, 2])
    assert list(axes.lines[1].get_xdata()) == [0, 1, 2]
    np.testing.assert_allclose(to_rgb(axes.lines[1].get_color()), np.array(SKY_BLUE) / 255, atol=1e-3)


def test_number_curve_draws_each_measure_its_spread_and_the_choice():
    lines = {"stability": [0.9, 0.8, 0.4], "information": [0.2, 0.3, 0.3]}
    axes = drawing.number_curve([3, 4, 5], lines, {"stability": [0.1, 0.0, 0.2]}, 4).axes[0]
    assert set(axes.lines[0].get_xdata()) == {4}
    for line, (name, values) in zip(axes.lines[1:], lines.items(), strict=True):
        assert (line.get_label(), list(line.get_ydata())) == (name, values)
    (band,) = axes.collections
    extent = band.get_paths()[0].get_extents()
    assert (extent.x0, extent.x1) == (3, 5) and (extent.y0, extent.y1) == pytest.approx((0.2, 1.0))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(lines)


# -- files --


def test_saved_png_is_white_decodes_and_names_its_maker(tmp_path):
    raw, labels = slab()
    path = tmp_path / "qc.png"
    drawing.save(drawing.three_planes(planes(raw), planes(labels)), path, dpi=60)
    with Image.open(path) as image:
        image.load()
        assert image.info["Software"] == "vemseg"
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert 380 < image.width < 440
    assert [p.name for p in tmp_path.iterdir()] == ["qc.png"]


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for suffix in ("png", "pdf", "svg"):
        for name in "ab":
            drawing.save(drawing.curve(np.arange(5), np.arange(5)), tmp_path / f"{name}.{suffix}", dpi=50)
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "qc.png"
    path.write_bytes(b"old")

    def broken(self, target, **options):
        target.write_bytes(b"half a pict")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        drawing.save(layout.new_figure(1, 1), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["qc.png"]


def test_save_names_the_formats_it_knows(tmp_path):
    with pytest.raises(UsageError, match=r"'qc\.bmp'.*\.png, \.pdf, \.svg"):
        drawing.save(layout.new_figure(1, 1), tmp_path / "qc.bmp")


def test_no_pyplot_is_loaded():
    code = "import sys, vemseg.drawing as d; d.palette(20); sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
