"""How dark everything is in a block, drawn at random: real stains are one of these variations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vemseg.phantom.tissue.classes import GRANULE, LIPID

Look = tuple[float, float, float, float]
"""Grey value of a body and of its rim (below 0: none), the width of its halo in radii, and its grain."""


BRIGHT = 0.02
"""Share of the styles whose membranes are brighter than the cytosol, as stains that spare them leave them."""


@dataclass(frozen=True)
class Style:
    """Grey values, 0 stained to 1 resin, and thicknesses in nm.

    Attributes
    ----------
    cytosol, membrane, nucleoplasm, lumen, outside, cleft : float
        Grey values; the cleft is what lies between two cells.
    cells : float
        Standard deviation of the cytosol's grey value between cells.
    membrane_half : float
        Half the thickness of a membrane.
    matrix, matrix_grain, cristae : float
        Grey value of the matrix of mitochondria relative to the cytosol, its grain, and the grey value of
        cristae relative to the matrix.
    mitochondria_rim : float
    mitochondria_radius : (float, float)
    cristae_period, cristae_half : float
    double : bool
        Whether both membranes of mitochondria are seen.
    """

    cytosol: float
    cells: float
    membrane: float
    membrane_half: float
    nucleoplasm: float
    lumen: float
    outside: float
    cleft: float
    matrix: float
    matrix_grain: float
    cristae: float
    cristae_period: float
    cristae_half: float
    mitochondria_rim: float
    mitochondria_radius: tuple[float, float]
    double: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """Draw a style."""
        cytosol = rng.uniform(0.5, 0.8)
        membrane = rng.uniform(0.03, min(0.4, cytosol - 0.22))
        if rng.random() < BRIGHT:
            membrane = cytosol + rng.uniform(0.15, 0.35)
        matrix = rng.uniform(-0.32, -0.04) if rng.random() < 0.85 else rng.uniform(-0.04, 0.1)
        cristae = rng.uniform(-0.3, -0.03) if rng.random() < 0.6 else rng.uniform(0.04, 0.3)
        thin = rng.uniform(90, 220)
        outside = cytosol + (rng.uniform(0.1, 0.35) if rng.random() < 0.85 else rng.uniform(-0.3, 0.1))
        return cls(
            cytosol=cytosol,
            cells=rng.choice([0.0, 0.02, 0.05, 0.09]) * rng.uniform(0.5, 1.5),
            membrane=membrane,
            membrane_half=rng.uniform(3.5, 11.0),
            nucleoplasm=cytosol + rng.uniform(-0.12, 0.12),
            lumen=cytosol + rng.uniform(-0.08, 0.22),
            outside=outside,
            cleft=membrane + rng.uniform(0, 0.1) if rng.random() < 0.6 else outside,
            matrix=matrix,
            matrix_grain=rng.uniform(0, 0.06),
            cristae=cristae,
            cristae_period=rng.uniform(40, 140),
            cristae_half=rng.uniform(6, 18),
            mitochondria_rim=membrane + rng.uniform(-0.02, 0.15),
            mitochondria_radius=(thin, thin * rng.uniform(1.2, 2.2)),
            double=bool(rng.random() < 0.5),
        )

    def look(self, rng: np.random.Generator, kind: int) -> Look:
        """Draw how vesicles, granules or droplets look."""
        rim = self.membrane + rng.uniform(-0.02, 0.12)
        if kind == LIPID:
            dark = rng.random() < 0.45
            core = rng.uniform(0.1, 0.35) if dark else rng.uniform(0.7, 0.95)
            return core, (rim if rng.random() < 0.4 else -1.0), 0.0, rng.uniform(0, 0.02)
        if kind == GRANULE:
            core = rng.uniform(0.05, 0.5)
            if rng.random() < 0.15:
                core = rng.uniform(0.6, 0.85)
            halo = rng.uniform(0.1, 0.5) if rng.random() < 0.45 else 0.0
            return core, (rim if halo or rng.random() < 0.6 else -1.0), halo, rng.uniform(0, 0.08)
        core = self.cytosol + rng.uniform(-0.1, 0.15)
        if rng.random() < 0.12:
            core = rng.uniform(0.2, 0.4)
        return core, rim, 0.0, 0.0
