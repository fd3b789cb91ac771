"""Recipes: the settings of one method, read from a TOML file into frozen, checked tables.

Every default is written here and nowhere else. An unknown key, a wrong type or a value out of range raises a
``UsageError`` that names the key and the file. Recipes that ship with the package are called by name, a
recipe may extend one other, and single keys are set with ``table.key=value``.

    recipe      a whole recipe: its tables, its hash, its TOML
    loading     TOML and ``table.key=value`` -> a recipe
    tables, regions
                the tables that every recipe has
    model, cluster
                the tables of the kinds of model and of the methods of clustering
    kinds, methods
                the registries of both
    choices     which of these tables a recipe has
    base        what all tables share
    explaining, spelling
                what is wrong with a recipe, in words, and what may have been meant
"""

from vemseg.recipe.cluster.base import CentroidTable, ClusterTable
from vemseg.recipe.cluster.codebook import CodebookTable
from vemseg.recipe.cluster.graphs import (
    CutTable,
    DeepCutTable,
    DsmTable,
    IncrementalTable,
    SccsTable,
    SpectralTable,
)
from vemseg.recipe.cluster.hyperbolic import HyperbolicTable
from vemseg.recipe.cluster.kmeans import KMeansTable
from vemseg.recipe.cluster.linkage import LinkageTable
from vemseg.recipe.cluster.minibatch import MiniBatchTable
from vemseg.recipe.cluster.mixture import MixtureTable
from vemseg.recipe.cluster.named import NamedTable
from vemseg.recipe.cluster.points import PointsTable
from vemseg.recipe.kinds import KINDS, Kind
from vemseg.recipe.loading import DEFAULT_RECIPE, load_recipe, override, parse_recipe, sets, shipped
from vemseg.recipe.methods import METHODS, Method
from vemseg.recipe.model.base import ModelTable
from vemseg.recipe.model.cihs import CihsTable
from vemseg.recipe.model.classical import ClassicalTable
from vemseg.recipe.model.cubes import CubeTable
from vemseg.recipe.model.han2022 import Han2022Table
from vemseg.recipe.model.his4mae import His4maeTable
from vemseg.recipe.model.sdae import SdaeTable
from vemseg.recipe.model.self_distilled import SelfDistilledTable
from vemseg.recipe.model.supervised import (
    SegmenterTable,
    SupervisedViTTable,
    UNetSupervisedTable,
    VitSupervisedTable,
)
from vemseg.recipe.model.unet import UNetTable
from vemseg.recipe.model.vit import MaesterTable, TransformerTable, ViTTable
from vemseg.recipe.recipe import Recipe, diff
from vemseg.recipe.regions import RegionsTable
from vemseg.recipe.tables import EmbedTable, FovTable, TissueTable, TrainTable, VolumeTable

__all__ = [
    "DEFAULT_RECIPE",
    "KINDS",
    "METHODS",
    "CentroidTable",
    "CihsTable",
    "ClassicalTable",
    "ClusterTable",
    "CodebookTable",
    "CubeTable",
    "CutTable",
    "DeepCutTable",
    "DsmTable",
    "EmbedTable",
    "FovTable",
    "Han2022Table",
    "His4maeTable",
    "HyperbolicTable",
    "IncrementalTable",
    "KMeansTable",
    "Kind",
    "LinkageTable",
    "MaesterTable",
    "Method",
    "MiniBatchTable",
    "MixtureTable",
    "ModelTable",
    "NamedTable",
    "PointsTable",
    "Recipe",
    "RegionsTable",
    "SccsTable",
    "SdaeTable",
    "SegmenterTable",
    "SelfDistilledTable",
    "SpectralTable",
    "SupervisedViTTable",
    "TissueTable",
    "TrainTable",
    "TransformerTable",
    "UNetSupervisedTable",
    "UNetTable",
    "ViTTable",
    "VitSupervisedTable",
    "VolumeTable",
    "diff",
    "load_recipe",
    "override",
    "parse_recipe",
    "sets",
    "shipped",
]
