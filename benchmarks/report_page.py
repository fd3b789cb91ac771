"""Seconds, peak memory and size of ``vemseg report`` on a large volume, and how soon its page can be used.

Labels are those of ``objects.py``, and the image follows from them. The page is opened in Chromium where that
and playwright are there.

    python benchmarks/report_page.py --scratch /tmp/report --edge 512
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
from common import conclude, machine, show
from objects import TILE, made, measured

from vemseg.volume import About, LabelStore, finish_grey, open_labels

WANTED_SECONDS, WANTED_MB, WANTED_OPEN = 60.0, 15.0, 2.0


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, required=True, help="directory for volumes and the report")
    options.add_argument("--edge", type=int, default=512, help="edge of the volume, in voxels")
    options.add_argument("--model", default="classical", help="the model whose vectors are shown")
    given = options.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    labels = made(given.scratch / f"labels-{given.edge}.ome.zarr", given.edge)
    image = grey_of(labels, given.scratch / f"image-{given.edge}.ome.zarr")
    page = given.scratch / "out.html"
    command = ["report", "--volume", str(image), "-m", given.model]
    found = measured(command, labels, given.scratch, page)
    size, opened = page.stat().st_size / 1e6, seconds_to_open(page)
    rows = [
        ["wall", f"{found['seconds']:.1f} s"],
        ["processor", f"{found['processor']:.1f} s"],
        ["peak", f"{found['peak_gib']:.2f} GiB"],
        ["page", f"{size:.1f} MB"],
        ["open", "not tried" if opened is None else f"{opened:.2f} s"],
    ]
    show(f"the report of a volume of {given.edge}³ voxels", ["what", "figure"], rows)
    met = found["seconds"] <= WANTED_SECONDS and size < WANTED_MB and (opened or 0.0) < WANTED_OPEN
    target = f"<= {WANTED_SECONDS:g} s, < {WANTED_MB:g} MB, open in {WANTED_OPEN:g} s"
    facts = {"run": found, "megabytes": size, "open_seconds": opened, "machine": machine()}
    conclude("report", found["seconds"], "seconds", target, met, facts)


def grey_of(labels: Path, path: Path) -> Path:
    """Return an image of labels, made if it is not there yet: a grey for each class, and noise."""
    if path.exists():
        return path
    rng, source = np.random.default_rng(1), open_labels(labels)
    noise = rng.integers(0, 24, (TILE,) * 3, dtype=np.uint8)
    store = LabelStore.create(path.with_name(f"{path.name}.new"), source.shape, (TILE,) * 3)
    for box in store.box.split(store.block_shape):
        z, y, x = box.shape
        store.write(box, source.read(box).astype(np.uint8) * 30 + noise[:z, :y, :x])
    finish_grey(store, path, About(voxel_size=(8.0, 8.0, 8.0)))
    return path


def seconds_to_open(page: Path) -> float | None:
    """Return how long it takes until a page can be used; None without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        return None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page()
        started = time.perf_counter()
        shown.goto(page.resolve().as_uri())
        shown.wait_for_selector("body[data-ready=yes]")
        seconds = time.perf_counter() - started
        browser.close()
    return seconds


if __name__ == "__main__":
    main()
