"""A function mapped over blocks, so that a killed run goes on where it was.

A finished block leaves a marker: a small JSON file with what the function returned. Blocks that have one are
not computed again. Markers appear by renaming, so one that is there is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vemseg.errors import Interrupted
from vemseg.geometry import Box
from vemseg.run import read_json, write_json


def map_blocks(
    work: Callable[[Box], Any],
    blocks: Sequence[Box],
    markers: Path,
    report: Callable[[int, int], None],
    stopped: Callable[[], bool],
) -> list[Any]:
    """Call a function for each block that has no marker yet.

    Parameters
    ----------
    work : callable
        Computes and writes one block; returns plain JSON types.
    blocks : sequence of Box
        In the order to take them; their numbers name the markers.
    markers : Path
        Directory of the markers; made if it is not there.
    report : callable
        Told how many of how many voxels are done.
    stopped : callable
        Asked before each block whether to stop.

    Returns
    -------
    list
        What ``work`` returned for every block, now or in an earlier run.

    Raises
    ------
    Interrupted
        Where it was stopped before the last block.
    """
    markers.mkdir(parents=True, exist_ok=True)
    total = sum(block.size for block in blocks)
    done = sum(block.size for i, block in enumerate(blocks) if (markers / _name(i)).exists())
    report(done, total)
    results = []
    for i, block in enumerate(blocks):
        marker = markers / _name(i)
        if not marker.exists():
            if stopped():
                raise Interrupted(
                    f"stopped after {i} of {len(blocks)} blocks: the same command goes on from there"
                )
            write_json(marker, work(block))
            done += block.size
            report(done, total)
        results.append(read_json(marker))
    return results


def _name(i: int) -> str:
    return f"{i:06d}.json"
