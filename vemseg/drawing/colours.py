"""One colour per label id, told apart by colour-blind readers as far as their number allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import UsageError

RGB = tuple[int, int, int]
"""Red, green, blue, 0..255."""

MOST_COLOURS = 255
"""The size of the palette: as many colours as uint8 labels have ids besides 0."""

# Okabe and Ito's set. Blue comes late: mixed with grey values it looks like sky blue. Black is last.
OKABE_ITO: tuple[RGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
    (0, 0, 0),
)

# What protanopes and deuteranopes see, on linear RGB (Machado, Oliveira, Fernandes 2009, severity 1.0).
_DICHROMATS = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)


def palette(n: int) -> list[RGB]:
    """Return the colours of label ids 1..n; id ``i`` has entry ``i - 1``, whatever ``n`` is.

    The first eight are Okabe and Ito's. Each further one is the candidate farthest from all before it, in
    CIELAB, for normal and for dichromatic sight.

    Raises
    ------
    UsageError
        Where ``n`` is above 255.

    Examples
    --------
    >>> palette(2)
    [(230, 159, 0), (86, 180, 233)]
    """
    if not 0 <= n <= MOST_COLOURS:
        raise UsageError(f"no palette of {n} colours: there are 0..{MOST_COLOURS}")
    return list(OKABE_ITO[:n] if n <= len(OKABE_ITO) else _extended()[:n])


def table(own: Mapping[int, RGB] = MappingProxyType({})) -> NDArray[np.uint8]:
    """Return all colours as a look-up table by label id, (256, 3); row 0 is never shown.

    Parameters
    ----------
    own : mapping of int to (int, int, int)
        Colours of some ids that take the place of those of the palette.
    """
    colours = np.array([(0, 0, 0), *palette(MOST_COLOURS)], dtype=np.uint8)
    for i, colour in own.items():
        if 0 < i <= MOST_COLOURS:
            colours[i] = colour
    return colours


def css(colour: Sequence[int] | NDArray[np.uint8]) -> str:
    """Write a colour as matplotlib reads it, ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*(int(c) for c in colour))


def entries(
    ids: Sequence[int], names: Mapping[int, str] | None, own: Mapping[int, RGB] = MappingProxyType({})
) -> dict[str, str]:
    """Return the legend of label ids above 0, name -> ``#rrggbb``; without a name, id 3 is ``class 3``.

    Ids may have colours of their own, as in ``table``.
    """
    lut = table(own)
    return {(names or {}).get(i, f"class {i}"): css(lut[i]) for i in ids if i > 0}


@lru_cache(maxsize=1)
def _extended() -> tuple[RGB, ...]:
    """Return all colours, the generated ones chosen farthest first."""
    levels = np.linspace(0, 255, 14).round()
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lightness, a, b = _lab(rgb)[0].T
    rgb = rgb[(np.hypot(a, b) > 20) & (lightness > 30) & (lightness < 92)]  # neither grey nor dark nor white
    seen, chosen = _lab(rgb), [*OKABE_ITO]
    nearest = np.full(len(rgb), np.inf)
    for colour in chosen:
        nearest = np.minimum(nearest, _distance(seen, _lab(np.array([colour]))))
    while len(chosen) < MOST_COLOURS:
        best = int(nearest.argmax())
        red, green, blue = (int(c) for c in rgb[best])
        chosen.append((red, green, blue))
        nearest = np.minimum(nearest, _distance(seen, seen[:, best : best + 1]))
    return tuple(chosen)


def _lab(rgb: NDArray[np.floating | np.integer]) -> NDArray[np.float64]:
    """Return CIELAB of (n, 3) colours 0..255 as three kinds of eyes see them, (3, n, 3)."""
    from skimage.color import rgb2lab

    share = np.asarray(rgb) / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    views = np.concatenate([linear[None], linear @ _DICHROMATS.transpose(0, 2, 1)]).clip(0, 1)
    coded = np.where(views <= 0.0031308, views * 12.92, 1.055 * views ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(coded))


def _distance(many: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mix the distance for normal eyes with that for the dichromat who sees the least difference."""
    normal, *dichromat = np.linalg.norm(many - one, axis=-1)
    return np.asarray(normal + np.minimum(*dichromat))
