"""Every recipe on a GPU: does it train and label as on the CPU, how fast, and how near to what it can do.

For each recipe three things are done, on a small phantom that is made on the fly:

- curve: a few steps of training in float32 on the CPU and on the GPU with the same seed; the losses are
  compared step by step. Then the recipe's own batch and precision are trained on the GPU for some seconds.
- labels: a part of the phantom is segmented on the GPU, and with the same classes on the CPU, in float32;
  then on the GPU in the precision that it takes by itself.
- speed: one block after the other, each larger than the one before, is labelled on the GPU; and the encoder
  alone encodes windows that lie on the GPU, beside which its products are counted.

The ceilings, a bfloat16 matrix product and a copy on the device, are measured in the same run. A part that
fails leaves its traceback in the results, and the others go on.

    python benchmarks/gpu.py --json gpu.json --markdown gpu.md
    python benchmarks/gpu.py --only vemseg maester-quick --seconds 4
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from common import machine
from torch.utils.flop_counter import FlopCounterMode

from vemseg.context import Context
from vemseg.datasets.phantom import write_phantom
from vemseg.dense import Lessons, Wanted
from vemseg.geometry import Box
from vemseg.labelling import AffineLabeller
from vemseg.models import open_model
from vemseg.phantom import Phantom
from vemseg.pipeline.beside import beside
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import load_recipe
from vemseg.run import Run
from vemseg.volume import ArrayVolume, open_volume, write_volume

SHAPE = (24, 168, 168)
"""Shape of the phantom; its voxels are 16 nm wide."""
TILES = (4, 3, 3)
"""The large volume consists of so many phantoms along each axis."""
STEPS, BATCH = 8, 4
"""Steps and samples in a step of the trainings that are compared."""
BOXES = ((2, 32, 32), (4, 64, 64), (8, 128, 128), (24, 168, 168), (48, 256, 256))
"""Blocks whose labelling is timed."""
SAME, ROUGHLY = 0.02, 0.3
"""Largest relative difference of two losses, with the same random numbers and with other ones."""
NEEDS = {"labels": {"curve"}, "speed": {"curve", "labels"}}
"""The parts whose models and classes a part takes; they are done with it."""
EQUAL = 0.999
"""Share of the voxels that must get the same label on both devices."""

DENSE = "0:24,0:168,0:168"
FLAT = "0:4,0:96,0:96"
STRIDE = ("embed.placement=expand-stride", "embed.stride=40")
CUBES = ("embed.placement=expand-stride", "embed.stride=8")


@dataclass(frozen=True)
class Case:
    """A recipe, and what makes it small enough for the CPU that it is compared with.

    Attributes
    ----------
    recipe : str
    crop : str
        The part of the phantom that is segmented on both devices.
    settings : tuple of str
        Of all trainings.
    placed : tuple of str
        Of the segmentations that are compared.
    labels : bool
        Whether it learns from the labels of the phantom.
    encoder : str, optional
        The model whose vectors a labeller is trained on.
    drawn : bool
        Whether random numbers are drawn on the device, so that both devices draw other ones.
    """

    recipe: str
    crop: str = FLAT
    settings: tuple[str, ...] = ()
    placed: tuple[str, ...] = STRIDE
    labels: bool = False
    encoder: str | None = None
    drawn: bool = False


CASES = (
    Case("vemseg", DENSE, ("tissue.held=4",), (), drawn=True),
    Case("invariance", DENSE, (), (), drawn=True),
    Case("unet_supervised", DENSE, (), (), labels=True, drawn=True),
    Case("maester"),
    Case("maester-quick"),
    Case("his4mae", placed=(*STRIDE, "cluster.method=kmeans")),
    Case("his4mae-quick", placed=(*STRIDE, "cluster.method=kmeans")),
    Case("sdae", drawn=True),
    Case("sdae_recon", drawn=True),
    Case("vit_supervised", placed=(), labels=True),
    Case("segmenter", placed=(), labels=True),
    Case("han2022", placed=CUBES, drawn=True),
    Case("han2022-quick", placed=CUBES, drawn=True),
    Case("cihs", placed=CUBES, drawn=True),
    Case(
        "sccs",
        "0:4,0:128,0:128",
        ("regions.tile=96", "regions.parts=4", "cluster.warmup=4", "cluster.every=2"),
        (),
        encoder="vemseg",
    ),
)

STEADY = ("train.warmup=0.0", "train.schedule=constant", "train.picture_every=1000000")


class Bench:
    """The files, the devices and the time of a run.

    Parameters
    ----------
    folder : Path
        For the phantoms, the runs and the labels.
    device : str
    seconds : float
        About what each timing may take.
    """

    def __init__(self, folder: Path, device: str, seconds: float) -> None:
        self.folder, self.device, self.seconds = folder, device, seconds
        self.cell, self.labels = write_phantom(
            Phantom(SHAPE, 1), folder / "cell.tif", overwrite=True, context=Context()
        )
        small = open_volume(self.cell)
        self.large = folder / "large.ome.zarr"
        tiled = np.tile(small.read(small.box), TILES)
        write_volume(ArrayVolume(tiled, (16.0, 16.0, 16.0)), self.large)
        self.ceilings: dict[str, float] = {}

    def context(self, device: str | None = None) -> Context:
        """Return the context of a command on a device."""
        memory = psutil.virtual_memory().available // 2
        return Context(device=device or self.device, memory=memory, offline=True)

    def training(self, case: Case, name: str, settings: tuple[str, ...], device: str, **more: Any) -> Run:
        """Train a recipe on a device, and return the run."""
        recipe = load_recipe(case.recipe, [*case.settings, *STEADY, *settings])
        given: dict[str, Any] = {"lessons": Lessons((str(self.labels),))} if case.labels else {}
        if case.encoder:
            given["encoder"] = open_model(case.encoder)
        out = self.folder / f"{case.recipe}-{name}"
        train(Training([str(self.cell)], out, recipe, **given, **more), self.context(device))
        return Run.open(out)

    def model(self, case: Case) -> Path:
        """Return the run that the curve left; one of a single step where there is none."""
        run = self.folder / f"{case.recipe}-gpu"
        if not (run / "model.safetensors").exists():
            batch = 1 if case.encoder else BATCH
            self.training(case, "gpu", ("train.steps=1", f"train.batch={batch}"), self.device, overwrite=True)
        return run


def ceilings(bench: Bench) -> dict[str, Any]:
    """Return what a matrix product and a copy reach on the device: TFLOP/s and GB/s."""
    edge = 8192 if bench.device != "cpu" else 512
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(edge, edge, device=bench.device).to(dtype) for _ in range(2))
        found[f"{name}_tflops"] = 2e-12 * edge**3 / timed(bench, lambda a=a, b=b: a @ b, 10)
    source = torch.empty(edge**2 * 32, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    found["copy_gb_per_s"] = 2e-9 * source.numel() / timed(bench, lambda: target.copy_(source), 10)
    bench.ceilings = found
    return found


def timed(bench: Bench, call: Callable[[], Any], times: int) -> float:
    """Return the seconds that a call takes on the device, the mean of some after a first one."""
    call()
    wait(bench)
    started = time.perf_counter()
    for _ in range(times):
        call()
    wait(bench)
    return (time.perf_counter() - started) / times


def wait(bench: Bench) -> None:
    """Wait until the device has done all that it was given."""
    if bench.device != "cpu":
        torch.cuda.synchronize()


def curve(bench: Bench, case: Case) -> dict[str, Any]:
    """Train on both devices and compare the losses; then train in the recipe's own batch and precision."""
    exact = (f"train.steps={STEPS}", f"train.batch={BATCH}", "train.log_every=1", "train.precision=fp32")
    if case.encoder:
        exact = (*exact, "train.batch=1")
    lines = {}
    for name, device in (("cpu", "cpu"), ("gpu", bench.device), ("again", bench.device)):
        started = time.perf_counter()
        run = bench.training(case, name, exact, device)
        lines[name] = [line["loss"] for line in run.read_metrics()], time.perf_counter() - started
    (cpu, cpu_seconds), (gpu, gpu_seconds), (again, _) = lines.values()
    apart = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(cpu, gpu, strict=True))
    found = {
        "loss_cpu": cpu,
        "loss_gpu": gpu,
        "apart": apart,
        "finite": all(map(math.isfinite, gpu)),
        "repeats": gpu == again,
        "same_curve": apart <= (ROUGHLY if case.drawn else SAME),
        "seconds": [round(cpu_seconds, 2), round(gpu_seconds, 2)],
    }
    return found | rate(bench, case)


def rate(bench: Bench, case: Case) -> dict[str, Any]:
    """Return how many samples a second the GPU trains at in the recipe's own batch and precision.

    The first lines of the metrics, which contain the start of the kernels, are left out.
    """
    small = (f"train.batch={BATCH}",) if bench.device == "cpu" and not case.encoder else ()
    settings = ("train.log_every=5", *small)
    run = bench.training(case, "rate", settings, bench.device, max_seconds=bench.seconds, overwrite=True)
    lines = run.read_metrics()
    first, last = lines[max(0, min(len(lines) // 3, len(lines) - 2))], lines[-1]
    spent = last["seconds"] - first["seconds"]
    losses = [line["loss"] for line in lines]
    return {
        "samples_per_s": (last["samples"] - first["samples"]) / spent if spent else None,
        "batch": run.recipe.train.batch,
        "precision": run.info["machine"]["precision"],
        "steps": last["step"],
        "loss_first_last": [losses[0], losses[-1]],
        "falls": losses[-1] < losses[0],
    }


def labels(bench: Bench, case: Case) -> dict[str, Any]:
    """Segment on both devices with the same classes, in float32 and in the GPU's own precision."""
    run = str(bench.model(case))
    exact = (*case.placed, "train.precision=fp32")
    gpu = segmented(bench, case, run, exact, "gpu", bench.device, None)
    classes = beside(bench.folder / f"{case.recipe}-gpu.tif", "_clusters.safetensors")
    started = time.perf_counter()
    cpu = segmented(bench, case, run, exact, "cpu", "cpu", classes)
    seconds = time.perf_counter() - started
    own = segmented(bench, case, run, (*case.placed, "train.precision=auto"), "own", bench.device, classes)
    equal = float((gpu == cpu).mean())
    return {
        "equal_fp32": equal,
        "equal_own_precision": float((own == cpu).mean()),
        "enough": equal >= EQUAL,
        "voxels": int(cpu.size),
        "classes": int(cpu.max()),
        "cpu_seconds": round(seconds, 2),
    }


def segmented(
    bench: Bench,
    case: Case,
    model: str,
    settings: tuple[str, ...],
    name: str,
    device: str,
    classes: Path | None,
) -> np.ndarray:
    """Segment a part of the phantom and return the labels."""
    out = bench.folder / f"{case.recipe}-{name}.tif"
    wanted = Wanted(str(bench.cell), model, settings, crop=case.crop)
    segment(wanted, out, clusters=classes, context=bench.context(device), overwrite=True)
    volume = open_volume(out)
    return volume.read(volume.box)


def speed(bench: Bench, case: Case) -> dict[str, Any]:
    """Label blocks of the large volume in the recipe's own placement, and encode windows alone."""
    model = str(bench.model(case))
    source = Wanted(str(bench.large), model, ("train.precision=auto",)).open(bench.context())
    labeller = AffineLabeller.of_centres(np.random.default_rng(0).normal(size=(6, source.dim)), {})
    found: dict[str, Any] = {}
    for shape in BOXES:
        box = Box.whole(shape)
        given = source.read(box)
        seconds = timed(bench, lambda box=box, given=given: source.labels(box, given, labeller), 1)
        found |= {"voxels_per_s": box.size / seconds, "block": list(shape)}
        if seconds > bench.seconds / 8:
            break
    return found | alone(bench, source.covering.encoder)


def alone(bench: Bench, encoder: Any) -> dict[str, Any]:
    """Encode windows that lie on the device; count the products, and say how near they are to the ceiling."""
    shape = encoder.fov if encoder.fixed_fov else (128, 256, 256)
    count = 512 if encoder.fixed_fov else 1
    if bench.device == "cpu":
        shape, count = (shape if encoder.fixed_fov else (64, 64, 64)), min(count, 4)
    windows = torch.rand(count, 1, *shape, device=bench.device, dtype=encoder.dtype)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            encoder.encode(windows)
        seconds = timed(bench, lambda: encoder.encode(windows), 3)
    reached = 1e-12 * counter.get_total_flops() / seconds
    dtype = "bf16" if next(iter(encoder.parameters())).dtype == torch.bfloat16 else "fp32"
    ceiling = bench.ceilings.get(f"{dtype}_tflops")
    return {
        "encoded_voxels_per_s": windows.numel() / seconds,
        "tflops": reached,
        "of_ceiling": reached / ceiling if ceiling else None,
        "encoder_precision": dtype,
    }


def whole(bench: Bench) -> dict[str, Any]:
    """Segment the large volume with the default model, the whole command but for its start."""
    found: dict[str, Any] = {}
    for name in ("first", "again"):
        out = bench.folder / "whole.ome.zarr"
        started = time.perf_counter()
        segment(Wanted(str(bench.large)), out, context=bench.context(), overwrite=True)
        seconds = time.perf_counter() - started
        found[f"seconds_{name}"] = round(seconds, 2)
        found["voxels_per_s"] = math.prod(open_volume(out).shape) / seconds
    return found


def parts(bench: Bench, only: list[str]) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """Yield all that is to be done: a recipe, what is done with it, and the call."""
    yield "machine", "ceilings", lambda: ceilings(bench)
    for case in CASES:
        if not only or case.recipe in only:
            steps = (("curve", curve), ("labels", labels), ("speed", speed))
            for name, part in steps[: 2 if case.encoder else 3]:
                yield case.recipe, name, lambda part=part, case=case: part(bench, case)
    if not only or "vemseg" in only:
        yield "default model", "whole", lambda: whole(bench)


def tabled(results: dict[str, Any]) -> str:
    """Return the results as a table in Markdown, and below it the last lines of what failed."""
    columns = {
        "curves apart": ("curve", "apart"), "repeats": ("curve", "repeats"), "falls": ("curve", "falls"),
        "samples/s": ("curve", "samples_per_s"), "precision": ("curve", "precision"),
        "equal labels": ("labels", "equal_fp32"), "own precision": ("labels", "equal_own_precision"),
        "voxels/s": ("speed", "voxels_per_s"), "encoder voxels/s": ("speed", "encoded_voxels_per_s"),
        "TFLOP/s": ("speed", "tflops"), "of ceiling": ("speed", "of_ceiling"),
    }  # fmt: skip
    rows = [["recipe", *columns], ["---"] * (1 + len(columns))]
    broken = []
    for name, made in results["recipes"].items():
        cells = [made.get(part, {}).get(key, "") for part, key in columns.values()]
        rows.append([name, *(f"{cell:.4g}" if type(cell) in (int, float) else str(cell) for cell in cells)])
        for part, facts in made.items():
            if "failed" in facts:
                broken.append(f"- {name}, {part}: `{facts['failed'].strip().splitlines()[-1]}`")
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    about = json.dumps(results["about"])
    return f"{about}\n\n{table}\n\n" + ("\n".join(broken) or "Nothing failed.") + "\n"


def main() -> None:
    """Measure, and write the results after every part."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", nargs="+", default=[], metavar="RECIPE", help="these recipes")
    made.add_argument("--parts", nargs="+", default=[], metavar="PART", help="curve, labels, speed, whole")
    made.add_argument("--seconds", type=float, default=2.0, help="about what each timing takes")
    made.add_argument("--device", default="cuda", help="cuda, or cpu to try this program out")
    made.add_argument("--json", type=Path, help="write all figures here")
    made.add_argument("--markdown", type=Path, help="write a table here")
    options = made.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.device, options.seconds)
        gpu = torch.cuda.get_device_name() if options.device != "cpu" else None
        results: dict[str, Any] = {"about": machine() | {"gpu": gpu}, "recipes": {}}
        wanted = {"ceilings"}.union(options.parts, *(NEEDS.get(part, ()) for part in options.parts))
        begun = time.perf_counter()
        for name, part, call in parts(bench, options.only):
            if options.parts and part not in wanted:
                continue
            started = time.perf_counter()
            try:
                found = call()
            except Exception:  # one failure must not hide the others
                found = {"failed": traceback.format_exc()}
            found["took"] = round(time.perf_counter() - started, 2)
            results["recipes"].setdefault(name, {})[part] = found
            print(f"[{time.perf_counter() - begun:6.1f} s] {name} {part}: {json.dumps(found)}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))
            if options.markdown:
                options.markdown.write_text(tabled(results))
    print(tabled(results))


if __name__ == "__main__":
    main()
