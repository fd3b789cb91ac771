"""What SCCS costs for a region of 560 x 560 pixels, stage by stage, and beside exact cover-and-stride."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import add_threads, conclude, machine, show, spread
from cover_and_stride import reference_rate
from dice_tables import Candidate

from vemseg.context import Context
from vemseg.dense import RegionVectors, lay_over_volume
from vemseg.geometry import Box
from vemseg.graphs import Affinity, Graph, Kernel, SpectralNetwork
from vemseg.labelling import Sample, fit
from vemseg.models import Model
from vemseg.phantom import Phantom
from vemseg.recipe import Recipe, load_recipe, override
from vemseg.volume import ArrayVolume

PAPER = (1.997, 1.129, 0.003)
"""Seconds of the three stages on the paper's GPU, an RTX 2080 Ti."""

TARGET = 137.0
"""How many times as fast as MAESTER's exact cover-and-stride the whole is in the paper."""


def add_seconds(made: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    made.add_argument("--edge", type=int, default=560, help="edge of the region in pixels")
    made.add_argument("--exact", type=int, default=40, help="edge of the square that is computed exactly")
    made.add_argument("--repetitions", type=int, default=3)
    made.add_argument("--batch", type=int, default=64, help="fields of view of a pass of the reference")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    made.add_argument("--set", action="append", default=[], help="settings of the recipe sccs")
    add_threads(made)
    made.set_defaults(run=measure_seconds)


def measure_seconds(options: argparse.Namespace) -> None:
    """Time the stages of every encoder, and exact cover-and-stride once."""
    context = Context(options.device, options.threads)
    shape = (1, options.edge, options.edge)
    volume = ArrayVolume(Phantom(shape, 3).read(Box.whole(shape)), (16.0, 16.0, 16.0), "phantom")
    how = options.threads, options.batch, options.repetitions, options.device
    slow = options.edge**2 / reference_rate(*how)
    exact = options.edge**2 / _exact_rate(options, context)
    rows, found = [], {}
    for given in options.encoder:
        candidate = Candidate.of(given, [])
        seconds = _stages(candidate.open(""), (*candidate.settings, *options.set), volume, options, context)
        whole = statistics.median(seconds["whole"])
        found[candidate.name] = {name: spread(values) for name, values in seconds.items()}
        rows.append([candidate.name, *(f"{statistics.median(s):.3f}" for s in seconds.values())])
        rows[-1] += [f"{slow / whole:.0f}", f"{exact / whole:.0f}"]
    rows.append(["paper, RTX 2080 Ti", *PAPER, f"{sum(PAPER):.3f}", TARGET, "-"])
    header = ["encoder", "vectors", "graph", "network", "whole", "x reference", "x vemseg, exact"]
    show(f"seconds of a region of {options.edge} x {options.edge} pixels, wall time", header, rows)
    print(f"\nexact cover-and-stride: reference {slow:.1f} s, vemseg {exact:.1f} s, both from a part of it")
    best = slow / min(one["whole"]["median"] for one in found.values())
    details = {"stages": found, "reference": slow, "exact": exact, "device": options.device}
    details |= {"machine": machine(options.threads)}
    words = "times as fast as exact cover-and-stride"
    conclude("superpixels seconds", best, words, f">= {TARGET:g}", best >= TARGET, details)


def _exact_rate(options: argparse.Namespace, context: Context) -> float:
    """Return the pixels per second of the exact cover-and-stride of vemseg, with the weights of MAESTER."""
    model = Candidate.of(["maester", "embed.placement=cover-and-stride", "embed.planes=one"], []).open("")
    edge = options.exact
    grey = Phantom((1, edge, edge), 3).read(Box.whole((1, edge, edge)))
    source = lay_over_volume(model, ArrayVolume(grey, (16.0, 16.0, 16.0)), context)
    points = source.points_of(source.volume.box)
    seconds = _timed(lambda: source.values(points), options.repetitions)
    return edge**2 / statistics.median(seconds)


def _stages(
    model: Model, settings: Any, volume: ArrayVolume, options: argparse.Namespace, context: Context
) -> dict[str, list[float]]:
    """Return the seconds of vectors, graph and network, and of the whole from voxels to labels."""
    recipe = override(load_recipe("sccs").on_vectors_of(model.recipe), [*settings, "regions.whole=true"])
    source = lay_over_volume(replace(model, recipe=recipe), volume, context)
    whole = source.points_of(volume.box)
    held = RegionVectors(source.held(context), recipe.regions)
    graph = held.divided(0).graph
    labeller, kernel, network = _untrained(recipe, graph)
    vectors = graph.features(torch.float64)
    affinity = Affinity.of(vectors, kernel)
    _ = affinity.degrees

    def divided() -> None:
        found = Affinity.of(held.divided(0).graph.features(torch.float64), kernel)
        _ = found.degrees

    @torch.no_grad()
    def scored() -> None:
        network.logits(network.coordinates(vectors, affinity))

    regions = RegionVectors(source, recipe.regions)
    calls: dict[str, Callable[[], Any]] = {
        "vectors": lambda: source.values(whole),
        "graph": divided,
        "network": scored,
        "whole": lambda: regions.labels(volume.box, regions.read(volume.box), labeller),
    }
    return {name: _timed(call, options.repetitions) for name, call in calls.items()}


def _untrained(recipe: Recipe, graph: Graph) -> tuple[Any, Kernel, SpectralNetwork]:
    """Return SCCS with random weights: its labeller, its kernel for a graph, and its network."""
    table = recipe.cluster
    torch.manual_seed(0)
    network = SpectralNetwork(graph.vectors.shape[1], table.widths, table.k).double()
    kernel = Kernel.of(table, graph.features(torch.float64))
    arrays = {
        name: value.detach().float().numpy() for name, value in network.arrays(np.arange(table.k)).items()
    }
    nothing = Sample(graph.vectors[:0], graph.intensities[:0], learned=arrays)
    return fit(table.scaled(kernel.kappa), nothing), kernel, network


def _timed(call: Callable[[], Any], repetitions: int) -> list[float]:
    """Return the seconds of some calls, after one to warm up."""
    call()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds
