"""The comparison of systems: lists name what exists, counts are right, a kill repeats nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from compare import command, details, experiments, places, plan, schedule, systems, tables, work  # noqa: E402
from counting import count, fit_all, labelled, lay  # noqa: E402
from pairs import open_pair  # noqa: E402

from vemseg.context import Context  # noqa: E402
from vemseg.errors import OutputExistsError, UsageError  # noqa: E402
from vemseg.models import open_model  # noqa: E402

COMMON = plan.Common(None, 32, (2, 3), (0, 1), None, "cpu", ("cluster.sample=500",))


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """Two blobs in noise, with labels, as a text that the comparison reads."""
    folder = tmp_path_factory.mktemp("cell")
    rng = np.random.default_rng(3)
    labels = np.zeros((6, 48, 48), np.uint8)
    labels[:, 8:24, 8:24], labels[1:3, 30:40, 30:40] = 1, 2
    grey = np.array([60, 130, 200])[labels] + rng.normal(0, 12, labels.shape)
    tifffile.imwrite(folder / "raw.tif", grey.clip(0, 255).astype(np.uint8))
    tifffile.imwrite(folder / "labels.tif", labels)
    mask = np.zeros(labels.shape, np.uint8)
    mask[:, 4:40] = 255
    tifffile.imwrite(folder / "mask.tif", mask)
    (folder / "raw_classes.toml").write_text('0 = "rest"\n1 = "square"\n2 = "speck"\n')
    return f"blobs={folder}/raw.tif,{folder}/labels.tif@16,16,16"


def planned(folder, cell, names=("classical",), common=COMMON, slices=(1,), seeds=(0,)):
    known = systems.known_systems()
    chosen = systems.chosen(names, slices, known)
    return plan.Plan(folder, common, chosen, [places.place_of(cell, common.crop, folder)], seeds)


def options(*words):
    return command._parser().parse_args([str(word) for word in words])


# What the lists name exists


@pytest.mark.parametrize("name", ["smoke", "cpu", "gpu"])
def test_settings_name_systems_recipes_and_settings_that_exist(tmp_path, name):
    found, _ = command._plan(options(tmp_path, "--setting", name))
    found.check()
    assert {one.kind for one in found.tasks} == {"train", "score"}
    for task in found.tasks:
        if task.kind == "train":
            assert work.words_of(found, task)[0] in ("train", "segment")


@pytest.mark.parametrize("name", experiments.names())
def test_experiments_name_what_exists_and_say_what_differs(tmp_path, name, capsys):
    found, heading = command._plan(options(tmp_path, "--experiment", name, "--betaseg", tmp_path))
    found.check()
    one = experiments.read(name)
    assert len(one.differs) > 3 and one.published.keys() <= {system.name for system in one.systems}
    values = [value for row in one.published.values() for value in row.values()]
    assert values and all(0 < value < 1 for value in values)
    assert command._show(found, heading) == 0
    shown = capsys.readouterr().out
    assert one.title in shown and one.differs[0] in shown and f"{one.learnt[0]}_source.tif" in shown
    for line in shown.splitlines():  # but for the names of classes, a planned command is the real one
        assert line.count(" --labels ") == line.count(" --mask ")
        assert line.count(" --labels ") in (0, len(one.learnt))


def test_every_published_table_is_an_experiment():
    assert set(experiments.names()) == {
        *("maester-2", "maester-3", "maester-4", "his4mae-3", "his4mae-codebook", "sccs-1", "sccs-2"),
        *("han-1", "han-1-fold-1", "han-1-fold-2", "han-1-fold-3"),
    }


def test_trainings_of_a_paper_are_as_long_as_it_says(tmp_path):
    lengths = {
        "han-1": (46_875, "han2022-2m"),
        "his4mae-3": (55_300, "his4mae-700"),
        "sccs-1": (6_000, "sccs-mae"),
    }
    for name, (steps, system) in lengths.items():
        one = experiments.read(name)
        assert one.known[system].recipe().train.steps == steps or any(
            text == f"train.steps={steps}" for text in one.known[system].set
        )


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"train": "maester", "model": "vemseg"}, "give one of"),
        ({}, "give one of"),
        ({"train": "maester", "sett": []}, "unknown keys sett"),
    ],
)
def test_a_system_that_says_too_much_or_too_little_is_refused(table, complaint):
    with pytest.raises(UsageError, match=complaint):
        systems.System.read("x", table)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--systems", "clasical", "--volumes", "a=b,c", "--samples", "3"], "no system 'clasical'"),
        (["--systems", "classical", "--volumes", "a=b,c"], "how long trainings are"),
        (["--systems", "classical", "--samples", "3"], "name the volumes"),
        (["--setting", "big"], "no setting 'big'"),
        (["--experiment", "maester-9"], "no experiment 'maester-9'"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "out"), *words])
    assert command.main() == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_setting_that_does_not_exist_is_refused_before_anything_begins(tmp_path, cell, monkeypatch, capsys):
    words = ["--systems", "classical", "--volumes", cell, "--samples", "3", "--set", "cluster.smaple=3"]
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "out"), *words])
    assert command.main() == 2
    assert "smaple" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# What is to be done


def test_a_system_on_another_needs_its_training_and_repeats_nothing(tmp_path, cell):
    found = planned(tmp_path, cell, ["maester-quick", "sccs", "slic-kmeans", "classical"], seeds=(0, 1))
    keys = [task.key for task in found.tasks]
    assert len(keys) == len(set(keys)) and keys.count("train.blobs.maester-quick.0") == 1
    needs = {task.key: [one.key for one in found.needs(task)] for task in found.tasks}
    assert needs["train.blobs.sccs.1"] == ["train.blobs.maester-quick.1"]
    assert needs["score.blobs.sccs.1"] == ["train.blobs.maester-quick.1", "train.blobs.sccs.1"]
    assert needs["score.blobs.slic-kmeans.0"] == ["train.blobs.maester-quick.0"]
    assert needs["score.blobs.classical.0"] == [] and "score.blobs.classical.1" not in keys


def test_a_labeller_on_bundled_weights_is_trained_on_these_though_a_system_has_their_name(tmp_path, cell):
    found = planned(tmp_path, cell, ["vemseg", "sccs-vemseg"])
    (training,) = (task for task in found.tasks if task.kind == "train")
    words = work.words_of(found, training)
    assert words[words.index("--encoder") + 1] == "vemseg"


def test_budgets_are_equal_and_said_to_vemseg(tmp_path, cell):
    found = planned(tmp_path, cell, ["maester-quick", "han2022-quick"])
    words = [work.words_of(found, task) for task in found.tasks if task.kind == "train"]
    assert ["train.steps=2" in words[0], "train.steps=1" in words[1]] == [True, True]  # batches of 16 and 32
    timed = plan.Common(0.5, None, (2,), (0,), "0:4,0:48,0:48", "cpu", ())
    found = planned(tmp_path, cell, ["maester-quick"], timed)
    words = work.words_of(found, found.tasks[0])
    assert (
        words[words.index("--max-time") + 1] == "30s" and words[words.index("--crop") + 1] == "0:4,0:48,0:48"
    )


def test_other_settings_are_refused_and_more_systems_and_seeds_are_not(tmp_path, cell):
    planned(tmp_path, cell).settle()
    planned(tmp_path, cell, ["classical", "maester-quick"], seeds=(0, 1)).settle()
    planned(tmp_path, cell, ["vemseg"]).settle()
    kept = json.loads((tmp_path / plan.SETTINGS).read_text())
    assert set(kept["systems"]) == {"classical", "maester-quick", "vemseg"}
    other = plan.Common(None, 64, (2, 3), (0, 1), None, "cpu", ("cluster.sample=500",))
    with pytest.raises(OutputExistsError, match="samples: 32 there, 64 now"):
        planned(tmp_path, cell, common=other).settle()
    changed = planned(tmp_path, cell, ["maester-quick"])
    settings = tmp_path / plan.SETTINGS
    there = settings.read_text()
    for name, key in (("maester-quick", "recipe"), ("vemseg", "models")):
        facts = json.loads(there)
        facts["systems"][name][key] = "another"  # as if the recipe or the weights had changed since
        settings.write_text(json.dumps(facts))
        with pytest.raises(OutputExistsError, match=f"system {name}: changed"):
            planned(tmp_path, cell, [name]).settle()
    settings.write_text(there)
    object.__setattr__(changed.systems[0], "set", ("train.warmup=0.3",))
    with pytest.raises(OutputExistsError, match="system maester-quick: changed"):
        changed.settle()
    raw = Path(places.parts_of(cell)[1])
    before = raw.read_bytes()
    try:
        raw.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(OutputExistsError, match="volume blobs: changed"):
            planned(tmp_path, cell).settle()
    finally:
        raw.write_bytes(before)


def test_labelled_slices_show_most_classes_and_the_others_are_unknown(tmp_path, cell):
    place = places.place_of(cell, None, tmp_path)
    pair = place.open()
    assert places.labelled_slices(pair, 1) == [2]  # the speck is in slices 1 and 2; 2 is nearer to the middle
    assert places.labelled_slices(pair, 3) == [1, 2, 4]
    assert places.labelled_slices(pair, 10) == list(range(6))
    (paths, masks), names = place.lesson_files(1, tmp_path), place.lessons(1, tmp_path)
    labels, reference = tifffile.imread(paths[0]), tifffile.imread(places.parts_of(cell)[2])
    assert (labels[2] == reference[2]).all() and (np.delete(labels, 2, 0) == places.UNKNOWN).all()
    assert masks == [] and names == {0: "rest", 1: "square", 2: "speck"}


# What is counted


@pytest.mark.parametrize("settings", [[], ["regions.method=slic", "regions.size=30"]])
def test_counts_are_those_of_the_labels_that_segment_gives(cell, settings):
    pair, context = open_pair(cell, "1:4,4:36,4:44"), Context("cpu", 1)
    source, regions = lay(
        open_model("classical", [*settings, "cluster.sample=300", "cluster.restarts=1"]), pair, context
    )
    ks = (2, 3, 200) if settings else (2, 3)  # there are fewer than 200 regions
    labellers, refused = fit_all(regions or source, ks, (0,), context)
    counts = count(pair, labelled(source, regions, labellers, context))
    reference = pair.reference.read(pair.reference.box)
    assert set(counts) == {(2, 0), (3, 0)} and set(refused) == ({(200, 0)} if settings else set())
    for (k, seed), found in counts.items():
        slow = np.zeros((3, k, 3), np.int64)
        taken = regions or source
        labels = taken.labels(pair.grey.box, taken.read(pair.grey.box), labellers[k, seed])
        for place, label in np.ndenumerate(labels):
            slow[place[0], label - 1, reference[place]] += 1
        assert (found == slow).all()


def test_only_voxels_inside_the_mask_are_counted_and_learned(cell, tmp_path):
    masked = cell.replace("/labels.tif", "/labels.tif," + places.parts_of(cell)[1].replace("raw", "mask"))
    place = places.place_of(masked, None, tmp_path)
    pair = place.open()
    labels = np.ones(pair.grey.shape, np.uint8)
    counts = count(pair, [(pair.grey.box, (1, 0), labels)])[1, 0]
    inside, reference = pair.mask.read(pair.grey.box) > 0, pair.reference.read(pair.grey.box)
    assert counts.sum(axis=0).tolist() == [np.bincount(reference[inside], minlength=3).tolist()]
    place.lessons(1, tmp_path)
    learned = tifffile.imread(place.lesson_files(1, tmp_path)[0][0])[2]
    assert (learned[inside[2]] == reference[2][inside[2]]).all()
    assert (learned[~inside[2]] == places.UNKNOWN).all()


def by_hand(names=None):
    """A cell of two slices: a labeller of three clusters and the classes rest and square."""
    slices = [[[50, 0], [0, 30], [10, 10]], [[0, 0], [0, 0], [0, 100]]]
    return tables.Cell(
        {
            "title": "by hand",
            "seed": 0,
            "classes": {"0": "rest", "1": "square"},
            "labelled_slices": [],
            "drawn": [3, 0],
            "training": {},
            "seconds": 1.0,
            "machine": {"revision": "0a1b"},
            "counts": [{"k": 3, "seed": 0, "names": names, "slices": slices}],
        }
    )


def test_scores_follow_the_protocols_and_leave_slices_out():
    scores = {one["protocol"]: one["dice"] for one in by_hand().scores([1])}
    assert scores["hungarian"] == {"rest": round(100 / 110, 4), "square": round(60 / 70, 4)}
    assert scores["greedy"] == {"rest": round(100 / 110, 4), "square": round(80 / 90, 4)}
    both = {one["protocol"]: one["dice"] for one in by_hand().scores([])}
    assert both["hungarian"]["square"] == round(220 / 260, 4)  # now the third cluster is the square


def test_classes_with_names_are_taken_by_name_and_what_has_none_is_the_rest():
    named = by_hand(["square", "cytosol", "rest"])
    (only,) = named.scores([1])
    assert only["protocol"] == "names"
    assert only["dice"] == {"rest": round(20 / 110, 4), "square": 0.0}


@pytest.mark.parametrize("name", ["cytoplasm", "cytosol"])
def test_a_class_may_have_the_name_of_the_reference_or_of_the_default(name):
    cell = by_hand(["square", name, name])
    cell.facts["classes"] = {"0": "cytoplasm", "1": "square"}
    (only,) = cell.scores([1])
    assert only["dice"] == {"cytoplasm": round(20 / 110, 4), "square": 0.0}


def test_tables_hold_each_system_and_name_what_is_missing(tmp_path, cell):
    found = planned(tmp_path, cell, ["classical", "vemseg"])
    task = found.cells[0]
    task.cell.parent.mkdir(parents=True)
    task.cell.write_text(json.dumps(by_hand().facts))
    outcome = schedule.Outcome(failed={found.cells[1].key: "exit code 4: no memory"})
    text = tables.write(found, outcome).read_text()
    row = next(line for line in text.splitlines() if line.startswith("| by hand | hungarian"))
    assert [part.strip() for part in row.strip("|").split("|")][2:6] == [
        "0.668",
        "0.668",
        "0.625",
        "0.846",
    ] or row
    assert "Made by vemseg of revision 0a1b (1 cells)." in text
    assert "1 of 2 cells" in text and "score.blobs.vemseg.0: exit code 4: no memory" in text
    report = json.loads((tmp_path / "compare.json").read_text())
    assert {one["protocol"] for one in report["results"]} == {"hungarian", "greedy"}


def test_details_hold_dice_slice_by_slice_and_what_classes_are_taken_for(tmp_path, cell):
    found = planned(tmp_path, cell)
    found.cells[0].cell.parent.mkdir(parents=True)
    labelled = {**by_hand().facts, "labelled_slices": []}
    found.cells[0].cell.write_text(json.dumps(labelled))
    details.write_details(found)
    text = (tmp_path / "compare_details.md").read_text()
    assert "| by hand | 3 | 0.91, 0.91, 0.91 | 0.89, 0.94, 1.00 |" in text
    assert "| by hand | 3 | rest | 83 | 17 | 0 |" in text
    assert "| by hand | 3 | square | 0 | 100 | 0 |" in text
    labelled["labelled_slices"] = [1]
    found.cells[0].cell.write_text(json.dumps(labelled))
    details.write_details(found)
    assert "0.89, 0.89, 0.89 |" in (tmp_path / "compare_details.md").read_text()


def test_what_needs_a_failed_training_is_given_up(tmp_path, cell):
    found = planned(tmp_path, cell, ["sccs"])
    waiting = {task.key: task for task in found.tasks}
    outcome = schedule.Outcome(failed={"train.blobs.maester-quick.0": "exit code 1"})
    waiting.pop("train.blobs.maester-quick.0")
    assert schedule._ready(found, waiting, {}, outcome) == []
    assert outcome.failed["score.blobs.sccs.0"] == "needs train.blobs.maester-quick.0" and not waiting


# Real processes


def compare(folder, cell, *more, wait=True):
    words = [sys.executable, str(ROOT / "benchmarks" / "compare"), str(folder), "--volumes", cell]
    words += ["--systems", "classical", "maester-quick", "--samples", "16", "--k", "2", "--seeds", "0", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    if not wait:
        return started
    out, err = started.communicate(timeout=800)
    return SimpleNamespace(code=started.returncode, out=out, err=err)


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_repeats_no_finished_cell(tmp_path, cell):
    folder = tmp_path / "out"
    first = folder / "cells" / "blobs" / "classical.0.json"
    started = compare(folder, cell, wait=False)
    while not first.exists():
        assert started.poll() is None, started.stderr.read()
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    before = (first.read_bytes(), first.stat().st_ino, first.stat().st_mtime_ns)
    ended = compare(folder, cell)
    assert ended.code == 0, ended.err
    assert (first.read_bytes(), first.stat().st_ino, first.stat().st_mtime_ns) == before
    assert "score.blobs.classical.0" not in ended.err and "done: score.blobs.maester-quick.0" in ended.err
    assert "| maester-quick | greedy |" in (folder / "compare.md").read_text()
    assert (folder / "pictures" / "blobs.png").stat().st_size > 1000


@pytest.mark.slow
def test_changed_settings_end_in_one_line(tmp_path, cell):
    scored = ("cluster.sample=100000",)  # what the command takes where --set is left out
    planned(tmp_path, cell, common=plan.Common(None, 16, (2,), (0,), None, "cpu", scored)).settle()
    refused = compare(tmp_path, cell, "--samples", "32")
    assert refused.code == 6 and "there, 32 now" in refused.err and refused.err.count("\n") == 1


@pytest.mark.slow
def test_nothing_is_begun_after_the_time_and_what_fails_is_told(tmp_path, cell):
    ended = compare(tmp_path / "none", cell, "--max-time", "0.001s")
    assert ended.code == 0 and "begins" not in ended.err
    assert "2 of 2 cells" in (tmp_path / "none" / "compare.md").read_text()
    failed = compare(tmp_path / "failed", cell, "--crop", "0:6,0:8,0:8")
    assert failed.code == 1 and "failed: train.blobs.maester-quick.0: exit code" in failed.err
    assert "needs train.blobs.maester-quick.0" in (tmp_path / "failed" / "compare.md").read_text()
