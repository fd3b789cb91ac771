"""The best that superpixels allow: Dice where each gets the class that most of its voxels have.

python benchmarks/best_regions.py epfl_train_15nm drosophila_vnc --size 25 100 --compactness 0.05 0.1 0.2
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from common import show
from pairs import HELP, Pair, open_pair

from vemseg.geometry import Box
from vemseg.superpixels import divide
from vemseg.volume import measure_intensity

PERCENTILES = (0.5, 99.5)


def main() -> None:
    """Divide slices, compare, print."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("volumes", nargs="+", help=HELP)
    made.add_argument("--size", type=float, nargs="+", default=[25, 50, 100], help="pixels of a region")
    made.add_argument("--compactness", type=float, nargs="+", default=[0.1, 0.2, 0.4])
    made.add_argument("--every", type=int, default=10, help="slices apart")
    made.add_argument("--json", type=Path)
    options = made.parse_args()
    rows, results = [], []
    for text in options.volumes:
        pair = open_pair(text)
        for size in options.size:
            for compactness in options.compactness:
                pixels, dice = best(pair, size, compactness, options.every)
                results.append({"volume": pair.name, "size": size, "compactness": compactness, "dice": dice})
                each = "  ".join(f"{name} {value:.3f}" for name, value in dice.items())
                rows.append([pair.name, f"{size:g}", f"{compactness:g}", f"{pixels:.0f}", each])
    show("The best that superpixels allow", ["volume", "size", "compactness", "pixels", "Dice"], rows)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def best(pair: Pair, size: float, compactness: float, every: int) -> tuple[float, dict[str, float]]:
    """Return the mean size of regions, and the Dice of each class."""
    intensity = measure_intensity(pair.grey, PERCENTILES)
    top = max(pair.classes) + 1
    counted, regions, seen = np.zeros((top, top), np.int64), 0, 0
    for z in range(0, pair.grey.shape[0], every):
        box = Box((z, 0, 0), (z + 1, *pair.grey.shape[1:]))
        grey = intensity.apply(pair.grey.read(box)).astype(np.float32)
        reference = pair.reference.read(box).ravel()
        numbers = divide(grey, round(grey.size / size), compactness, (1.0, 1.0, 1.0)).ravel()
        votes = np.zeros((numbers.max() + 1, top), np.int64)
        np.add.at(votes, (numbers, reference), 1)
        np.add.at(counted, (votes.argmax(axis=1)[numbers], reference), 1)
        regions, seen = regions + len(votes), seen + grey.size
    sums = counted.sum(axis=0) + counted.sum(axis=1)
    dice = {name: round(2 * counted[g, g] / max(sums[g], 1), 4) for g, name in pair.classes.items()}
    return seen / regions, dice


if __name__ == "__main__":
    main()
