"""Put the encoder of a finished run into the package: half precision, with its recipe, curve and model card.

    vemseg fetch phantom -o phantom.tif --shape 384,384,384 --seed 7
    vemseg train flyem_medulla_15nm/raw.tif phantom.tif -o run --max-time 60min
    python benchmarks/bundle_weights.py run maester --card card.md

The card is a Markdown file in which ``{steps}``, ``{samples}``, ``{minutes}``, ``{loss}``, ``{size}`` and
``{sha256}`` stand for what the run and its weights say.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

import vemseg
from vemseg import drawing
from vemseg.files import write_text
from vemseg.run import Run, load_tensors, save_tensors

LIMIT = 10_000_000


def main() -> None:
    """Pack the run that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--card", type=Path, required=True)
    given = parser.parse_args()
    run = Run.open(given.run)
    if not run.finished:
        parser.error(f"{given.run} has not finished its training")
    target = Path(vemseg.__file__).parent / "weights" / given.name
    tensors, metadata = load_tensors(run.model)
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    if not all(np.isfinite(value).all() for value in half.values()):
        parser.error("a weight does not fit into half precision")
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(target / "model.safetensors", half, metadata)
    size = (target / "model.safetensors").stat().st_size
    if size > LIMIT:
        parser.error(f"the weights take {size} bytes, more than {LIMIT}")
    write_text(target / "recipe.toml", run.recipe.to_toml())
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


if __name__ == "__main__":
    main()
