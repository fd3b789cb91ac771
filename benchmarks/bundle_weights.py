"""Put the encoder of a finished run into the package: half precision, with its recipe, curve and model card.

    vemseg fetch phantom -o phantom.tif --shape 384,384,384 --seed 7
    vemseg train flyem_medulla_15nm/raw.tif phantom.tif -o run --max-time 60min
    python benchmarks/bundle_weights.py run maester --card card.md

``--average`` takes snapshots of trainings that went on from one another: the weights are their mean, and the
statistics of batch normalisation are measured anew on synthetic tissue, or with ``--keep-statistics`` are a
mean, too. A single one is taken as it is: that is how an encoder ships that was trained further on a volume
by ``segment --adapt``. ``--recipe`` packs another recipe of the same encoder than that of the run.

The card is a Markdown file in which ``{steps}``, ``{samples}``, ``{minutes}``, ``{loss}``, ``{size}`` and
``{sha256}`` stand for what the run and its weights say.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import vemseg
from vemseg import drawing
from vemseg.files import write_text
from vemseg.models import build_encoder, build_objective
from vemseg.models.unet import BatchNorm
from vemseg.recipe import Recipe, load_recipe
from vemseg.run import Run, load_tensors, save_tensors
from vemseg.sampling import Sampler, tissue_sources

Array = NDArray[np.generic]

LIMIT = 10_000_000
BATCHES = 40


def main() -> None:
    """Pack the run that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument(
        "--average", type=Path, nargs="+", metavar="SNAPSHOT", help="weights to take the mean of"
    )
    parser.add_argument("--keep-statistics", action="store_true", help="average those of snapshots")
    parser.add_argument("--recipe", help="what the package says of the model")
    given = parser.parse_args()
    run = Run.open(given.run)
    if not run.finished:
        parser.error(f"{given.run} has not finished its training")
    target = Path(vemseg.__file__).parent / "weights" / given.name
    tensors, metadata = load_tensors(run.model)
    if given.average:
        kept = [load_tensors(path)[0] for path in given.average]
        tensors = mean_of(kept) if given.keep_statistics else averaged(run.recipe, kept)
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    if not all(np.isfinite(value).all() for value in half.values()):
        parser.error("a weight does not fit into half precision")
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(target / "model.safetensors", half, metadata)
    size = (target / "model.safetensors").stat().st_size
    if size > LIMIT:
        parser.error(f"the weights take {size} bytes, more than {LIMIT}")
    recipe = load_recipe(given.recipe) if given.recipe else run.recipe
    write_text(target / "recipe.toml", recipe.to_toml())
    metrics = run.read_metrics()
    steps, losses, rates = (np.array([line[key] for line in metrics]) for key in ("step", "loss", "lr"))
    drawing.save(drawing.curve(steps, losses, 0.8, rates), target / "curve.png", dpi=150)
    last = metrics[-1]
    facts = {
        "steps": f"{last['step']:,}",
        "samples": f"{last['samples']:,}",
        "minutes": f"{last['seconds'] / 60:.0f}",
        "loss": f"{last['loss']:.4f}",
        "size": f"{size / 1e6:.1f} MB",
        "sha256": hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest(),
    }
    write_text(target / "README.md", given.card.read_text().format(**facts))
    print(f"{target}: {facts}")


def mean_of(snapshots: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the mean of weights and of whatever else they hold, float32."""
    return {name: np.mean([np.float32(one[name]) for one in snapshots], axis=0) for name in snapshots[0]}


def averaged(recipe: Recipe, snapshots: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the mean of weights, with statistics of batch normalisation that suit it.

    Weights on the way of one training, averaged, transfer better than the last of them (stochastic weight
    averaging: Izmailov et al., UAI 2018, which measures the statistics anew, too).
    """
    if len(snapshots) == 1:
        return dict(snapshots[0])
    mean = mean_of(snapshots)
    encoder = build_encoder(recipe.model)
    encoder.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in mean.items()})
    norms = [module for module in encoder.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    objective = build_objective(recipe.model, 0)
    sampler = Sampler(tissue_sources(recipe.tissue), objective.window, recipe.fov, 1, torch.device("cpu"))
    encoder.train()
    with torch.no_grad():
        for step in range(BATCHES):
            encoder.maps(sampler.batch(step, 16).images[:, 0])
    return {name: value.numpy() for name, value in encoder.state_dict().items()}


if __name__ == "__main__":
    main()
