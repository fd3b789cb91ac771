"""The pictures of the README, made by the tool from a phantom: its classes, the report, its surfaces.

The phantom is drawn by vemseg itself, so no licence stands on it. The picture of the report needs playwright
and Chromium on the path, that of the surfaces the extra ``3d``; ``--only`` makes some of them.

    python benchmarks/pictures.py --scratch /tmp/pictures --out .github/images
    python benchmarks/pictures.py --scratch /tmp/pictures --out .github/images --only solid
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from vemseg.labelling.telling import captions

KINDS = ("phantom", "report", "solid")
RADIUS = 38
"""Of the line that is drawn around some of the dots, in pixels of the screen."""


def main() -> None:
    """Make the pictures."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, required=True, help="directory for what is made on the way")
    options.add_argument("--out", type=Path, required=True, help="directory of the pictures")
    options.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    options.add_argument("--shape", default="96,256,256", help="voxels of the phantom, z,y,x")
    options.add_argument("--model", help="a model other than the bundled one")
    given = options.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    inside = given.scratch.resolve()
    run(inside, "fetch", "phantom", "--shape", given.shape, "-o", "phantom.tif")
    if {"phantom", "report"} & set(given.only):
        model = ["-m", given.model] if given.model else []
        run(inside, "segment", "phantom.tif", "-k", "6", *model, "-o", "seg.tif")
    if "phantom" in given.only:
        legend = ",".join(f"{k}={text}" for k, text in captions(rows_of(inside / "seg.json")).items())
        run(inside, "render", "phantom.tif", "--labels", "seg.tif", "--names", legend, "-o", "planes", "-f")
        shutil.copyfile(inside / "planes" / "phantom_planes.png", given.out / "phantom.png")
    if "report" in given.only:
        model = ["-m", given.model] if given.model else []
        run(inside, "objects", "seg.tif", "-o", "seg_objects.tif")
        run(inside, "report", "seg.tif", *model, "-o", "report.html")
        photograph(inside / "report.html", given.out / "report.png", suggested(inside / "seg.json"))
    if "solid" in given.only:
        run(inside, "render", "phantom.tif", "--labels", "phantom_labels.tif", "--solid", "-o", "solid", "-f")
        shutil.copyfile(inside / "solid" / "phantom_solid.png", given.out / "solid.png")
    print("\n".join(str(given.out / f"{kind}.png") for kind in given.only))


def run(folder: Path, *arguments: str) -> None:
    """Run a command of vemseg in a folder."""
    subprocess.run([sys.executable, "-m", "vemseg", "-q", *arguments], cwd=folder, check=True)


def rows_of(about: Path) -> list[dict[str, Any]]:
    """Return the table of classes in the description of labels."""
    rows: list[dict[str, Any]] = json.loads(about.read_text())["classes"]
    return rows


def suggested(about: Path) -> dict[int, str]:
    """Return the names that the encoder suggests for classes."""
    return {row["label"]: row["suggestion"] for row in rows_of(about) if row["suggestion"]}


def photograph(page: Path, target: Path, names: dict[int, str]) -> None:
    """Open a report, name classes, merge those of one name, draw a line round some dots, take a picture."""
    from playwright.sync_api import sync_playwright

    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=next(filter(None, found)), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1240, "height": 1000})
        shown.goto(page.resolve().as_uri())
        shown.wait_for_selector("body[data-ready=yes]")
        for label, name in names.items():
            shown.fill(f"[aria-label='Name of class {label}']", name)
            shown.press(f"[aria-label='Name of class {label}']", "Tab")
        shared = {name: [label for label in names if names[label] == name] for name in names.values()}
        for labels in filter(lambda labels: len(labels) > 1, shared.values()):
            for label in labels:
                shown.check(f"[aria-label='Tick class {label}']")
            shown.click("#merge")
        encircle(shown)
        shown.screenshot(path=target)
        browser.close()


def encircle(shown: Any) -> None:
    """Draw a line around the middle of the dots' left half."""
    box = shown.locator("#scatter").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"]
    shown.mouse.move(x + RADIUS, y)
    shown.mouse.down()
    for step in range(1, 41):
        angle = 2 * math.pi * step / 40
        shown.mouse.move(x + RADIUS * math.cos(angle), y + RADIUS * math.sin(angle))
    shown.mouse.up()


if __name__ == "__main__":
    main()
