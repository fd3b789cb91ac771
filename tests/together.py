"""Trains every small recipe by the processes of a ``torchrun``, or by one, into a folder."""

import contextlib
import os
import sys
from pathlib import Path

import torch
from tiny import NM, RECIPES, SHORT, Tissue

from vemseg.context import Context, Share
from vemseg.geometry import Box
from vemseg.models import build_objective
from vemseg.phantom import Phantom
from vemseg.ranks import first, meeting
from vemseg.recipe import load_recipe
from vemseg.resources import launched
from vemseg.run import Run
from vemseg.sampling import Sampler, Source, Synthetic
from vemseg.training import Trainer, refuse_undivided
from vemseg.volume import ArrayVolume, Intensity

SHAPE = (8, 40, 40)
PLAIN = {"sdae_recon": ["model.drop_path=0.0"]}
"""Which samples skip a block is all that depends on the number of processes."""


def train(name, folder):
    changes = ["train.batch=4", "train.log_every=1", "train.steps=5", "train.precision=fp32", "train.lr=1e-3"]
    recipe = load_recipe(name, [*SHORT, *RECIPES[name], *PLAIN.get(name, []), *changes])
    objective = build_objective(recipe.model, 0)
    refuse_undivided(objective, recipe.train.batch)
    phantom = Phantom(SHAPE, seed=2)
    labels = ArrayVolume(phantom.labels(Box.whole(SHAPE)), NM) if recipe.model.learns_labels else None
    cell = Source(ArrayVolume(phantom.read(Box.whole(SHAPE)), NM), Intensity(0.0, 255.0), labels)
    sources = [cell, Synthetic(Tissue(), 2, 2, 0)] if name == "vemseg" else [cell]
    sampler = Sampler(sources, objective.window, recipe.fov, 0, torch.device("cpu"))
    held = sampler if recipe.model.learns_labels else None
    path = folder / name
    with first(lambda: Run.create(path, recipe), lambda: Run.open(path)) as run:
        trainer = Trainer(objective, sampler, run, recipe.train, held=held)
        assert trainer.fit(Context())
        trainer.draw()


def main(folder):
    torch.set_num_threads(1)
    index, count = launched()
    context = Context(device="cpu", share=Share(index, count))
    with meeting(context) if count > 1 else contextlib.nullcontext():
        for name in os.environ.get("ONLY", " ".join(RECIPES)).split():
            train(name, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
