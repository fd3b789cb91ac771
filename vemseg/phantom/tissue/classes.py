"""The classes of synthetic tissue."""

from __future__ import annotations

CLASSES = (
    "cytosol",
    "membrane",
    "mitochondrion",
    "vesicle",
    "granule",
    "reticulum",
    "nucleus",
    "synapse",
    "myelin",
    "lipid",
    "outside",
    "glia",
)
"""Names of the classes; a label is an index into this.

"membrane" is the plasma membrane with the gap between two cells, "granule" holds secretory granules,
lysosomes and other dense bodies, "reticulum" endoplasmic reticulum and Golgi, "synapse" the densities at
synapses and junctions, "outside" empty resin, lumina, wide spaces between cells and
what has no image, "glia" the thin processes, dark or pale, that wrap other cells. An organelle's own
membrane belongs to it.
"""

CYTOSOL, MEMBRANE, MITOCHONDRION, VESICLE, GRANULE, RETICULUM = range(6)
NUCLEUS, SYNAPSE, MYELIN, LIPID, OUTSIDE, GLIA = range(6, len(CLASSES))
