"""Dense inference: encoder x placement x volume -> vectors -> scores -> labels, block by block.

The field of view of an encoder is laid over the working grid (the volume at the model's voxel size) as its
placement says (``tiling``). What comes back lies on a lattice whose points have positions in the *source*
volume's voxels, so that interpolating scores from it gives labels on the source's own grid, whatever the
working voxel size.

Scores, not vectors, are interpolated. Where scores are affine in the vector, as those of k-means are,
interpolating K score channels gives exactly the labels of interpolating the vectors (``tests/test_dense.py``
proves it; ``Labeller.exact_under_interpolation`` says so of a method).

Vectors are rounded to float16 wherever they leave the encoder, so stored and computed vectors are the same
numbers and give the same labels.

    sources   the contract of everything that has vectors of a volume, and what lattices share
    computed  an encoder laid over a volume
    stored    vectors that ``embed`` stored, or that are held in memory
    regions   one vector for each region of even grey, such as superpixels (parts, pooling)
    graph_sampler  graphs to train a labeller on
    opening   what a user names -> a source
    grid      the working grid, and the layout of the lattice on it
    scores    interpolation from the lattice to voxels
    smoothing a Gaussian on the lattice
    sample    the vectors that classes are fitted on
    located   a sample of vectors together with their places
    planning  the blocks that fit into a budget of memory
    probing   how long labels take
    holding   the vectors of a small volume, kept in memory
    scale     the scale at which an encoder tells most about a volume of unknown voxel size
    pseudo    labels that a model gives a volume where it is sure
    lessons, taught
              labels that a model learns from, as users name them, and what training gets of them
    pointed   vectors at points that somebody clicked
    jobs      labels and vectors as work that any process can do
"""

from vemseg.dense.computed import ComputedVectors, Covering
from vemseg.dense.graph_sampler import GraphSampler
from vemseg.dense.grid import Grid, Layout, lay_out, working_grid
from vemseg.dense.holding import point_stages
from vemseg.dense.jobs import EmbedJob, LabelJob, label_stages
from vemseg.dense.lessons import Lessons
from vemseg.dense.located import Located, located, located_again
from vemseg.dense.opening import (
    Wanted,
    as_wanted,
    divide_stored,
    lay_over,
    lay_over_volume,
    open_features,
    training_source,
)
from vemseg.dense.planning import check_sample, label_blocks, point_blocks
from vemseg.dense.pointed import examples
from vemseg.dense.pseudo import Judge, PseudoLabels
from vemseg.dense.regions import RegionVectors
from vemseg.dense.sample import CELLS_AT_LEAST, SampleCell, keep_sample, sample_cells
from vemseg.dense.scores import RATINGS, Interpolations, argmax_interpolated, interpolated, interpolations
from vemseg.dense.sources import Head, LatticeVectors, Maker, VectorSource
from vemseg.dense.stored import StoredVectors
from vemseg.dense.taught import Taught, teach

__all__ = [
    "CELLS_AT_LEAST",
    "RATINGS",
    "ComputedVectors",
    "Covering",
    "EmbedJob",
    "GraphSampler",
    "Grid",
    "Head",
    "Interpolations",
    "Judge",
    "LabelJob",
    "LatticeVectors",
    "Layout",
    "Lessons",
    "Located",
    "Maker",
    "PseudoLabels",
    "RegionVectors",
    "SampleCell",
    "StoredVectors",
    "Taught",
    "VectorSource",
    "Wanted",
    "argmax_interpolated",
    "as_wanted",
    "check_sample",
    "divide_stored",
    "examples",
    "interpolated",
    "interpolations",
    "keep_sample",
    "label_blocks",
    "label_stages",
    "lay_out",
    "lay_over",
    "lay_over_volume",
    "located",
    "located_again",
    "open_features",
    "point_blocks",
    "point_stages",
    "sample_cells",
    "teach",
    "training_source",
    "working_grid",
]
