"""The kinds of tissue, and the order in which one is painted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vemseg.phantom.tissue import cytoplasm, membranes, organelles
from vemseg.phantom.tissue.canvas import F32, Canvas
from vemseg.phantom.tissue.cells import Cells, Seed, divide, seeds, wrap
from vemseg.phantom.tissue.classes import CYTOSOL, GLIA, GRANULE, LIPID, NUCLEUS, OUTSIDE, VESICLE
from vemseg.phantom.tissue.organelles import Core
from vemseg.phantom.tissue.style import Style

Range = tuple[float, float]
Counter = Callable[[Range], int]


@dataclass(frozen=True)
class Kind:
    """What a kind of tissue is made of.

    Numbers of organelles are per 10 cubic micrometres; a range (a, b) with a below 0 means that a block may
    have none of them.

    Attributes
    ----------
    cells : Cells
    nucleus : float
        Probability that a block shows a nucleus.
    mitochondria, granules, vesicles, lysosomes, lipid, synapses : (float, float)
        Numbers; those of vesicles and granules are clusters.
    granule_radius : (float, float)
        In nm.
    reticulum, golgi, myelin, fibres : float
        Probability of each in a block; myelin goes to one in twelve cells, most of which lie outside.
    trunks : float
        Probability that one cell is much thicker than the others, as the trunk of a dendrite is.
    boutons : float
        Share of the cells that are full of vesicles, at most.
    glia : float
        Probability that a cell runs between the others in thin processes.
    """

    cells: Cells
    nucleus: float = 0.1
    mitochondria: Range = (5, 60)
    granules: Range = (-20, 20)
    vesicles: Range = (-5, 20)
    lysosomes: Range = (-4, 4)
    lipid: Range = (-4, 2)
    synapses: Range = (-10, 10)
    granule_radius: Range = (50, 180)
    reticulum: float = 0.5
    golgi: float = 0.1
    myelin: float = 0.0
    fibres: float = 0.4
    boutons: float = 0.0
    trunks: float = 0.0
    glia: float = 0.0


KINDS: dict[str, Kind] = {
    "neuropil": Kind(
        Cells((150, 1000), stretch=3.0, joined=0.35, bundles=(-0.5, 2.5)),
        nucleus=0.06,
        mitochondria=(0, 50),
        granules=(-30, 8),
        vesicles=(-10, 30),
        synapses=(5, 60),
        reticulum=0.35,
        boutons=0.4,
        trunks=0.4,
        glia=0.8,
        myelin=0.48,
        fibres=0.7,
    ),
    "gland": Kind(
        Cells((4000, 9000), stretch=1.4, joined=0.1, gap=(10, 60)),
        nucleus=0.18,
        mitochondria=(-5, 35),
        granules=(20, 400),
        granule_radius=(80, 300),
        vesicles=(0, 30),
        lysosomes=(0, 8),
        synapses=(-4, 2),
        reticulum=0.8,
        golgi=0.35,
    ),
    "culture": Kind(
        Cells((5000, 9000), stretch=2.5, joined=0.1, gap=(0, 300), empty=0.12),
        nucleus=0.2,
        mitochondria=(-5, 30),
        vesicles=(0, 30),
        lysosomes=(0, 12),
        lipid=(-8, 12),
        reticulum=0.8,
        golgi=0.25,
        fibres=0.6,
    ),
    "epithelium": Kind(
        Cells((1500, 5000), stretch=2.0, joined=0.15, gap=(5, 120), empty=0.1),
        nucleus=0.18,
        mitochondria=(-10, 50),
        granules=(-50, 60),
        vesicles=(-5, 30),
        lysosomes=(-2, 6),
        reticulum=0.6,
        golgi=0.15,
    ),
    "loose": Kind(
        Cells((500, 3000), stretch=3.0, joined=0.3, gap=(20, 300), empty=0.07, bundles=(-1, 1)),
        nucleus=0.12,
        mitochondria=(0, 50),
        granules=(-20, 30),
        lysosomes=(-2, 6),
        synapses=(-5, 3),
        myelin=0.2,
        glia=0.25,
    ),
}
"""Every kind of tissue."""


def paint(canvas: Canvas, kind: Kind) -> None:
    """Paint a block of tissue."""
    style = Style.draw(canvas.rng)
    found, core = _with_nucleus(canvas, kind, _with_trunk(canvas, kind, seeds(canvas, kind.cells)))
    border = divide(canvas, found, kind.cells)
    count = max(seed.cell for seed in found) + 1
    glia = count if canvas.chance(kind.glia) else None
    if glia is not None:
        border, count = wrap(canvas, border, glia), count + 1
    gap = max(canvas.uniform(*kind.cells.gap), 0)
    canvas.room[...] = border - np.float32(gap / 2 + style.membrane_half)
    empty = _empty(canvas, kind, count, core)
    cytoplasm.fill_cells(canvas, style, count)
    if glia is not None:
        cytoplasm.stain(canvas, glia, canvas.uniform(-0.1, 0.35))
    _distract(canvas, kind, count)
    _leave_empty(canvas, style, empty)
    if kind.myelin and canvas.chance(kind.myelin):
        for cell in canvas.rng.choice(count, max(1, count // 12)):
            membranes.myelin(canvas, style, border, (canvas.owner == cell) & (empty < 0.5))
    if core is not None:
        organelles.nucleus(canvas, style, core)
    _place(canvas, kind, style, border, gap, count)
    membranes.plasma_membranes(canvas, style, border, gap, empty)
    canvas.labels[(empty > 0.5) & (canvas.labels != NUCLEUS)] = OUTSIDE
    if glia is not None:
        canvas.labels[(canvas.owner == glia) & (canvas.labels == CYTOSOL)] = GLIA


def _with_trunk(canvas: Canvas, kind: Kind, found: list[Seed]) -> list[Seed]:
    """Let one cell be much thicker than the others in some blocks."""
    if not canvas.chance(kind.trunks):
        return found
    place, radius = canvas.extent * canvas.rng.uniform(0, 1, 3), canvas.uniform(350, 1300)
    trunk = Seed(place, radius, canvas.direction(), canvas.uniform(1.5, 4), _unused(found))
    return [*(seed for seed in found if np.linalg.norm(seed.place - place) > radius), trunk]


def _with_nucleus(canvas: Canvas, kind: Kind, found: list[Seed]) -> tuple[list[Seed], Core | None]:
    """Make room for a cell with a nucleus in some blocks; return the nucleus, too.

    The border to a seed lies half-way between both surfaces, so a seed stays only where that is outside the
    nucleus. This is exact for round seeds; ``organelles.nucleus`` keeps the nucleus inside its cell anyway.
    """
    if not canvas.chance(kind.nucleus):
        return found, None
    radius = canvas.uniform(900, 3200)
    place = (
        canvas.extent * canvas.rng.uniform(0, 1, 3) + radius * canvas.uniform(0.6, 1.0) * canvas.direction()
    )
    cell = _unused(found)
    body = Seed(place, radius + canvas.uniform(200, 1500), canvas.direction(), 1.0, cell)
    core = Core(place, radius, cell)
    kept = [
        seed
        for seed in found
        if np.linalg.norm(seed.place - place) > 2 * core.reach + seed.radius - body.radius
    ]
    return [*kept, body], core


def _unused(found: list[Seed]) -> int:
    """Return a number that no cell has."""
    return max((seed.cell for seed in found), default=-1) + 1


def _empty(canvas: Canvas, kind: Kind, count: int, core: Core | None) -> F32:
    """Return 1 where there is no cell, else 0; a cell with a nucleus is one."""
    share = kind.cells.empty * canvas.uniform(0, 2)
    none = canvas.rng.random(count) < share
    if core is not None:
        none[core.cell] = False
    found: F32 = none.astype(np.float32)[canvas.owner]
    return found


def _leave_empty(canvas: Canvas, style: Style, empty: F32) -> None:
    """Paint resin where there is no cell, and let nothing else be painted there."""
    if not empty.any():
        return
    grey = np.float32(style.outside) + np.float32(canvas.uniform(0, 0.03)) * canvas.noise(100)
    canvas.paint(canvas.whole(), grey, empty)
    canvas.room[empty > 0.5] = -1


def _distract(canvas: Canvas, kind: Kind, count: int) -> None:
    if canvas.chance(0.7):
        cytoplasm.ribosomes(canvas, count)
    if canvas.chance(0.25):
        cytoplasm.glycogen(canvas, count)
    if canvas.chance(kind.fibres):
        cytoplasm.fibres(canvas, count, thick=True)
    if canvas.chance(kind.fibres / 2):
        cytoplasm.fibres(canvas, count, thick=False)


def _place(canvas: Canvas, kind: Kind, style: Style, border: F32, gap: float, count: int) -> None:
    """Paint organelles, the large ones first."""
    number, boutons = _counter(canvas), kind.boutons * canvas.uniform(0, 1)
    _large(canvas, kind, style, number)
    for _ in range(number(kind.synapses)):
        membranes.synapse(canvas, style, border, gap)
    if canvas.chance(kind.golgi):
        organelles.golgi(canvas, style)
    for cell in range(count):
        if canvas.chance(boutons):
            organelles.bouton(canvas, style, cell)
    if granules := number(kind.granules):
        organelles.spheres(canvas, style, GRANULE, granules, kind.granule_radius)
    if canvas.chance(kind.reticulum):
        organelles.reticulum(canvas, style)
    _vesicles(canvas, style, number(kind.vesicles))


def _large(canvas: Canvas, kind: Kind, style: Style, number: Counter) -> None:
    for _ in range(number(kind.lipid)):
        organelles.spheres(canvas, style, LIPID, int(canvas.rng.integers(1, 4)), (80, 600))
    for _ in range(number(kind.mitochondria)):
        organelles.mitochondrion(canvas, style)
    for _ in range(number(kind.lysosomes)):
        organelles.lysosome(canvas, style)


def _vesicles(canvas: Canvas, style: Style, groups: int) -> None:
    """Paint groups of vesicles, most of them close together."""
    for _ in range(groups):
        found = canvas.place(30)
        if found is None:
            continue
        size = canvas.uniform(16, 55)
        centre = found[0] if canvas.chance(0.85) else None
        many, spread = int(canvas.rng.integers(3, 30)), canvas.uniform(80, 400)
        organelles.spheres(canvas, style, VESICLE, many, (size, 1.4 * size), centre, spread)


def _counter(canvas: Canvas) -> Counter:
    """Return what draws numbers of organelles for the size of the block."""
    volume = float(np.prod(canvas.extent + 200)) / 1e10

    def number(per: Range) -> int:
        return int(canvas.rng.poisson(max(0.0, canvas.uniform(*per)) * volume))

    return number
