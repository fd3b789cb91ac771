"""Every command on a small volume: its arguments, and how to look at what it does from outside."""

import re

import tifffile

SIZES = {"fov": 32, "view": 24, "slices": 4, "widths": [6, 8], "layers": 1, "dim": 5}
TINY = [
    *(f"--set=model.{key}={value}" for key, value in SIZES.items()),
    *("--batch-size=2", "--set=train.log_every=1", "--set=train.precision=fp32"),
]
OUT = {
    "fetch": "cell.tif",
    "train": "run",
    "embed": "cell.zarr",
    "cluster": "three.safetensors",
    "segment": "labels.tif",
    "evaluate": "scores.json",
    "render": "pictures",
}
VERBS = list(OUT)
LONG = ["train", "embed", "segment"]
"""Commands that save their state."""

CHATTY = {"vemseg.cli.progress.SHORTEST_SECONDS": 0.0, "vemseg.cli.progress.RUSH_SECONDS": 0.0}
"""Settings by which every report gives a line, however quickly they follow each other."""

SMALL_BLOCKS = {"vemseg.budget.MOST_VOXELS": 2**11}
"""A setting that divides the small volume of these tests into dozens of blocks."""


def command(verb, made, out=None, steps=3, volume=None, k=3):
    """Return the arguments of a command on what is in the folder ``made``."""
    cell, out = volume or made / "cell.tif", ["-o", out or OUT[verb]]
    return {
        "fetch": ["fetch", "phantom", "--shape", "16,64,64", *out],
        "train": ["train", cell, "-c", "invariance", *TINY, "--steps", steps, *out],
        "embed": ["embed", cell, "-m", made / "run", *out],
        "cluster": ["cluster", made / "cell.zarr", "-k", k, "--sample", 2000, *out],
        "segment": ["segment", cell, "-m", made / "run", "--clusters", made / "three.safetensors", *out],
        "evaluate": ["evaluate", made / "labels.tif", "--gt", volume or made / "cell_labels.tif", *out],
        "render": ["render", cell, "--labels", made / "labels.tif", "--slices", 1, *out],
    }[verb]


def run_all(programs, folder):
    """Run every command in a folder, each on what is made there already; return how each ended."""
    changes = {**CHATTY, **SMALL_BLOCKS}
    return {verb: programs.run(folder, *command(verb, folder), changes=changes) for verb in VERBS}


def refused(ended, code, *says):
    """Check that a command ended with one line and no result."""
    assert (ended.code, ended.out) == (code, ""), ended
    said = [line for line in ended.err.splitlines() if line.startswith("vemseg:")]
    assert len(said) == 1 and ended.err.endswith(said[0] + "\n"), ended.err
    assert "Traceback" not in ended.err and "\x1b" not in ended.err
    for text in says:
        assert re.search(text, said[0]), said[0]


def begun(verb, folder):
    """Tell whether a long command is in the midst of its work."""
    if verb == "train":
        metrics = folder / "run" / "metrics.jsonl"
        return metrics.exists() and metrics.read_text().count("\n") > 2
    return len(list((folder / f"{OUT[verb]}.partial" / "done").glob("*.json"))) > 2


def essence(verb, folder):
    """Return what of an output may not depend on how often it was stopped: all but times and places."""
    out = folder / OUT[verb]
    if verb == "train":
        return (out / "model.safetensors").read_bytes()
    if verb == "segment":
        beside = [folder / name for name in ("labels.csv", "labels_clusters.safetensors")]
        return [tifffile.imread(out).tobytes(), *(path.read_bytes() for path in beside)]
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {path.relative_to(out): path.read_bytes() for path in files}
