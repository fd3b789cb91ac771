"""``vemseg train``: volumes -> a run."""

from __future__ import annotations

from vemseg.cli import options, parsing, shell
from vemseg.errors import UsageError


def train(
    volumes: options.TrainingVolumes = None,
    *,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    config: options.Config = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    out: options.RunFolder = None,
    overwrite: options.Overwrite = False,
    dump_config: options.DumpConfig = False,
    device: options.Device = "auto",
    max_time: options.MaxTime = None,
    seed: options.Seed = None,
    set_: options.Settings = None,
) -> None:
    """Train a model on volumes; no labels are needed.

    Stopped by SIGTERM, SIGUSR1 or the end of its time, it keeps its state: the same command goes on.
    What you leave out follows the recipe; --dump-config shows all of it.
    """
    from vemseg.recipe import DEFAULT_RECIPE, load_recipe

    shortcuts = {"train.steps": steps, "train.batch": batch_size, "train.lr": lr, "train.seed": seed}
    recipe = load_recipe(config or DEFAULT_RECIPE, parsing.settings(set_, shortcuts))
    seconds = parsing.duration(max_time) if max_time else None
    if dump_config:
        return shell.result(recipe.to_toml().rstrip())
    if not volumes or out is None:
        raise UsageError("name what to learn from and where to put it: vemseg train cell.tif -o run")
    from vemseg.pipeline.train import train as compute

    with shell.stoppable() as (report, stopped):
        run = compute(
            volumes,
            out,
            recipe,
            voxel_size=voxel_size,
            crop=crop,
            device=device,
            max_seconds=seconds,
            overwrite=overwrite,
            report=report,
            stopped=stopped,
        )
    shell.result(run)
