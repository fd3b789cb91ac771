"""What the classes of an encoder are worth without clustering: Dice of those that a reference has, too.

python benchmarks/named_classes.py --volumes epfl_train_15nm drosophila_vnc
python benchmarks/named_classes.py --volumes epfl_train_15nm --model vemseg --model RUN
"""

from __future__ import annotations

import argparse
import json
import os

import numpy as np
from common import machine, show
from pairs import HELP, Pair, open_pair

from vemseg import metrics
from vemseg.context import Context
from vemseg.dense import lay_over
from vemseg.labelling import Sample, fit
from vemseg.models import open_model
from vemseg.recipe import NamedTable
from vemseg.resources import parse_bytes

SAME = {"cytoplasm": "cytosol"}
"""Classes of references that the encoder knows by another name."""


def main() -> None:
    """Compute and print."""
    options = _options()
    rows, results = [], []
    for text in options.volumes:
        pair = open_pair(text, options.crop)
        for name in options.model or ["vemseg"]:
            dice = named_dice(pair, name.replace("{volume}", pair.name), options)
            rows += [[pair.name, name, found, f"{value:.3f}"] for found, value in dice.items()]
            results.append({"volume": pair.name, "model": name, "dice": dice})
    show("Dice of the encoder's own classes", ["volume", "model", "class", "Dice"], rows)
    print(
        "\n" + json.dumps({"benchmark": "named_classes", "machine": machine(options.threads), "of": results})
    )


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    volumes = ["epfl_train_15nm", "cdeep3m_mito_train", "drosophila_vnc"]
    made.add_argument("--volumes", nargs="+", default=volumes, metavar="NAME[@Z,Y,X]", help=HELP)
    made.add_argument("--model", action="append", help="as 'vemseg segment -m'; may be given again and again")
    made.add_argument(
        "--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="settings of all models"
    )
    made.add_argument("--crop", help="use this part of each volume, z0:z1,y0:y1,x0:x1")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    made.add_argument("--max-memory", type=parse_bytes, help="such as 2GiB")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the computation")
    return made.parse_args()


def named_dice(pair: Pair, model: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the Dice of every class of the reference that the encoder has a name for."""
    context = Context(options.device, options.threads, options.max_memory)
    source = lay_over(open_model(model, options.set), pair.wanted, context)
    nothing = np.empty((0, source.dim), np.float16)
    labeller = fit(NamedTable(), Sample(nothing, np.empty(0, np.float32), classes=source.classes), source)
    counted = np.zeros((labeller.k, max(pair.classes) + 1), np.int64)
    for box in pair.grey.box.split((64, 256, 256)):
        labels = source.labels(box, source.read(box), labeller)
        counted += metrics.contingency(
            labels - 1, pair.reference.read(box), n_pred=labeller.k, n_ref=counted.shape[1]
        )
    found = {}
    for number, name in pair.classes.items():
        known = SAME.get(name, name)
        if known in source.classes:
            k = source.classes.index(known)
            both = counted[k].sum() + counted[:, number].sum()
            found[name] = round(float(2 * counted[k, number] / max(both, 1)), 4)
    return found


if __name__ == "__main__":
    main()
