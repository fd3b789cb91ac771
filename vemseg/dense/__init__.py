"""Dense inference: encoder x placement x volume -> vectors or scores on a lattice, block by block.

The field of view of an encoder is laid over the working grid (the volume at the model's voxel size) as its
placement says (``tiling``). What comes back lies on a lattice whose points have positions in the *source*
volume's voxels, so that interpolating scores from it gives labels on the source's own grid, whatever the
working voxel size.

Scores, not vectors, are interpolated. Where scores are affine in the vector, as those of k-means are,
interpolating K score channels gives exactly the labels of interpolating the vectors (``tests/test_dense.py``
proves it; ``Labeller.exact_under_interpolation`` says so of a method).

Vectors are rounded to float16 wherever they leave the encoder, so stored and streamed features are the same
numbers and give the same labels.

    grid      the working grid, and the layout of the lattice on it
    vectors   an encoder laid over a volume, or stored vectors; labels from either
    smoothing a Gaussian on the lattice
    scores    interpolation from the lattice to voxels
    sample    lattice points for fitting classes
"""

from vemseg.dense.grid import DENSE_CELL, Grid, Layout, lay_out, working_grid
from vemseg.dense.sample import CELLS_AT_LEAST, SampleCell, lattice_boxes, sample_cells
from vemseg.dense.scores import Interpolations, argmax_interpolated, interpolated, interpolations
from vemseg.dense.vectors import (
    DenseEncoder,
    Head,
    PatchMean,
    StoredVectors,
    block_input,
    block_labels,
    labels,
)

__all__ = [
    "CELLS_AT_LEAST",
    "DENSE_CELL",
    "DenseEncoder",
    "Grid",
    "Head",
    "Interpolations",
    "Layout",
    "PatchMean",
    "SampleCell",
    "StoredVectors",
    "argmax_interpolated",
    "block_input",
    "block_labels",
    "interpolated",
    "interpolations",
    "labels",
    "lattice_boxes",
    "lay_out",
    "sample_cells",
    "working_grid",
]
